"""Generating with captures: unchanged images, the right rows, no hooks left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lib_dumpunet.errors import PromptSyntaxError, SettingsError
from lib_dumpunet.hosts.diffusers.generate import Outcome, ResultHandlers, generate
from lib_dumpunet.hosts.diffusers.job import Job, make_job
from lib_dumpunet.ports import Picture
from lib_dumpunet.settings import ColorSettings, DumpSettings, FeatureSettings, GenerateSettings, Settings
from lib_dumpunet.sinks.reader import load_dump
from tests.pipelines import sd1_folder
from tests.unets import hook_count

pytestmark = pytest.mark.slow

OFF = Settings(FeatureSettings(enabled=False))
PROMPTS = [
    "a red circle",
    "a large blue square on a black background",
    "a star",
    "a green heart above a pink ring",
]
QUICK = GenerateSettings(steps=3, width=64, height=64, seed=5, guidance=7)


class Results:
    """An outlet that keeps everything."""

    def __init__(self) -> None:
        self.images: dict[int, Image.Image] = {}
        self.pictures: list[Picture] = []
        self.done: list[tuple[int, int]] = []
        self.outlet = ResultHandlers(
            self.images.__setitem__, self.pictures.append, lambda *p: self.done.append(p)
        )


def run(
    pipe: Any, sampling: GenerateSettings, settings: Settings, prompts: list[str] | None = None
) -> Results:
    results = Results()
    outcome = generate(pipe, make_job(pipe, prompts or PROMPTS[:1], sampling), settings, results.outlet)
    assert outcome.problems == []
    return results


def dumping(folder: Path, **features: Any) -> Settings:
    return Settings(FeatureSettings(dump=DumpSettings(True, "npy", str(folder)), **features))


@pytest.mark.parametrize("sampler", ["Heun", "Euler a", "DPM++ SDE"])
@pytest.mark.parametrize("guidance", [1, 7])
@pytest.mark.parametrize("batch", [1, 4])
def test_watching_changes_no_bit(
    tiny: Any, tmp_path: Path, sampler: str, guidance: float, batch: int
) -> None:
    sampling = replace(QUICK, sampler=sampler, guidance=guidance)
    plain = run(tiny, sampling, OFF, PROMPTS[:batch])
    watched = run(tiny, sampling, dumping(tmp_path, average="sum"), PROMPTS[:batch])
    assert len(plain.images) == batch
    for number, image in plain.images.items():
        assert image.tobytes() == watched.images[number].tobytes()
    assert len(watched.pictures) == 2 * 25 * 3 * batch
    assert not plain.pictures


@pytest.mark.parametrize("sampler", ["Heun", "DDIM"])
def test_each_image_of_a_batch_is_captured_as_if_alone(tiny: Any, tmp_path: Path, sampler: str) -> None:
    sampling = replace(QUICK, sampler=sampler, negative="a yellow ring")
    run(tiny, sampling, dumping(tmp_path / "batch", steps="1,3"), PROMPTS)
    together = {item.tag: item.tensor for item in load_dump(tmp_path / "batch")}
    assert len(together) == 4 * 2 * 25
    for image, prompt in enumerate(PROMPTS):
        folder = tmp_path / str(image)
        run(tiny, replace(sampling, seed=5 + image), dumping(folder, steps="1,3"), [prompt])
        for item in load_dump(folder):
            assert item.tag is not None
            other = together[replace(item.tag, image=image)]
            torch.testing.assert_close(other, item.tensor, rtol=2e-3, atol=2e-3)
    # The comparison means something only if the images differ from each other.
    a, b = (t for tag, t in together.items() if tag.block == "OUT11" and tag.step == 3 and tag.image < 2)
    assert (a - b).abs().mean() > 0.05


def test_capture_is_what_the_first_evaluation_of_the_step_put_out(tiny: Any, tmp_path: Path) -> None:
    outputs: list[torch.Tensor] = []
    handle = (
        tiny.unet.up_blocks[-1]
        .attentions[-1]
        .register_forward_hook(lambda _m, _a, o: outputs.append(o[0][1]))
    )
    try:
        run(tiny, replace(QUICK, sampler="Heun"), dumping(tmp_path, layers="OUT11"))
    finally:
        handle.remove()
    assert len(outputs) == 5
    for item, output in zip(load_dump(tmp_path), outputs[::2], strict=True):
        assert torch.equal(item.tensor, output)


def test_batches_go_on_counting_images_and_seeds(tiny: Any, tmp_path: Path) -> None:
    sampling = replace(QUICK, batch=2, count=2)
    results = run(tiny, sampling, dumping(tmp_path, layers="M00", steps="3"))
    assert sorted(results.images) == [0, 1, 2, 3]
    assert [p.tag.image for p in sorted(results.pictures, key=lambda p: p.tag)] == [0, 1, 2, 3]
    third = run(tiny, replace(QUICK, seed=7), OFF)
    difference = np.abs(np.asarray(third.images[0], float) - np.asarray(results.images[2], float))
    assert difference.max() <= 2
    assert results.done[-1] == (6, 6)


def test_pipeline_is_left_as_it_was(tiny: Any, tmp_path: Path) -> None:
    scheduler, config = tiny.scheduler, dict(tiny.scheduler.config)
    run(tiny, replace(QUICK, sampler="LMS"), dumping(tmp_path))
    assert tiny.scheduler is scheduler
    assert dict(tiny.scheduler.config) == config
    assert hook_count(tiny.unet) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_was_captured_survives_an_error(tiny: Any, tmp_path: Path, error: type[BaseException]) -> None:
    results = Results()

    def fail(done: int, _: int) -> None:
        if done == 2:
            raise error("out of luck")

    job = make_job(tiny, PROMPTS[:1], QUICK)
    outlet = replace(results.outlet, progress=fail)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            generate(tiny, job, dumping(tmp_path, layers="M00"), outlet)
    else:
        outcome = generate(tiny, job, dumping(tmp_path, layers="M00"), outlet)
        assert "sampling failed (ValueError: out of luck)" in str(outcome.problems[0])
    assert [item.tag.step for item in load_dump(tmp_path) if item.tag] == [1, 2]
    assert hook_count(tiny.unet) == 0
    assert tiny.scheduler.__class__.__name__ == "DDIMScheduler"


def test_a_failing_picture_costs_no_image(tiny: Any) -> None:
    results = Results()

    def fail(_: Picture) -> None:
        raise OSError(28, "No space left on device")

    outcome = generate(
        tiny, make_job(tiny, PROMPTS[:1], QUICK), Settings(), replace(results.outlet, picture=fail)
    )
    assert outcome.images == 1
    assert len(outcome.problems) == 1
    assert "No space left" in str(outcome.problems[0])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"layers": "IN12"}, "no block IN12"),
        ({"steps": "0"}, "no step 0"),
        ({"steps": "9"}, "no step is left"),
        ({"color": ColorSettings(formula=("v.real", "1", "1"))}, "Color space"),
        ({"dump": DumpSettings(True, "npy", "/dev/null/x")}, "Output path"),
    ],
)
def test_mistakes_stop_before_sampling(tiny: Any, features: dict[str, Any], message: str) -> None:
    results = Results()
    with pytest.raises(SettingsError, match=message):
        generate(
            tiny, make_job(tiny, PROMPTS[:1], QUICK), Settings(FeatureSettings(**features)), results.outlet
        )
    assert not results.done
    assert hook_count(tiny.unet) == 0


def test_wrong_prompts_are_refused(tiny: Any) -> None:
    with pytest.raises(PromptSyntaxError, match="not closed"):
        make_job(tiny, ["a (~: IN00: b"], QUICK)
    with pytest.raises(SettingsError, match="prompt: no prompt"):
        make_job(tiny, [], QUICK)


def test_out_of_memory_is_told_in_a_sentence(tiny: Any) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    handle = tiny.unet.register_forward_pre_hook(fail)
    try:
        outcome = generate(tiny, make_job(tiny, PROMPTS[:1], QUICK), OFF, Results().outlet)
    finally:
        handle.remove()
    assert "ran out of memory" in str(outcome.problems[0])
    assert outcome.images == 0


def test_parameters_are_written_as_the_webui_writes_them(tiny: Any) -> None:
    job: Job = make_job(tiny, ["a star"], replace(QUICK, negative="ring", sampler="Euler a"))
    assert job.parameters(0) == (
        "a star\nNegative prompt: ring\nSteps: 3, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64, "
        f"Model: {sd1_folder().parent.name}/sd1"
    )
    own: Job = make_job(tiny, ["a star"], replace(QUICK, sampler=""))
    assert "Sampler: DDIM, " in own.parameters(0)
    assert Outcome().images == 0
