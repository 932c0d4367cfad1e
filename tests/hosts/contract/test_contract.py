"""The contract of hosts: the same request, run by each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.models.describe import describe
from lib_dumpunet.sinks.dump import DumpSink
from lib_dumpunet.sinks.reader import load_dump
from tests.explorer.pages import read_page
from tests.hosts.contract.drivers import STEPS, Asked, Diffusers, Driver, FakeHost, Made, Webui
from tests.hosts.webui.conftest import family, lab, unet, webui  # noqa: F401 - fixtures
from tests.unets import hook_count


@pytest.fixture(params=["fake", "diffusers", "webui", "forge"])
def host(request: pytest.FixtureRequest) -> Iterator[Driver]:
    if request.param == "fake":
        driver: Driver = FakeHost()
    elif request.param == "diffusers":
        driver = Diffusers(request.getfixturevalue("tiny"))
    else:
        driver = Webui(request.getfixturevalue("lab"))
    yield driver
    assert hook_count(driver.module) == 0


def features(folder: Path, layers: str = "M00,OUT11", steps: str = "1,3", **more: Any) -> dict[str, Any]:
    return {"features": {"layers": layers, "steps": steps, "dump": {"path": str(folder), **more}}}


def dumped(folder: Path) -> dict[Tag, Tensor]:
    return {item.tag: item.tensor for item in load_dump(folder) if item.tag is not None}


@contextmanager
def calls_of(host: Driver) -> Iterator[list[int]]:
    """Record the rows of each U-Net call."""
    rows: list[int] = []
    handle = host.module.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    try:
        yield rows
    finally:
        handle.remove()


def test_looking_changes_no_image(host: Driver, tmp_path: Path) -> None:
    plain = host.make(Asked({}, ("a b", "a"), batches=2))
    asked = {**features(tmp_path), "attention": {"kinds": ["qk", "self"], "words": "a", "layers": "M00"}}
    seen = host.make(Asked(asked, ("a b", "a"), batches=2))
    assert len(plain.images) == 4
    assert seen.images == plain.images
    assert seen.told == []


def test_images_are_numbered_through_all_batches_and_steps_from_one(host: Driver, tmp_path: Path) -> None:
    host.make(Asked(features(tmp_path), ("a b", "a"), batches=2))
    assert {(tag.image, tag.step, tag.block) for tag in dumped(tmp_path)} == {
        (image, step, block) for image in range(4) for step in (1, 3) for block in ("M00", "OUT11")
    }


@pytest.mark.parametrize("negative", ["c", "c d e f g h"])
def test_an_image_has_the_features_that_it_has_alone(host: Driver, tmp_path: Path, negative: str) -> None:
    host.make(Asked(features(tmp_path / "batch"), ("a b", "a"), negative, seed=5))
    host.make(Asked(features(tmp_path / "alone"), ("a",), negative, seed=6))
    batch, alone = dumped(tmp_path / "batch"), dumped(tmp_path / "alone")
    assert len(alone) == 4
    for tag, tensor in alone.items():
        found = batch[Tag(1, tag.step, tag.block)]
        torch.testing.assert_close(found, tensor, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(batch[Tag(0, tag.step, tag.block)], tensor, rtol=1e-3, atol=1e-3)


@contextmanager
def texts_of(host: Driver, block: str) -> Iterator[list[Tensor]]:
    """Record the text that a block's attention reads in each call: "row token dim"."""
    read: list[Tensor] = []
    layer = describe(host.module).block(block).layers[0].cross_attention
    handle = layer.to_k.register_forward_pre_hook(lambda _module, args: read.append(args[0].detach().clone()))
    try:
        yield read
    finally:
        handle.remove()


def is_read(text: Tensor, row: Tensor) -> bool:
    """Return whether a row begins with a text."""
    return len(row) >= len(text) and torch.allclose(row[: len(text)], text.to(row), rtol=1e-4, atol=1e-5)


def test_each_block_of_each_image_reads_its_own_text(host: Driver) -> None:
    own, main, negative = (host.encode(text) for text in ("a e", "a", "c"))
    asked = Asked({"layer_prompt": {}}, ("a(~: M00: e:~)", "a"), "c")
    with texts_of(host, "M00") as middle, texts_of(host, "OUT11") as last:
        host.make(asked)
    for read, expected in ((middle, {"own": 1, "main": 1}), (last, {"own": 0, "main": 2})):
        rows = [row for call in read for row in call]
        assert len(rows) == 4 * STEPS
        assert sum(is_read(own, row) for row in rows) == expected["own"] * STEPS
        assert sum(is_read(main, row) for row in rows) == expected["main"] * STEPS
        assert sum(is_read(negative, row) for row in rows) == 2 * STEPS


def test_the_same_text_in_every_block_is_the_plain_prompt(host: Driver) -> None:
    steered = host.make(Asked({"layer_prompt": {}}, ("(~:_:a b:~)",)))
    assert steered.images == host.make(Asked({}, ("a b",))).images


def test_prompts_are_taken_as_they_are_where_texts_per_block_are_off(host: Driver) -> None:
    with texts_of(host, "M00") as read:
        host.make(
            Asked(features(Path("unused"), "M00") | {"features": {"layers": "M00"}}, ("a(~: M00: e:~)",))
        )
    own = host.encode("a e")
    assert not any(is_read(own, row) for call in read for row in call)


def test_words_are_means_of_what_layers_look_at(host: Driver, tmp_path: Path) -> None:
    dump = {"path": str(tmp_path)}
    kinds = {"kinds": ["qk"], "words": "b", "layers": "M00,OUT11", "steps": "1,3", "dump": dump}
    made = host.make(Asked({"attention": kinds}, ("a b", "b a"), batches=2))
    assert made.told == []
    found = dumped(tmp_path)
    for image in range(4):
        (word,) = (tensor for tag, tensor in found.items() if tag.kind == "word" and tag.image == image)
        column = 1 + (image % 2 == 0)
        maps = [
            torch.nn.functional.interpolate(
                tensor[None, :, column].mean(1, keepdim=True), word.shape, mode="bilinear"
            )
            for tag, tensor in found.items()
            if tag.kind == "qk" and tag.image == image
        ]
        assert len(maps) == 4
        torch.testing.assert_close(word, torch.cat(maps).mean((0, 1)), rtol=1e-3, atol=1e-4)


def test_a_difference_is_that_of_the_two_runs(host: Driver, tmp_path: Path) -> None:
    asked = {
        **features(tmp_path / "both", "OUT11", "2", format="npy"),
        "layer_prompt": {},
        "difference": {
            "layers": "OUT11",
            "steps": "2",
            "runs": "both",
            "dump": {"path": str(tmp_path / "difference")},
        },
    }
    made = host.make(Asked(asked, ("a(~: M00: e:~)", "a b"), batches=2))
    assert len(made.images) == 4
    steered, plain = dumped(tmp_path / "both"), dumped(tmp_path / "both" / "plain")
    difference = dumped(tmp_path / "difference")
    assert len(difference) == 4
    for tag, tensor in difference.items():
        other = Tag(tag.image, tag.step, tag.block)
        assert torch.equal(tensor, steered[other].float() - plain[other].float())
        assert bool(tensor.any()) == (tag.image % 2 == 0)


def test_each_image_has_a_page_in_order(host: Driver) -> None:
    asked = {"features": {"layers": "M00", "steps": "1"}, "explorer": {}}
    made = host.make(Asked(asked, ("a b", "a"), batches=2))
    assert len(made.pages) == 4
    seeds = [dict(read_page(page).data["parameters"])["Seed"] for page in made.pages]
    assert seeds == ["1", "2", "3", "4"]
    assert all(read_page(page).data["picture"] for page in made.pages)


MISTAKES = [
    ({"features": {"layers": "IN99"}}, ("a",), "IN99"),
    ({"features": {"layers": "M00", "steps": "9-"}}, ("a",), "9-"),
    ({"attention": {"words": "x", "layers": "M00"}}, ("a",), "'x'"),
    ({"attention": {"kinds": ["qk"], "layers": "IN00"}}, ("a",), "IN00"),
    ({"layer_prompt": {}}, ("a(~: M00 b :~)",), "M00"),
    ({"features": {"layers": "M00", "color": {"formula": "v.x;1;1"}}}, ("a",), "v.x"),
]


@pytest.mark.parametrize(("settings", "prompts", "part"), MISTAKES)
def test_a_mistake_is_told_before_anything_is_sampled(
    host: Driver, settings: dict[str, Any], prompts: tuple[str, ...], part: str
) -> None:
    with calls_of(host) as calls:
        made = host.make(Asked(settings, prompts))
    assert calls == []
    assert made.images == []
    assert any(part in sentence for sentence in made.told), made.told


def test_a_fault_of_writing_is_told_once_and_no_image_is_lost(
    host: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: DumpSink, capture: object) -> None:
        raise HostError("the disk is full")

    plain: Made = host.make(Asked({}, ("a b", "a"), batches=2))
    monkeypatch.setattr(DumpSink, "accept", fail)
    made = host.make(Asked(features(tmp_path), ("a b", "a"), batches=2))
    assert made.images == plain.images
    assert [sentence for sentence in made.told if "disk" in sentence] == ["the disk is full."]


def test_a_warning_is_told_once(host: Driver) -> None:
    asked = {"features": {"layers": "M00"}, "layer_prompt": {}}
    made = host.make(Asked(asked, ("a(~: IN00: e:~)", "a"), batches=2))
    assert sum("no cross-attention" in sentence for sentence in made.told) == 1


def test_dumps_tell_whose_they_are(host: Driver, tmp_path: Path) -> None:
    from lib_dumpunet.sinks.manifest import read_manifest

    host.make(Asked(features(tmp_path, "M00", "1"), ("a b", "a"), "c d", batches=2, seed=7))
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    entries = sorted(manifest["files"], key=lambda entry: entry["image"])
    assert [(e["image"], e["prompt"], e["negative_prompt"], e["seed"]) for e in entries] == [
        (0, "a b", "c d", 7),
        (1, "a", "c d", 8),
        (2, "a b", "c d", 9),
        (3, "a", "c d", 10),
    ]
