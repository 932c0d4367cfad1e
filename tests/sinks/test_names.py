"""Names identify tensors and can be parsed; no two tensors have the same name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib_dumpunet.captures import Tag
from lib_dumpunet.kinds import KINDS as ROWS
from lib_dumpunet.kinds import Kind
from lib_dumpunet.sinks.names import (
    bin_name,
    bin_pattern,
    channel_name,
    key_of,
    parse_name,
    safetensors_name,
    tag_of_key,
    tensor_name,
)

LAYER_KINDS = [row.name for row in ROWS.values() if row.scope == "layer" and not row.is_passing]
KINDS: tuple[Kind, ...] = ("feature", "difference", *LAYER_KINDS)
FIRST = [Tag(12, 3, "OUT11", kind) for kind in KINDS]
FIRST += [Tag(12, 1000, "IN07", kind, 9) for kind in LAYER_KINDS]
TAGS = FIRST + [replace(tag, hires=True) for tag in FIRST]
HEAT = [
    Tag(12, 0, "", "word", 0, "hr020"),
    Tag(12, 0, "", "word", 0, "hr020", "uncond"),
    Tag(12, 0, "", "point", 0, "12x80"),
]


@pytest.mark.parametrize(
    ("tag", "stem"),
    [
        (Tag(0, 20, "OUT11"), "000-OUT11-020"),
        (Tag(0, 20, "OUT11", hires=True), "000-OUT11-hr020"),
        (Tag(0, 20, "IN07", "qk", 1, hires=True), "000-IN07-hr020-qk2"),
        (Tag(0, 20, "OUT11", "difference", hires=True), "000-OUT11-hr020-difference"),
    ],
)
def test_the_step_of_a_hires_pass_is_marked(tag: Tag, stem: str) -> None:
    assert tag.stem == stem


def test_safetensors_files_of_a_hires_pass_are_marked() -> None:
    assert safetensors_name(0, 20, 1) == "000-020.safetensors"
    assert safetensors_name(0, 20, 1, hires=True) == "000-hr020.safetensors"
    assert safetensors_name(0, 20, 2, hires=True) == "000-hr020-2.safetensors"


@pytest.mark.parametrize("run", [1, 2, 30])
@pytest.mark.parametrize("tag", TAGS + HEAT)
def test_names_of_tensors_are_read_back(tag: Tag, run: int) -> None:
    name = parse_name(tensor_name(tag, run, "npy"))
    assert name is not None
    assert (name.tag, name.hires, name.run) == (tag, tag.hires, run)
    pattern = bin_name(tag, 1_700_000_000 + run)
    for channel in (0, 12345):
        file = channel_name(pattern, channel)
        name = parse_name(file)
        assert name is not None
        assert (name.image, name.step, name.hires) == (tag.image, tag.step, tag.hires)
        assert (name.tag, name.channel, name.time) == (tag, channel, 1_700_000_000 + run)
        assert bin_pattern(file) == pattern


@pytest.mark.parametrize("hires", [False, True])
@pytest.mark.parametrize("run", [1, 2])
def test_names_of_files_of_many_tensors_are_read_back(run: int, hires: bool) -> None:
    name = parse_name(safetensors_name(12, 3, run, hires=hires))
    assert name is not None
    assert (name.image, name.step, name.hires, name.run, name.tag) == (12, 3, hires, run, None)


@pytest.mark.parametrize("tag", TAGS + HEAT)
def test_keys_are_read_back(tag: Tag) -> None:
    assert tag_of_key(key_of(tag), tag.image, tag.step, hires=tag.hires) == tag


def test_no_two_tensors_have_the_same_name_on_a_file_system_that_ignores_case() -> None:
    names = {tensor_name(tag, 1, "npy").casefold() for tag in TAGS + HEAT}
    assert len(names) == len(TAGS) + len(HEAT)


@pytest.mark.parametrize(
    "name",
    [
        "000-OUT11-HR020.npy",
        "000-OUT11-hr.npy",
        "000-OUT11-hr20.npy",
        "000-hr020-OUT11.npy",
        "000-word-circle-hr020.npy",
        "000-OUT11-hr020.safetensors",
        "hr000-020.safetensors",
    ],
)
def test_names_that_no_dump_has(name: str) -> None:
    assert parse_name(name) is None
