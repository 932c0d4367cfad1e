"""A job: parsed prompts, seeds and sizes, checked for every mistake that can be found without encoding."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_dumpunet.assemble import model_name
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.hosts.diffusers.samplers import sampler_name
from lib_dumpunet.hosts.diffusers.text import tokenize
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.prompt.plan import PromptPlan, plan_prompts
from lib_dumpunet.prompt.reading import read_prompt, warn_of_webui_syntax
from lib_dumpunet.prompt.texts import Texts
from lib_dumpunet.resolve import Prompts, resolve
from lib_dumpunet.settings import GenerateSettings, Settings
from lib_dumpunet.tiny import MODEL

log = logging.getLogger("dumpunet")

BUNDLED = "bundled model"


IMAGE_EXTRA = 64 << 10
"""The most bytes of an image's parameters and its format's overhead."""


@dataclass(frozen=True)
class Job:
    """All images of one request: ``prompts`` and ``seeds`` by image, in batches of ``per_batch``.

    ``plan`` says what each block reads from the prompts, ``plain_negative`` is the negative prompt without brackets,
    and ``sampler`` and ``model`` are names for display.
    """

    prompts: tuple[str, ...]
    plan: PromptPlan
    seeds: tuple[int, ...]
    per_batch: int
    width: int
    height: int
    sampling: GenerateSettings
    plain_negative: str
    sampler: str
    model: str

    @property
    def batches(self) -> list[range]:
        """The images of each call of the pipeline."""
        total = len(self.prompts)
        return [range(first, first + self.per_batch) for first in range(0, total, self.per_batch)]

    @property
    def room(self) -> int:
        """The most bytes that the images of one batch take on disk, including plain images for a difference."""
        return 2 * self.per_batch * (3 * self.width * self.height + IMAGE_EXTRA)

    def parameters(self, image: int) -> str:
        """Return an image's generation parameters in the webui's format."""
        return self._describe(image, self.prompts[image], self.sampling.negative)

    def plain_parameters(self, image: int) -> str:
        """Return the generation parameters of an image without per-block prompts."""
        return self._describe(image, self.plan.cond[image].erased, self.plain_negative)

    def _describe(self, image: int, prompt: str, negative: str) -> str:
        s = self.sampling
        lines = [prompt]
        if negative:
            lines.append(f"Negative prompt: {negative}")
        lines.append(
            f"Steps: {s.steps}, Sampler: {self.sampler}, CFG scale: {s.guidance:g}, Seed: {self.seeds[image]}, "
            f"Size: {self.width}x{self.height}, Model: {self.model}"
        )
        return "\n".join(lines)


def make_job(pipe: Any, prompts: Sequence[str], sampling: GenerateSettings) -> Job:
    """Make a job from settings: choose size and seeds, assign prompts to images, and plan what blocks read.

    Raises:
        SettingsError: if no prompt is given, or one is not text.
        PromptSyntaxError: for a broken per-block bracket.
    """
    if not prompts:
        raise SettingsError("no prompt is given", remedy="Write what the image should show.", field="prompt")
    # Parsed even if unused, to report mistakes in it.
    template = read_prompt(sampling.negative, describe(pipe.unet).order, "Negative prompt")
    negative = sampling.negative if sampling.guidance > 1 else None
    if negative is None and template.has_brackets:
        log.warning("Negative prompt: it is not used, because CFG Scale is 1")
    own = int(pipe.unet.config.sample_size) * 8
    seed = secrets.randbelow(2**32) if sampling.seed < 0 else sampling.seed
    in_batch = [prompt for prompt in prompts for _ in range(sampling.batch)]
    total = len(in_batch) * sampling.count
    return Job(
        prompts=tuple(in_batch * sampling.count),
        plan=read_prompts(describe(pipe.unet), in_batch * sampling.count, negative, sampling.steps),
        seeds=tuple(range(seed, seed + total)),
        per_batch=len(in_batch),
        width=sampling.width or own,
        height=sampling.height or own,
        sampling=sampling,
        plain_negative=template.erased,
        sampler=sampling.sampler or sampler_name(pipe.scheduler),
        model=_model_of(pipe),
    )


def _model_of(pipe: Any) -> str:
    """Return a model's display name, from its file or folder."""
    path = str(pipe.config.get("_name_or_path") or "")
    if not path:
        return type(pipe).__name__
    return BUNDLED if Path(path) == MODEL else model_name(path)


def read_prompts(unet: Model, prompts: Sequence[str], negative: str | None, steps: int) -> PromptPlan:
    """Parse the prompts, one for each image, and the negative prompt (None if unused), and plan what blocks read.

    Raises:
        SettingsError: if a prompt is not text.
        PromptSyntaxError: for a broken per-block bracket.
    """
    known = {prompt: read_prompt(prompt, unet.order, "prompt") for prompt in dict.fromkeys(prompts)}
    warn_of_webui_syntax([*known, negative or ""])
    attending = unet.attending
    uncond = [] if negative is None else [read_prompt(negative, unet.order, "Negative prompt")]
    return plan_prompts([known[prompt] for prompt in prompts], uncond, attending, steps)


def texts_of(pipe: Any, plan: PromptPlan) -> Texts:
    """Tokenize the texts that blocks read, without encoding them."""
    read = (*plan.texts("cond"), *plan.texts("uncond"))
    return Texts(plan, {text: tokenize(pipe, text) for text in read}, tokenize(pipe, ""))


def check(pipe: Any, job: Job, settings: Settings) -> None:
    """Find all mistakes before sampling; prompts are tokenized if attention is captured.

    Raises:
        SettingsError: for the first mistake.
    """
    texts = texts_of(pipe, job.plan) if settings.attention.enabled else None
    templates = (*job.plan.cond, *job.plan.uncond)
    prompts = Prompts(templates, job.sampling.steps, (job.width, job.height), texts)
    resolve(settings, describe(pipe.unet).facts, prompts)
