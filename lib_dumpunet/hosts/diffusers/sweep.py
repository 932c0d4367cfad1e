"""Try one prompt in each block in turn: which blocks change the image, and how far."""

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
"""Takes an image: the name of the blocks that were steered, "" for the plain one, and the image's number."""


@dataclass(frozen=True)
class Target:
    """What one image is steered at: its name for people, and how the prompt names its blocks."""

    name: str
    blocks: str


@dataclass
class Distances:
    """How far the images of one target are from the plain ones, by image."""

    target: Target
    pixels: list[float] = field(default_factory=list)
    latents: list[float] = field(default_factory=list)

    @property
    def pixel_distance(self) -> float:
        """Mean over the images, in levels of 255."""
        return fmean(self.pixels)

    @property
    def latent_distance(self) -> float:
        """Mean over the images, in the latents' own unit, whose standard deviation is about 1."""
        return fmean(self.latents)


@dataclass
class SweepOutcome:
    """Changes in the order of targets, of those that came out, and what went wrong without stopping the sweep."""

    changes: list[Distances] = field(default_factory=list)
    problems: list[DumpUNetError] = field(default_factory=list)

    def report(self, error: DumpUNetError) -> None:
        """Keep an error; each run may have the same to say."""
        if str(error) not in map(str, self.problems):
            self.problems.append(error)

    def ranked(self) -> list[Distances]:
        """Sort by pixel distance, the largest first."""
        return sorted(self.changes, key=lambda change: change.pixel_distance, reverse=True)


@dataclass(frozen=True)
class Sweep:
    """The job of the images that others are compared to, and that of each target, from the same seeds."""

    plain: Job
    jobs: dict[Target, Job]


def choose_targets(unet: Model, blocks: str, groups: str) -> tuple[Target, ...]:
    """Choose what is steered in turn: each of ``blocks``, then each of ``groups``; with neither, every block with text.

    Groups are joined by commas: ``IN``, ``M``, ``OUT`` or a range of blocks.

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
        raise SettingsError("it names no group", remedy="Write some, such as IN,M,OUT.", field="--groups")
    return tuple({target.blocks: target for target in reversed(targets)}.values())[::-1]


def plan_sweep(pipe: Any, prompt: str, sampling: GenerateSettings, targets: Sequence[Target]) -> Sweep:
    """Read the prompt for each target, and for a block without cross-attention, where it changes nothing.

    So the images that others are compared to are those of the base prompt, or of what ``_`` and other pairs say.

    Raises:
        PromptSyntaxError: for a broken per-block bracket.
        SettingsError: if the block's name would be text for the model to read.
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
                f"{PLACE} stands where it would be read as text",
                remedy=f"Write it in front of a colon, as in (~:{PLACE}: bad anatomy :~).",
                field=template.field,
            )
    return Sweep(plain, jobs)


def _words_of(template: Template) -> tuple[object, ...]:
    """Return all of a prompt but the blocks that it names."""
    return tuple(
        part if isinstance(part, str) else tuple(item.text for item in part.items) for part in template.parts
    )


def _for(unet: Model, like: Job, prompt: str, negative: str, blocks: str) -> Job:
    """Make the job of one target like that of another; not by ``make_job``, which would repeat its warnings."""
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
    """Make the plain images once, then those of each target from the same seeds; each text is encoded once.

    ``outcome`` is filled as images come, so that it has what came before an interrupt. A fault of sampling, or of
    saving after its batch, ends the sweep, and is told in it.
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
    except HostError as error:  # what came before it is worth telling
        outcome.problems.append(error)


def _latent_distance(before: Sample, after: Sample) -> float:
    """Root of the mean square of the differences."""
    difference: Tensor = after.latents.float() - before.latents.float()
    return float(difference.square().mean().sqrt())


def _family(order: BlockOrder, item: str) -> str:
    """Write out IN, M and OUT as ranges."""
    names = [name for name in order if name.rstrip("0123456789") == item]
    return f"{names[0]}-{names[-1]}" if names else item
