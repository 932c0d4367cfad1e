"""A first and a hires pass through the whole core, with a clock set by hand: the two are never mixed up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from lib_dumpunet.assemble import Generation
from lib_dumpunet.captures import Tag
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.ports import Picture
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.plan import plan_prompts
from lib_dumpunet.prompt.texts import Texts
from lib_dumpunet.prompt.words import Token
from lib_dumpunet.resolve import resolve
from lib_dumpunet.session import open_session
from lib_dumpunet.settings import (
    AttentionSettings,
    DifferenceSettings,
    DumpSettings,
    FeatureSettings,
    Settings,
)
from lib_dumpunet.sinks.reader import load_dump
from lib_dumpunet.sinks.request import DumpRequest
from tests.unets import FakeClock, diffusers_unet, unet_inputs

PROMPT = "red circle(~: M00: and star :~)"
BLOCKS = ("M00", "OUT11")
STEPS = (1, 2)
SIDES = {False: 16, True: 24}
"""Of the latents, first pass and hires pass."""
ROWS = [(0, "uncond"), (1, "uncond"), (0, "cond"), (1, "cond")]
COLUMNS = 7


@dataclass
class Host:
    """A clock set by hand, and the pictures."""

    clock: FakeClock = field(default_factory=lambda: FakeClock(1, ROWS))
    pictures: list[Picture] = field(default_factory=list)

    def show(self, picture: Picture) -> None:
        self.pictures.append(picture)


@dataclass(frozen=True)
class Made:
    """A job's results, and the blocks' outputs without and with per-block prompts, by the tags of features."""

    format: str
    folder: Path
    pictures: list[Picture]
    plain: Mapping[Tag, Tensor]
    steered: Mapping[Tag, Tensor]


@pytest.fixture(scope="module")
def unet() -> Model:
    return describe(diffusers_unet("sd1"))


@pytest.fixture(scope="module", params=["bin", "npy", "safetensors"])
def made(unet: Model, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder, host = tmp_path_factory.mktemp("dump"), Host()
    dump = DumpSettings(True, request.param, str(folder))
    settings = Settings(
        FeatureSettings(layers="M00,OUT11", average="2-norm", dump=dump),
        AttentionSettings(("qk", "words"), layers="M00", words="star", dump=dump),
        DifferenceSettings(True, layers="M00,OUT11", dump=dump),
    )
    plain: dict[Tag, Tensor] = {}
    steered: dict[Tag, Tensor] = {}
    made = generation(unet)
    plan = resolve(settings, unet.facts, made.prompts)
    with open_session(unet, plan, host, made) as session:
        with session.plain_run():
            for hires in SIDES:
                plain |= sample(unet, host.clock, hires, strength=1.0)
        for hires in SIDES:
            with session.run(hires=hires):
                steered |= sample(unet, host.clock, hires, strength=2.0)
        for image in (0, 1):
            session.finish(image, Image.new("RGB", (64, 64)))
    assert session.problems == []
    return Made(request.param, folder, host.pictures, plain, steered)


def generation(unet: Model) -> Generation:
    attending = unet.attending
    plan = plan_prompts([parse_prompt(PROMPT, unet.order)], [], attending, len(STEPS))
    texts = Texts(plan, {text: tokens(text) for text in plan.texts("cond")})
    return Generation(DumpRequest(prompts=[PROMPT], steps=len(STEPS)), 64, 64, texts)


def tokens(text: str) -> tuple[Token, ...]:
    words = tuple(Token(word.encode(), ends_word=True) for word in text.split())
    padding = COLUMNS - 1 - len(words)
    return (Token(mark="start"), *words, *(Token(mark="end" if i == 0 else "pad") for i in range(padding)))


def sample(unet: Model, clock: FakeClock, hires: bool, strength: float) -> dict[Tag, Tensor]:
    """Run the steps of a pass, and return the blocks' outputs for the prompt, recorded by other hooks."""
    latents, time, text = unet_inputs(len(ROWS), SIDES[hires], SIDES[hires])
    seen: dict[Tag, Tensor] = {}

    def keep(block: str, output: Tensor) -> None:
        seen.update({Tag(i, clock.step, block, hires=hires): row.clone() for i, row in enumerate(output[2:])})

    with HookSet() as hooks, torch.no_grad():
        for block in BLOCKS:
            hooks.after(unet.block(block).output.module, partial(keep, block))
        clock.hires = hires
        for clock.step in STEPS:
            unet.module(latents * clock.step, time, text * strength)
    return seen


def of_kind(made: Made, kind: str) -> list[Picture]:
    return [picture for picture in made.pictures if picture.tag.kind == kind]


def test_what_the_blocks_put_out_comes_back_from_the_dump_by_pass(made: Made) -> None:
    back = {item.tag: item.tensor for item in load_dump(made.folder) if item.tag is not None}
    assert len(made.steered) == len(SIDES) * len(STEPS) * len(BLOCKS) * 2
    for tag, tensor in made.steered.items():
        assert torch.equal(back.pop(tag), tensor)
        assert torch.equal(back.pop(replace(tag, kind="difference")), tensor - made.plain[tag])
    maps = {tag: tuple(tensor.shape[1:]) for tag, tensor in back.items() if tag.kind == "qk"}
    assert maps == {
        Tag(image, step, "M00", "qk", hires=hires): (COLUMNS, side // 8, side // 8)
        for hires, side in SIDES.items()
        for step in STEPS
        for image in (0, 1)
    }
    words = {tag: tuple(tensor.shape) for tag, tensor in back.items() if tag.kind == "word"}
    assert words == {Tag(image, 0, "", "word", 0, "star"): (3, 3) for image in (0, 1)}
    assert len(back) == len(maps) + len(words)


def test_the_manifest_marks_the_hires_pass_alone(made: Made) -> None:
    entries = json.loads((made.folder / "manifest.json").read_bytes())["files"]
    steps = [entry for entry in entries if entry["block"]]
    assert all(entry.get("hires") == (True if "-hr00" in entry["file"] else None) for entry in entries)
    assert sum("hires" in entry for entry in steps) == len(steps) // 2 == 20
    assert not any("hires" in entry for entry in entries if not entry["block"])


def test_files_of_the_hires_pass_are_marked(made: Made) -> None:
    names = {path.name for path in made.folder.iterdir()}
    if made.format == "safetensors":
        wanted = {
            f"{i:03}-{mark}00{step}.safetensors" for i in (0, 1) for mark in ("", "hr") for step in STEPS
        }
        wanted |= {f"{i:03}-000.safetensors" for i in (0, 1)}
        assert {name for name in names if name.endswith(".safetensors")} == wanted
        return
    (run,) = json.loads((made.folder / "manifest.json").read_bytes())["runs"]
    ending = ".npy" if made.format == "npy" else f"-0000-{run['started']}.bin"
    for mark in ("", "hr"):
        for rest in (f"M00-{mark}001", f"OUT11-{mark}002-difference", f"M00-{mark}002-qk"):
            assert {f"000-{rest}{ending}", f"001-{rest}{ending}"} <= names


@pytest.mark.parametrize("kind", ["feature", "difference", "qk"])
def test_pictures_have_names_and_captions_of_their_pass(made: Made, kind: str) -> None:
    pictures = of_kind(made, kind)
    assert len({picture.stem for picture in pictures}) == len(pictures)
    assert {picture.tag.hires for picture in pictures} == {False, True}
    for picture in pictures:
        mark = "hr" if picture.tag.hires else ""
        assert f"-{mark}00{picture.tag.step}-" in picture.stem
        assert picture.info["Feature Steps"] == f"{mark}{picture.tag.step}"


def test_pictures_show_the_maps_of_their_pass(made: Made) -> None:
    grids = [p for p in of_kind(made, "feature") if p.title == "unet-average" and p.tag.block == "OUT11"]
    assert len(grids) == 8
    assert all(picture.image.width == SIDES[picture.tag.hires] for picture in grids)


def test_a_word_is_one_over_both_passes(made: Made) -> None:
    stems = sorted(picture.stem for picture in of_kind(made, "word"))
    assert stems == [f"{i:03}-word-star{layer}" for i in (0, 1) for layer in ("", "-layer")]
