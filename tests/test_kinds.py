"""The table of kinds: each row is complete, and a new one takes effect everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_dumpunet import trace
from lib_dumpunet.captures import Tag
from lib_dumpunet.hooks.calls import Out, Seen
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.readers import READERS, Reader
from lib_dumpunet.hosts.diffusers.generate import ResultHandlers, generate
from lib_dumpunet.hosts.diffusers.job import make_job
from lib_dumpunet.kinds import CHANNELS, CHOICES, KINDS, KindRow
from lib_dumpunet.models.describe import describe
from lib_dumpunet.settings import AttentionSettings, DumpSettings, FeatureSettings, GenerateSettings, Settings
from lib_dumpunet.settings.fields import ENTRIES
from lib_dumpunet.settings.infotext import to_infotext
from lib_dumpunet.settings.json import from_dict
from lib_dumpunet.sinks.drawing import DRAWINGS
from lib_dumpunet.sinks.names import key_of, parse_name, tag_of_key, tensor_name
from lib_dumpunet.sinks.reader import load_dump
from tests.explorer.pages import make_pages, read_page
from tests.pipelines import WIDTHS, load_sd1

SMALL = GenerateSettings(steps=2, width=64, height=64, seed=7, guidance=4)
MADE_OF_OTHERS = {"difference", "pca"}
READ_OF_BLOCKS = {"feature", "plain", "steered"}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_sd1()


@pytest.mark.parametrize("row", list(KINDS.values()), ids=list(KINDS))
def test_each_row_is_complete(row: KindRow) -> None:
    assert row.name in {*READERS, *READ_OF_BLOCKS, *MADE_OF_OTHERS}
    assert row.axes
    assert row.about
    assert bool(row.mode) == bool(row.mode_label) == bool(row.page_parts)
    assert bool(row.choice_label) == bool(row.choice_help)
    if row.is_passing:
        assert (row.drawing, row.mode, row.heading) == ("", "", "")
        return
    assert row.drawing in DRAWINGS or row.scope == "image"
    assert row.heading
    tag = Tag(3, 20, "OUT11", row.name) if row.scope != "image" else Tag(3, 0, "", row.name, 0, "star")
    name = parse_name(tensor_name(tag, 2, "npy"))
    assert name is not None
    assert name.tag == tag
    assert tag_of_key(key_of(tag), tag.image, tag.step) == tag


def test_no_two_rows_are_mixed_up() -> None:
    for attribute in ("heading", "mode", "mode_label", "choice_label", "gallery"):
        values = [getattr(row, attribute) for row in KINDS.values() if not row.is_passing]
        told = [value for value in values if value != ""]
        assert len(told) == len(set(told)), attribute


def updates(pipe: Any, prompt: str) -> dict[tuple[str, int], Tensor]:
    """Record with other hooks what transformers add, for the prompt's row of each call."""
    added: dict[tuple[str, int], Tensor] = {}
    job = make_job(pipe, [prompt], SMALL)
    calls: list[None] = []

    def note(block: str, args: Any, kwargs: Any, output: Any) -> None:
        added[block, len(calls)] = (output[0][-1].float() - args[0][-1].float()).clone()

    with HookSet() as hooks:
        hooks.before(pipe.unet, lambda *_: calls.append(None))
        for block in describe(pipe.unet).blocks:
            for port in block.updates:
                hooks.around(port.output.module, lambda *a, block=block.name: note(block, *a))
        generate(pipe, job, Settings(FeatureSettings(enabled=False)), ResultHandlers(*[lambda *_: None] * 3))
    return added


def test_updates_are_what_transformers_add_drawn_dumped_averaged_and_paged(pipe: Any, tmp_path: Path) -> None:
    asked = AttentionSettings(
        kinds=("update",), average="2-norm", dump=DumpSettings(True, "npy", str(tmp_path))
    )
    settings = Settings(FeatureSettings(enabled=False), asked)
    settings = replace(settings, explorer=replace(settings.explorer, enabled=True))
    made = make_pages(pipe, ["a red circle"], settings, SMALL)
    assert made.problems == []

    expected = updates(pipe, "a red circle")
    dumped = {(item.tag.block, item.tag.step): item for item in load_dump(tmp_path) if item.tag}
    assert dumped.keys() == expected.keys()
    assert {block for block, _ in dumped} == {s.name for s in describe(pipe.unet).blocks if s.updates}
    for key, item in dumped.items():
        torch.testing.assert_close(item.tensor, expected[key], rtol=0, atol=1e-4)
    listed = json.loads((tmp_path / "manifest.json").read_text("utf-8"))["files"][0]
    assert (listed["kind"], listed["axes"]) == ("update", list(CHANNELS))

    stems = {picture.stem for picture in made.pictures}
    assert {"000-M00-001-update", "000-M00-001-update-average"} <= stems
    page = read_page(made.pages[0].html).data
    assert {layer["mode"] for layer in page["layers"]} == {"update"}
    assert {"name": "update", "label": "Updates", "isAveraged": True, "isSigned": False} in page["modes"]


def test_updates_in_a_notebook_the_panel_and_the_api(pipe: Any) -> None:
    with trace(pipe, layers="M00", steps="1", attention="update", features=False) as seen:
        pipe("a red circle", num_inference_steps=1, width=64, height=64)
    assert seen.attention("M00", 1, kind="update").shape == (WIDTHS[3], 1, 1)
    assert seen.attention_picture("M00", 1, kind="update").size
    (control,) = (entry for entry in ENTRIES if entry.path == ("attention", "kinds"))
    assert control.choices["update"] == "update"
    asked = from_dict({"attention": {"kinds": ["update"]}})
    assert asked.core.attention.kinds == ("update",)
    assert to_infotext(asked)["Dump U-Net attention kinds"] == "update"


def test_a_kind_of_somebody_else_reaches_every_place(
    pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_spread(out: Out, seen: Seen) -> None:
        out.send(seen.tag("spread"), seen.maps().std(1).unflatten(1, seen.shape))

    row = KindRow("spread", CHANNELS, "deviation over tokens", "attention", "layer", "channels", "spread")
    row = replace(row, choice_label="Spread", choice_help="how unlike tokens are")
    row = replace(row, mode="spread", mode_label="Spread", page_parts="channels", heading="Spread")
    monkeypatch.setitem(KINDS, "spread", row)
    monkeypatch.setitem(CHOICES, "spread", "Spread")
    monkeypatch.setitem(READERS, "spread", Reader("cross", read_spread))

    dump = DumpSettings(True, "safetensors", str(tmp_path))
    settings = Settings(FeatureSettings(enabled=False), AttentionSettings(("spread",), "M00", dump=dump))
    settings = replace(settings, explorer=replace(settings.explorer, enabled=True))
    made = make_pages(pipe, ["a red circle"], settings, SMALL)
    assert made.problems == []
    assert [picture.stem for picture in made.pictures] == ["000-M00-001-spread", "000-M00-002-spread"]
    assert {item.tag.kind for item in load_dump(tmp_path) if item.tag} == {"spread"}
    assert {layer["mode"] for layer in read_page(made.pages[0].html).data["layers"]} == {"spread"}
    assert from_dict({"attention": {"kinds": ["Spread"]}}).attention.kinds == ("spread",)
