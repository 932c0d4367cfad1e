"""Sweeps: a text in each block in turn."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from lib_dumpunet.errors import HostError, SettingsError
from lib_dumpunet.hosts.diffusers.generate import ResultHandlers, generate
from lib_dumpunet.hosts.diffusers.job import make_job
from lib_dumpunet.hosts.diffusers.sweep import (
    SweepOutcome,
    Target,
    choose_targets,
    plan_sweep,
    run_sweep,
)
from lib_dumpunet.image.compare import pixel_distance
from lib_dumpunet.models.describe import describe
from lib_dumpunet.prompt.reading import require_place
from lib_dumpunet.settings import FeatureSettings, GenerateSettings, Settings
from tests.pipelines import encoded_by
from tests.unets import hook_count

pytestmark = pytest.mark.slow

QUICK = GenerateSettings(steps=2, width=64, height=64, seed=5, guidance=4)
COLOURS = "a (~:{block}: blue ; _: red :~) circle"
Images = dict[tuple[str, int], Image.Image]


def sweep(
    pipe: Any, prompt: str, blocks: str = "M00,OUT10", groups: str = "", **sampling: Any
) -> tuple[Images, SweepOutcome]:
    images: Images = {}
    outcome, before = SweepOutcome(), hook_count(pipe.unet)
    done: list[tuple[int, int]] = []
    targets = choose_targets(describe(pipe.unet), blocks, groups)
    planned = plan_sweep(pipe, prompt, replace(QUICK, **sampling), targets)

    def keep(name: str, number: int, image: Image.Image) -> None:
        images[name, number] = image

    run_sweep(pipe, planned, outcome, keep, lambda *p: done.append(p))
    assert done[-1][0] == done[-1][1]
    assert hook_count(pipe.unet) == before
    return images, outcome


def image_of(pipe: Any, prompt: str, **sampling: Any) -> bytes:
    images: list[Image.Image] = []
    off = Settings(FeatureSettings(enabled=False))
    job = make_job(pipe, [prompt], replace(QUICK, **sampling))
    outlet = ResultHandlers(lambda _, image: images.append(image), lambda _: None, lambda *_: None)
    assert generate(pipe, job, off, outlet).problems == []
    return images[0].tobytes()


@pytest.mark.parametrize("name", ["tiny", "xl"])
def test_each_image_is_that_of_its_prompt(request: pytest.FixtureRequest, name: str) -> None:
    pipe = request.getfixturevalue(name)
    images, outcome = sweep(pipe, COLOURS, "M00,OUT05", "OUT", negative="x(~:{block}: y :~)")
    assert outcome.problems == []
    assert [change.target.name for change in outcome.changes] == ["M00", "OUT05", "OUT"]
    last = describe(pipe.unet).order.names[-1]
    specs = {"M00": "M00", "OUT05": "OUT05", "OUT": f"OUT00-{last}"}
    for target, spec in specs.items():
        expected = image_of(pipe, COLOURS.replace("{block}", spec), negative=f"x(~:{spec}: y :~)")
        assert images[target, 0].tobytes() == expected
    # Others are compared to what `_` says, not to the prompt without its bracket.
    assert images["", 0].tobytes() == image_of(pipe, "a  red  circle", negative="x")
    ranked = outcome.ranked()
    assert {change.target.name for change in ranked} == set(specs)
    assert [c.pixel_distance for c in ranked] == sorted((c.pixel_distance for c in ranked), reverse=True)
    for change in ranked:
        assert change.pixels == [pixel_distance(images["", 0], images[change.target.name, 0])]
        assert 0 < change.latent_distance < 10


def test_latents_are_compared_as_they_leave_the_sampler(tiny: Any) -> None:
    latents: list[torch.Tensor] = []
    original = tiny.vae.decode
    tiny.vae.decode = lambda z, *a, **k: (latents.append(z.clone()), original(z, *a, **k))[1]
    try:
        _, outcome = sweep(tiny, COLOURS, "OUT10")
    finally:
        del tiny.vae.decode
    before, after = (z * tiny.vae.config.scaling_factor for z in latents)
    expected = float((after - before).square().mean().sqrt())
    assert math.isclose(outcome.changes[0].latent_distance, expected, rel_tol=1e-4)


def test_several_seeds_are_averaged_and_the_plain_images_are_made_once(tiny: Any) -> None:
    calls: list[int] = []
    handle = tiny.unet.register_forward_pre_hook(lambda _m, args, **_: calls.append(len(args[0])))
    try:
        images, outcome = sweep(tiny, COLOURS, batch=2, count=2)
    finally:
        handle.remove()
    assert len(images) == 3 * 4
    assert calls == [4] * (3 * 2 * QUICK.steps)
    assert all(len(change.pixels) == len(change.latents) == 4 for change in outcome.changes)
    assert len({image.tobytes() for (name, _), image in images.items() if not name}) == 4
    alone, _ = sweep(tiny, COLOURS, seed=QUICK.seed + 3)
    assert pixel_distance(alone["OUT10", 0], images["OUT10", 3]) < 1


def test_encoding_is_shared(tiny: Any) -> None:
    with encoded_by(tiny) as encoded:
        sweep(tiny, "a (~:{block}: blue :~) circle", "", negative="ugly")
    # With blue, without, the negative prompt, and nothing, to fill up with: for 17 images.
    assert sorted(Counter(encoded).values()) == [1, 1, 1, 1]


def test_a_fault_leaves_what_came_before(tiny: Any) -> None:
    targets = choose_targets(describe(tiny.unet), "M00,OUT08,OUT10", "")
    outcome = SweepOutcome()
    kept: list[str] = []

    def progress(done: int, _: int) -> None:
        if done == 3 * QUICK.steps:
            raise ValueError("out of luck")

    run_sweep(
        tiny, plan_sweep(tiny, COLOURS, QUICK, targets), outcome, lambda name, *_: kept.append(name), progress
    )
    assert kept == ["", "M00"]
    assert [change.target.name for change in outcome.changes] == ["M00"]
    assert "out of luck" in str(outcome.problems[0])
    assert hook_count(tiny.unet) == 0


def test_an_image_that_cannot_be_saved_ends_it_after_its_batch(tiny: Any) -> None:
    targets = choose_targets(describe(tiny.unet), "M00,OUT08", "")
    outcome = SweepOutcome()
    kept: list[tuple[str, int]] = []

    def keep(name: str, number: int, _: Image.Image) -> None:
        if (name, number) == ("M00", 0):
            raise HostError("the disk is full")
        kept.append((name, number))

    planned = plan_sweep(tiny, COLOURS, replace(QUICK, batch=2), targets)
    run_sweep(tiny, planned, outcome, keep, lambda *_: None)
    assert kept == [("", 0), ("", 1), ("M00", 1)]
    assert [str(problem) for problem in outcome.problems] == ["the disk is full."]


def test_steps_past_the_end_are_warned_of_once(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    targets = choose_targets(describe(tiny.unet), "", "")
    planned = plan_sweep(tiny, "a (~:{block}@1-9: x :~)", QUICK, targets)
    assert len(caplog.records) == 1
    assert len(planned.jobs) == 16


@pytest.mark.parametrize(
    ("blocks", "groups", "expected"),
    [
        ("M00", "", [("M00", "M00")]),
        ("IN00-IN04(+2)", "", [("IN02", "IN02"), ("IN04", "IN04")]),
        ("", "in, m,OUT", [("IN", "IN00-IN11"), ("M", "M00-M00"), ("OUT", "OUT00-OUT11")]),
        ("", "out06-OUT08, OUT06-OUT08,", [("OUT06-OUT08", "OUT06-OUT08")]),
        ("", "IN, IN00 - IN11", [("IN", "IN00-IN11")]),
        ("M00", "IN01-IN05(+2)", [("M00", "M00"), ("IN01-IN05(+2)", "IN01-IN05(+2)")]),
    ],
)
def test_targets(tiny: Any, blocks: str, groups: str, expected: list[tuple[str, str]]) -> None:
    assert choose_targets(describe(tiny.unet), blocks, groups) == tuple(Target(*pair) for pair in expected)


def test_without_choice_every_block_with_text(tiny: Any, xl: Any) -> None:
    assert len(choose_targets(describe(tiny.unet), "", " ")) == 16
    assert [t.name for t in choose_targets(describe(xl.unet), "", "")][:3] == ["IN04", "IN05", "IN07"]


@pytest.mark.parametrize(
    ("blocks", "groups", "message"),
    [
        ("IN12", "", "--blocks: the model has no block IN12"),
        ("IN00", "", "--blocks: IN00: no attention layer"),
        ("", "IN09-IN11", "--groups: IN09-IN11: no attention layer"),
        ("", "UP", "--groups: 'UP'"),
        ("", "IN00-", "--groups: the text ends too early"),
        ("", ",", "--groups: it names no group"),
        ("", "OUT1", "--groups: the model has no block OUT1. Did you mean OUT01"),
        ("", "IN0", "--groups: the model has no block IN0. Did you mean IN00"),
    ],
)
def test_wrong_targets(tiny: Any, blocks: str, groups: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        choose_targets(describe(tiny.unet), blocks, groups)


@pytest.mark.parametrize(("negative", "guidance"), [("", 4), ("a (~:{block}: b :~)", 1)])
def test_the_place_of_the_block_must_be_used(negative: str, guidance: float) -> None:
    sampling = replace(QUICK, negative=negative, guidance=guidance)
    with pytest.raises(SettingsError, match="all images would be the same"):
        require_place("a circle", sampling)
    require_place("a (~:{block}:x:~)", sampling)


@pytest.mark.parametrize("prompt", ["a (~:{block}-OUT11: x :~)", "a (~:IN00 - {block}: x :~)"])
def test_a_block_is_no_end_of_a_range(prompt: str) -> None:
    for text, negative in ((prompt, ""), ("a (~:{block}: x :~)", prompt)):
        with pytest.raises(SettingsError, match="cannot be an end of a range"):
            require_place(text, replace(QUICK, negative=negative))


@pytest.mark.parametrize("prompt", ["a {block} circle", "a (~:M00: {block} :~)", "(~:{block}: x :~) {block}"])
def test_a_block_that_would_be_read_as_text(tiny: Any, prompt: str) -> None:
    with pytest.raises(SettingsError, match="would be read as text"):
        plan_sweep(tiny, prompt, QUICK, [Target("M00", "M00")])
