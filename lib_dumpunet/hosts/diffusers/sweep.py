"""Try a text in each block in turn, and measure how much each changes the image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

from PIL import Image
from torch import Tensor

from lib_dumpunet.blocks import BlockOrder
from lib_dumpunet.errors import DumpUNetError, HostError, SettingsError
from lib_dumpunet.hooks.steer import steer
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock
from lib_dumpunet.hosts.diffusers.job import Job, make_job
from lib_dumpunet.hosts.diffusers.sampling import Progress, Sample, Sampler, SamplingCallbacks, give_all
from lib_dumpunet.image.compare import pixel_distance
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.prompt.reading import PLACE, read_prompt
from lib_dumpunet.prompt.template import Template
from lib_dumpunet.resolve import attention_blocks
from lib_dumpunet.settings import GenerateSettings

log = logging.getLogger("dumpunet")

Keep = Callable[[str, int, Image.Image], None]
"""Receives an image, with the name of the steered blocks ("" for the plain image) and the image's number."""


@dataclass(frozen=True)
class Target:
    """The blocks to steer for one image: a display name, and how the prompt names them."""

    name: str
    blocks: str


@dataclass
class Distances:
    """Distances of one target's images from the plain ones, by image."""

    target: Target
    pixels: list[float] = field(default_factory=list)
    latents: list[float] = field(default_factory=list)

    @property
    def pixel_distance(self) -> float:
        """Mean over the images, on a scale of 0 to 255."""
        return fmean(self.pixels)

    @property
    def latent_distance(self) -> float:
        """Mean over the images, in the unit of latents, whose standard deviation is about 1."""
        return fmean(self.latents)


@dataclass
class SweepOutcome:
    """The changes of finished targets, in order, and errors."""

    changes: list[Distances] = field(default_factory=list)
    problems: list[DumpUNetError] = field(default_factory=list)

    def report(self, error: DumpUNetError) -> None:
        """Record an error once; each run may report it again."""
        if str(error) not in map(str, self.problems):
            self.problems.append(error)

    def ranked(self) -> list[Distances]:
        """Return the changes sorted by pixel distance, largest first."""
        return sorted(self.changes, key=lambda change: change.pixel_distance, reverse=True)


@dataclass(frozen=True)
class Sweep:
    """The job of the plain images, and a job for each target, all with the same seeds."""

    plain: Job
    jobs: dict[Target, Job]


def choose_targets(unet: Model, blocks: str, groups: str) -> tuple[Target, ...]:
    """Return the targets: each of ``blocks``, then each of ``groups``; with neither, every block with cross-attention.

    Groups are separated by commas: ``IN``, ``M``, ``OUT`` or a range of blocks.

    Raises:
        SettingsError: for an unknown block, or a group without cross-attention.
    """
    targets: list[Target] = []
    if blocks.strip() or not groups.strip():
        kept, notes = attention_blocks(unet.facts, blocks, field="--blocks")
        for note in notes:
            log.warning("%s", note)
        targets += [Target(name, name) for name in kept]
    for item in filter(None, ("".join(part.split()).upper() for part in groups.split(","))):
        span = _family(unet.order, item)
        attention_blocks(unet.facts, span, field="--groups")
        targets.append(Target(item, span))
    if not targets:
        raise SettingsError("it names no group", remedy="Write groups such as IN,M,OUT.", field="--groups")
    return tuple({target.blocks: target for target in reversed(targets)}.values())[::-1]


def plan_sweep(pipe: Any, prompt: str, sampling: GenerateSettings, targets: Sequence[Target]) -> Sweep:
    """Parse the prompt for each target, and for the plain images with a block without cross-attention.

    So the plain images are those of the base prompt, or of ``_`` and other pairs.

    Raises:
        PromptSyntaxError: for a broken per-block bracket.
        SettingsError: if the placeholder is in the text that the model reads.
    """
    unet = describe(pipe.unet)
    first = targets[0].blocks
    job = make_job(
        pipe,
        [prompt.replace(PLACE, first)],
        replace(sampling, negative=sampling.negative.replace(PLACE, first)),
    )
    idle = next(block.name for block in unet.blocks if not block.layers)
    jobs = {target: _for(unet, job, prompt, sampling.negative, target.blocks) for target in targets}
    plain = _for(unet, job, prompt, sampling.negative, idle)
    for template, other in zip(
        plain.plan.cond + plain.plan.uncond, job.plan.cond + job.plan.uncond, strict=True
    ):
        if _words_of(template) != _words_of(other):
            raise SettingsError(
                f"{PLACE} would be read as text",
                remedy=f"Write it before a colon, as in (~:{PLACE}: bad anatomy :~).",
                field=template.field,
            )
    return Sweep(plain, jobs)


def _words_of(template: Template) -> tuple[object, ...]:
    """Return the parts of a prompt without the blocks that they name."""
    return tuple(
        part if isinstance(part, str) else tuple(item.text for item in part.items) for part in template.parts
    )


def _for(unet: Model, like: Job, prompt: str, negative: str, blocks: str) -> Job:
    """Make the job of a target from another job; ``make_job`` would repeat its warnings."""
    text, negative = (source.replace(PLACE, blocks) for source in (prompt, negative))
    cond = (read_prompt(text, unet.order, "prompt"),) * len(like.prompts)
    uncond = (read_prompt(negative, unet.order, "Negative prompt"),) if like.plan.uncond else ()
    return replace(
        like,
        prompts=(text,) * len(like.prompts),
        plan=replace(like.plan, cond=cond, uncond=uncond),
        sampling=replace(like.sampling, negative=negative),
    )


def run_sweep(pipe: Any, sweep: Sweep, outcome: SweepOutcome, keep: Keep, progress: Progress) -> None:
    """Sample the plain images once, then those of each target from the same seeds; each text is encoded once.

    ``outcome`` is filled as images are finished, so it is valid even after an interrupt. An error in sampling, or in
    saving (after its batch), ends the sweep and is added to ``outcome``.
    """
    clock = SchedulerClock(pipe)
    unet = describe(pipe.unet)
    changes = {target: Distances(target) for target in sweep.jobs}
    sampler = Sampler(pipe, sweep.plain, clock, SamplingCallbacks(progress), runs=1 + len(changes))

    def sample(job: Job, images: range) -> list[Sample]:
        conditioning = sampler.condition(job.plan)
        with steer(unet, conditioning.steering, clock, outcome.report):
            return sampler.sample(conditioning, images)

    try:
        with sampler:
            for images in sweep.plain.batches:
                originals = sample(sweep.plain, images)
                faults = give_all(partial(keep, ""), images, originals)
                for target, job in sweep.jobs.items():
                    if faults:
                        outcome.problems += faults
                        return
                    samples = sample(job, images)
                    faults = give_all(partial(keep, target.name), images, samples)
                    change = changes[target]
                    for before, after in zip(originals, samples, strict=True):
                        change.pixels.append(pixel_distance(before.image, after.image))
                        change.latents.append(_latent_distance(before, after))
                    if change not in outcome.changes:
                        outcome.changes.append(change)
                outcome.problems += faults
                if faults:
                    return
    except HostError as error:  # keep the results so far
        outcome.problems.append(error)


def _latent_distance(before: Sample, after: Sample) -> float:
    """Return the root mean square difference of the latents."""
    difference: Tensor = after.latents.float() - before.latents.float()
    return float(difference.square().mean().sqrt())


def _family(order: BlockOrder, item: str) -> str:
    """Expand IN, M and OUT to ranges."""
    names = [name for name in order if name.rstrip("0123456789") == item]
    return f"{names[0]}-{names[-1]}" if names else item
