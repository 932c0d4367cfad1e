"""The clock finds step and rows with every sampler, from the scheduler alone."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock
from lib_dumpunet.hosts.diffusers.samplers import SCHEDULERS, scheduler_for
from lib_dumpunet.ports import ModelCall
from lib_dumpunet.settings import SAMPLERS

SIZE = {"width": 64, "height": 64, "output_type": "latent"}
TWICE_A_STEP = {"Heun", "DPM++ SDE"}


def moments(pipe: Any, scheduler: Any, *calls: dict[str, Any], unet: Any = None) -> list[ModelCall]:
    """Run a pipeline and record the clock at each U-Net call."""
    own, pipe.scheduler = pipe.scheduler, scheduler
    clock = SchedulerClock(pipe)
    seen: list[ModelCall] = []
    try:
        with HookSet() as hooks:
            hooks.before(pipe.unet, clock.see_call)
            hooks.before(pipe.unet, lambda *_: seen.append(clock.now()))
            for call in calls:
                pipe(**{**SIZE, "prompt": "a red circle", **call})
    finally:
        pipe.scheduler = own
    return seen


def owners(model_call: ModelCall) -> tuple[tuple[int, str], ...]:
    """The image and branch of each row of a call; prompts have no parts here."""
    assert not any(row.part for row in model_call.rows)
    return tuple((row.image, row.branch) for row in model_call.rows)


def test_samplers_of_the_settings_are_those_of_the_host() -> None:
    assert list(SCHEDULERS) == list(SAMPLERS)


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_steps_are_the_samplers_own(tiny: Any, sampler: str) -> None:
    seen = moments(
        tiny, scheduler_for(sampler, tiny.scheduler, [1]), {"num_inference_steps": 5, "guidance_scale": 3}
    )
    expected = [1, 1, 2, 2, 3, 3, 4, 4, 5] if sampler in TWICE_A_STEP else [1, 2, 3, 4, 5]
    assert [m.step for m in seen] == expected
    assert all(owners(m) == ((0, "uncond"), (0, "cond")) for m in seen)


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_img2img_counts_the_steps_that_are_really_run(tiny: Any, sampler: str) -> None:
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**tiny.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    call = {
        "image": torch.zeros(1, 3, 64, 64),
        "strength": 0.5,
        "num_inference_steps": 10,
        "guidance_scale": 1,
    }
    call |= {"width": None, "height": None}
    seen = moments(pipe, scheduler_for(sampler, tiny.scheduler, [1]), call)
    assert sorted({m.step for m in seen}) == [1, 2, 3, 4, 5]
    assert [m.step for m in seen] == sorted(m.step for m in seen)


def test_pndm_evaluates_its_first_step_twice(tiny: Any) -> None:
    scheduler = diffusers.PNDMScheduler.from_config(tiny.scheduler.config, skip_prk_steps=True)
    seen = moments(tiny, scheduler, {"num_inference_steps": 4, "guidance_scale": 1})
    assert [m.step for m in seen] == [1, 1, 2, 3, 4]


@pytest.mark.parametrize("sampler", ["DDIM", "Euler", "LCM"])
def test_images_are_counted_over_calls_and_steps_begin_again(tiny: Any, sampler: str) -> None:
    scheduler = scheduler_for(sampler, tiny.scheduler, [1, 2])
    calls = [{"num_inference_steps": 1, "guidance_scale": 3, "num_images_per_prompt": 2}] * 2
    seen = moments(tiny, scheduler, *calls, {"num_inference_steps": 2, "guidance_scale": 1})
    images = [sorted({row.image for row in m.rows}) for m in seen]
    assert images == [[0, 1], [2, 3], [4], [4]]
    assert [m.step for m in seen] == [1, 1, 1, 2]
    assert owners(seen[0]) == ((0, "uncond"), (1, "uncond"), (0, "cond"), (1, "cond"))


def test_no_negative_rows_at_guidance_1(tiny: Any) -> None:
    seen = moments(
        tiny, tiny.scheduler, {"num_inference_steps": 2, "guidance_scale": 1, "prompt": ["a", "b"]}
    )
    assert all(owners(m) == ((0, "cond"), (1, "cond")) for m in seen)
