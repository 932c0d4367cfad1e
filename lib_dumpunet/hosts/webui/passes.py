"""The passes of a job (a hires fix has two): what their blocks read, and the generation they describe."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from lib_dumpunet.assemble import Generation
from lib_dumpunet.hosts.webui.blocks import block_table
from lib_dumpunet.hosts.webui.clock import DenoiserClock
from lib_dumpunet.hosts.webui.lists import LISTS
from lib_dumpunet.hosts.webui.reading import BRANCHES, Reading, prompts_of
from lib_dumpunet.models.model import Model
from lib_dumpunet.prompt.template import OPEN
from lib_dumpunet.sinks.request import DumpRequest

PREFIXES = {False: "", True: "hr_"}
"""Prefixes of the attributes with a job's prompts, by pass."""
NAMES = dict(zip(("prompts", "negative_prompts"), BRANCHES, strict=True))
"""The attributes with a batch's prompts, and their branches."""


class Passes:
    """What the blocks read in each pass of a job.

    Raises:
        PromptSyntaxError: for a broken per-block bracket.
    """

    def __init__(self, p: Any, model: Model, clock: DenoiserClock, *, brackets: bool) -> None:
        hires = prompts_of(p, hires=True) if getattr(p, "enable_hr", False) else None
        self.first = Reading(p, prompts_of(p, hires=False), model, clock, brackets=brackets)
        self.hires = None if hires is None else Reading(p, hires, model, clock, brackets=brackets)
        self._model = model

    @property
    def steer(self) -> bool:
        """Whether any prompt has brackets."""
        return any(reading.steering is not None for reading in self._readings.values())

    def generation(self, p: Any, *, tokens: bool, table: bool) -> Generation:
        """Describe what is generated, with the tokens of texts if ``tokens``, and the block table if ``table``."""
        rows = block_table(self._model, p.width, p.height) if table else []
        request = DumpRequest(
            prompts=tuple(p.all_prompts),
            negative_prompts=tuple(p.all_negative_prompts),
            seeds=tuple(p.all_seeds),
            sampler=str(p.sampler_name),
            steps=max(reading.steps for reading in self._readings.values()),
            model=str(getattr(p, "sd_model_name", None) or ""),
            guidance=getattr(p, "cfg_scale", None),
            blocks={row.block: asdict(row) for row in rows},
        )
        texts, steering = self.first.texts(tokens=tokens), self.first.steering
        hires = None if self.hires is None else (self.hires.texts(tokens=tokens), self.hires.steering)
        return Generation(request, p.width, p.height, texts, steering, hires)

    def without_brackets(self, generation: Generation, *, tokens: bool) -> Generation:
        """Return the same generation without per-block prompts."""
        hires = None if self.hires is None else (self.hires.plain_texts(tokens=tokens), None)
        return replace(generation, texts=self.first.plain_texts(tokens=tokens), steering=None, hires=hires)

    def give_mains(self, p: Any, images: range, *, plain: bool) -> bool:
        """Replace a batch's prompts with the main texts, for the webui to encode; return whether any has brackets."""
        found = False
        for hires, reading in self._readings.items():
            for name, branch in NAMES.items():
                # Prompts without brackets stay unchanged, because another extension may have written them.
                if any(OPEN in text for text in getattr(p, PREFIXES[hires] + name)):
                    found = True
                    setattr(p, PREFIXES[hires] + name, reading.mains(images, branch, plain=plain))
        return found

    def show_base_prompts(self, p: Any) -> None:
        """Replace prompts with base prompts, so that images without per-block prompts have the right parameters."""
        for name in LISTS:
            if getattr(p, name, None):
                setattr(p, name, [self.first.base(text) for text in getattr(p, name)])

    @property
    def _readings(self) -> dict[bool, Reading]:
        """The reading of the first pass (False) and the hires pass (True)."""
        return {False: self.first} if self.hires is None else {False: self.first, True: self.hires}
