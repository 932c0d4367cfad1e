"""Previews, and stopping, without changing any other image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lib_dumpunet.hosts.diffusers import preview, sampling
from lib_dumpunet.hosts.diffusers.generate import Outcome, ResultHandlers, generate
from lib_dumpunet.hosts.diffusers.job import make_job
from lib_dumpunet.hosts.diffusers.preview import Guess, Previews, decode
from lib_dumpunet.ports import Picture
from lib_dumpunet.settings import (
    AttentionSettings,
    DifferenceSettings,
    FeatureSettings,
    GenerateSettings,
    Settings,
)
from lib_dumpunet.sinks.reader import load_dump
from tests.hosts.test_generate import OFF, QUICK, dumping
from tests.unets import hook_count

PROMPT = "a red circle"


class Seen:
    """A run's results; ``stop_at`` gets each block before it runs, and returns whether to stop."""

    def __init__(self, stopped: Callable[[], bool] | None = None) -> None:
        self.images: dict[int, Image.Image] = {}
        self.plain: dict[int, Image.Image] = {}
        self.pictures: list[Picture] = []
        self.previews: list[Image.Image] = []
        self.done: list[int] = []
        self.outlet = ResultHandlers(
            image=self.images.__setitem__,
            picture=self.pictures.append,
            progress=lambda done, total: self.done.append(done),
            plain=self.plain.__setitem__,
            preview=self.previews.append,
            stopped=stopped,
        )


def run(
    pipe: Any,
    seen: Seen,
    settings: Settings = OFF,
    sampling: GenerateSettings = QUICK,
    prompt: str = PROMPT,
) -> Outcome:
    return generate(pipe, make_job(pipe, [prompt], sampling), settings, seen.outlet)


def after(calls: int) -> Callable[[], bool]:
    """Stop once this many blocks have been requested."""
    left = iter(range(calls))
    return lambda: next(left, None) is None


@pytest.mark.parametrize("sampler", ["", "Heun", "Euler a", "LCM", "DPM++ SDE"])
def test_looking_on_changes_no_bit(tiny: Any, monkeypatch: pytest.MonkeyPatch, sampler: str) -> None:
    monkeypatch.setattr(preview, "SHARE", 1e9)
    sampling = replace(QUICK, sampler=sampler)
    alone, watched = Seen(), Seen(stopped=lambda: False)
    alone.outlet = replace(alone.outlet, preview=None)
    run(tiny, alone, sampling=sampling)
    assert not run(tiny, watched, sampling=sampling).was_stopped
    assert watched.images[0].tobytes() == alone.images[0].tobytes()
    assert watched.previews
    assert hook_count(tiny.unet) == 0


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_guess_is_what_was_mixed_with_noise(kind: str) -> None:
    """A perfect prediction gives a perfect preview, for every prediction type, also with guidance."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(2))
    kept = torch.linspace(0.99, 0.01, 1000)

    class Pipe:
        do_classifier_free_guidance = True
        guidance_scale = 7.0

        class scheduler:
            alphas_cumprod = kept

            class config:
                prediction_type = kind

    a = torch.lerp(kept[500], kept[501], 0.25)
    given = a.sqrt() * clean + (1 - a).sqrt() * noise
    answers = {"epsilon": noise, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean, "sample": clean}
    wanted = answers[kind]
    # The answer without the prompt is off by x; with guidance that is taken back.
    without = wanted + 1
    prompted = without + (wanted - without) / 7
    guess = Guess(Pipe)
    assert guess.clean() is None
    guess.see_call((torch.cat([given, given]), torch.tensor(500.25)), {})
    guess.see_output(torch.cat([without, prompted]))
    found = guess.clean()
    assert found is not None
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=1e-3)


def test_previews_come_nearer_to_the_image(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "SHARE", 1e9)
    seen = Seen()
    run(tiny, seen, sampling=replace(QUICK, steps=10, guidance=4))
    last = np.asarray(seen.images[0], float)
    away = [np.abs(np.asarray(image, float) - last).mean() for image in seen.previews]
    assert len(away) == 9
    assert away[-1] < 0.3 * away[0]
    assert away[-1] < 10


def test_previews_take_a_fifth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    spent = []

    def slow(*_: Any) -> list[Image.Image]:
        nonlocal now
        now += 3.0
        spent.append(3.0)
        return [Image.new("RGB", (8, 8))]

    class Known(Guess):
        def clean(self) -> torch.Tensor:
            return torch.zeros(1, 4, 8, 8)

    monkeypatch.setattr(preview.time, "monotonic", lambda: now)
    monkeypatch.setattr(preview, "decode", slow)
    shown: list[Image.Image] = []
    previews = Previews(None, shown.append)
    for _ in range(100):
        now += 1.0
        previews.offer(Known(None))
    assert shown
    assert 0.1 < sum(spent) / now <= 0.2


def test_an_image_is_decoded_as_by_the_pipeline(tiny: Any, xl: Any) -> None:
    for pipe in (tiny, xl):
        images = pipe(
            PROMPT, num_inference_steps=2, width=64, height=64, generator=torch.Generator().manual_seed(0)
        ).images
        latents = pipe(
            PROMPT,
            num_inference_steps=2,
            width=64,
            height=64,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).images
        assert decode(pipe, latents)[0].tobytes() == images[0].tobytes()


def test_an_autoencoder_that_overflows_is_lent_more_bits(xl: Any) -> None:
    seen = []
    vae = xl.vae
    before = vae.dtype
    handle = vae.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    try:
        vae.to(torch.float16)
        assert vae.config.force_upcast
        decode(xl, torch.zeros(1, 4, 8, 8, dtype=torch.float16))
        assert seen == [torch.float32]
        assert vae.dtype == torch.float16
    finally:
        handle.remove()
        vae.to(before)


def test_a_run_ends_within_a_step_and_gives_what_it_has(tiny: Any, tmp_path: Path) -> None:
    blocks: list[str] = []
    handle = tiny.unet.mid_block.register_forward_pre_hook(lambda *_: blocks.append("M00"))
    seen = Seen(after(25 * 2 + 5))  # in block 5 of the third step
    try:
        outcome = run(tiny, seen, dumping(tmp_path), replace(QUICK, steps=10))
    finally:
        handle.remove()
    assert outcome.was_stopped
    assert outcome.problems == []
    assert outcome.images == 1
    assert len(blocks) == 2  # the third call did not come as far
    assert seen.done == [1, 2]
    assert seen.images[0].size == (64, 64)
    # Of the third step there is what the blocks before the stop have put out.
    assert len(seen.pictures) == 25 * 2 + 5
    assert len(list(load_dump(tmp_path))) == 25 * 2 + 5
    assert hook_count(tiny.unet) == 0
    again, whole = Seen(), Seen()
    run(tiny, again)
    run(tiny, whole)
    assert again.images[0].tobytes() == whole.images[0].tobytes()


def test_a_run_that_is_stopped_at_once_has_no_image(tiny: Any) -> None:
    seen = Seen(lambda: True)
    outcome = run(tiny, seen, Settings(FeatureSettings()))
    assert outcome.was_stopped
    assert (outcome.images, seen.images, seen.pictures) == (0, {}, [])


def test_finished_batches_are_kept(tiny: Any) -> None:
    seen = Seen(after(25 * 3 + 40))
    settings = Settings(FeatureSettings(layers="M00"), AttentionSettings(kinds=("words",)))
    outcome = run(tiny, seen, settings, replace(QUICK, batch=2, count=3))
    assert outcome.was_stopped
    assert sorted(seen.images) == [0, 1, 2, 3]
    words = {p.tag.image for p in seen.pictures if p.tag.kind == "word" and p.title == ""}
    assert words == {0, 1, 2, 3}


@pytest.mark.parametrize(("calls", "plain", "steered"), [(30, 1, 0), (25 * 3 + 30, 1, 1)])
def test_either_run_of_a_difference_can_be_stopped(tiny: Any, calls: int, plain: int, steered: int) -> None:
    seen = Seen(after(calls))
    settings = Settings(FeatureSettings(enabled=False), difference=DifferenceSettings(enabled=True))
    outcome = run(tiny, seen, settings, prompt="a (~: M00: red :~) circle")
    assert outcome.was_stopped
    assert outcome.problems == []
    assert (len(seen.plain), len(seen.images)) == (plain, steered)
    assert hook_count(tiny.unet) == 0


def out_of_memory(*_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_preview_that_fails_costs_no_image_and_says_why(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, seen = Seen(), Seen()
    plain.outlet = replace(plain.outlet, preview=None)
    run(tiny, plain)
    monkeypatch.setattr(preview, "decode", out_of_memory)
    outcome = run(tiny, seen)
    assert (outcome.images, outcome.problems, seen.previews) == (1, [], [])
    assert caplog.text.count("live previews are not available (OutOfMemoryError: CUDA out of memory)") == 1
    assert seen.images[0].tobytes() == plain.images[0].tobytes()


def test_an_unfinished_image_that_fails_costs_no_picture(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "decode", out_of_memory)
    seen = Seen(after(25 * 2 + 5))
    outcome = run(tiny, seen, Settings(FeatureSettings(layers="M00")))
    assert outcome.was_stopped
    assert [str(problem) for problem in outcome.problems] == [
        "the device ran out of memory (OutOfMemoryError: CUDA out of memory). Use a smaller size or batch, or fp16."
    ]
    assert seen.images == {}
    assert len(seen.pictures) == 2
