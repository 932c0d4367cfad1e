"""Sample batches of a job with a diffusers pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock
from lib_dumpunet.hosts.diffusers.conditioning import Conditioning, Encodings, condition
from lib_dumpunet.hosts.diffusers.job import Job
from lib_dumpunet.hosts.diffusers.preview import Guess, Previews, Show, decode
from lib_dumpunet.hosts.diffusers.samplers import scheduler_for
from lib_dumpunet.models.describe import describe
from lib_dumpunet.prompt.plan import PromptPlan

log = logging.getLogger("dumpunet")

Progress = Callable[[int, int], None]


class Sample(NamedTuple):
    """An image, and the latents "c h w" that it was decoded from, on the CPU."""

    image: Image.Image
    latents: Tensor


@dataclass(frozen=True)
class SamplingCallbacks:
    """Callbacks during sampling: progress of each step, previews, and whether to stop."""

    progress: Progress
    preview: Show | None = None
    stopped: Callable[[], bool] | None = None


class _Stopped(Exception):
    """Ends sampling within a step when the user stops it."""


class Sampler:
    """Samples the images of a job, each batch ``runs`` times; leaving the ``with`` restores the pipeline.

    Each distinct text is encoded once for all runs. ``was_stopped`` says whether a callback stopped sampling, and
    ``fault`` why there is no unfinished image in that case.
    """

    def __init__(
        self, pipe: Any, job: Job, clock: SchedulerClock, callbacks: SamplingCallbacks, *, runs: int = 1
    ) -> None:
        self._pipe, self._job, self._clock, self._callbacks = pipe, job, clock, callbacks
        self._previews = None if callbacks.preview is None else Previews(pipe, callbacks.preview)
        self._guess = Guess(pipe)
        self.was_stopped = False
        self.fault: HostError | None = None
        self._encodings = Encodings(pipe)
        self._total = job.sampling.steps * len(job.batches) * runs
        self._done = 0
        self._hooks = HookSet()
        self._own_scheduler = pipe.scheduler

    def __enter__(self) -> Sampler:
        self._hooks.before(self._pipe.unet, self._see_call)
        if self._previews is not None or self._callbacks.stopped is not None:
            self._hooks.before(self._pipe.unet, self._guess.see_call)
            self._hooks.after(self._pipe.unet, self._guess.see_output)
        if self._callbacks.stopped is not None:
            # A step may take long on a CPU, so stop between any two blocks.
            for block in describe(self._pipe.unet).blocks:
                self._hooks.before(block.input.module, lambda *_: self._check_stop())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.remove()
        self._pipe.scheduler = self._own_scheduler

    def _see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a U-Net call; if it cannot be attributed but texts are per block, stop: no image beats a wrong one."""
        self._clock.see_call(args, kwargs)
        if self._clock.trouble is not None and self._job.plan.has_brackets:
            raise self._clock.trouble

    def _check_stop(self) -> None:
        if self._callbacks.stopped is not None and self._callbacks.stopped():
            raise _Stopped

    def condition(self, plan: PromptPlan) -> Conditioning:
        """Encode the texts that blocks read; all batches of a job have the same prompts.

        Raises:
            HostError: if the text encoder fails.
        """
        try:
            return condition(self._encodings, plan, self._job.batches[0])
        except DumpUNetError:
            raise
        except Exception as error:
            log.debug("encoding failed", exc_info=True)
            raise failure("the prompts could not be encoded", "Try a shorter prompt.", error) from error

    def sample(self, conditioning: Conditioning, images: range) -> list[Sample]:
        """Sample the batch with these image numbers. If stopped, its images are unfinished, or there are none if the
        first step had not ended.

        Raises:
            HostError: if the pipeline fails.
        """
        s = self._job.sampling
        seeds = [self._job.seeds[i] for i in images]
        self._pipe.scheduler = scheduler_for(s.sampler, self._own_scheduler, seeds)
        self._clock.begin(images.start)
        last: list[Tensor] = []

        def step_ended(_: Any, index: int, __: Any, values: dict[str, Any]) -> dict[str, Any]:
            last[:] = [values["latents"]]
            step = min(index // self._pipe.scheduler.order + 1, s.steps)
            self._callbacks.progress(min(self._done + step, self._total), self._total)
            if self._previews is not None and step < s.steps:
                self._previews.offer(self._guess)
            return values

        try:
            result = self._pipe(
                **conditioning.arguments,
                num_inference_steps=s.steps,
                guidance_scale=s.guidance,
                width=self._job.width,
                height=self._job.height,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                callback_on_step_end=step_ended,
            )
        except _Stopped:
            self.was_stopped = True
            return self._unfinished(last)
        except DumpUNetError:
            raise
        except Exception as error:
            log.debug("sampling failed", exc_info=True)
            raise failure("sampling failed", "Try another sampler or fewer steps.", error) from error
        self._done += s.steps
        return [Sample(*pair) for pair in zip(result.images, last[0].cpu(), strict=True)]

    def _unfinished(self, last: Sequence[Tensor]) -> list[Sample]:
        """Decode the U-Net's prediction of the clean images, if a step has ended."""
        if not last:
            return []
        try:
            clean = self._guess.clean()
            assert clean is not None
            return [Sample(*pair) for pair in zip(decode(self._pipe, clean), clean.cpu(), strict=True)]
        except Exception as error:
            log.debug("decoding an unfinished image failed", exc_info=True)
            self.fault = failure("the unfinished image could not be decoded", "Try a smaller size.", error)
            return []


def give_all(
    give: Callable[[int, Image.Image], None], images: range, samples: Sequence[Sample]
) -> list[HostError]:
    """Pass all images of a batch on, even if saving one fails; return the errors."""
    faults = []
    for number, sample in zip(images, samples, strict=False):  # a stopped batch may have none
        try:
            give(number, sample.image)
        except HostError as error:
            faults.append(error)
    return faults


def failure(what: str, remedy: str, error: Exception) -> HostError:
    """Return the error for a failed pipeline; each device words running out of memory differently."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if isinstance(error, MemoryError) or "memory" in reason.lower():
        return HostError(
            f"the device ran out of memory ({reason})", remedy="Use a smaller size or batch, or fp16."
        )
    return HostError(f"{what} ({reason})", remedy=remedy)
