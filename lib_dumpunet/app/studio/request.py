"""What a page requests, and checks of it that need no model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lib_dumpunet.app.studio.models import Choice
from lib_dumpunet.blocks import ModelFacts
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.hosts.diffusers.find import ANY_BLOCKS
from lib_dumpunet.prompt.reading import read_templates
from lib_dumpunet.prompt.template import OPEN
from lib_dumpunet.resolve import Prompts, resolve
from lib_dumpunet.settings import GenerateSettings, PanelSettings, Settings

MOST_CHARACTERS = 10_000
"""Limit of a prompt's length."""


@dataclass(frozen=True)
class Request:
    """What a page requests."""

    choice: Choice
    prompt: str
    sampling: GenerateSettings
    panel: PanelSettings

    @property
    def settings(self) -> Settings:
        """Settings for the core; attention takes blocks and steps from the features unless it has its own."""
        core = self.panel.core
        if not core.features.enabled:
            return core
        own = {name: getattr(core.attention, name) for name in ("layers", "steps")}
        like = {name: getattr(core.features, name) for name, text in own.items() if not text.strip()}
        return replace(core, attention=replace(core.attention, **like))

    def check(self) -> None:
        """Check what can be checked without the model.

        Raises:
            SettingsError: for the first mistake.
        """
        if not self.prompt.strip():
            raise SettingsError(
                "the prompt is empty", remedy="Write what the image should show.", field="Prompt"
            )
        for field, text in (("Prompt", self.prompt), ("Negative prompt", self.sampling.negative)):
            if len(text) > MOST_CHARACTERS:
                raise SettingsError(
                    f"it has {len(text)} characters", remedy=f"Use at most {MOST_CHARACTERS}.", field=field
                )
        for field, text in (("Prompt", self.prompt), ("Negative prompt", self.sampling.negative)):
            if OPEN in text and not self.panel.layer_prompt.enabled:
                raise SettingsError(
                    f"it contains {OPEN}, but Enable Layer Prompt is off",
                    remedy="Turn it on in the tab Layer Prompt, or remove the bracket.",
                    field=field,
                )
        templates = read_templates([self.prompt], self.sampling.negative, ANY_BLOCKS)
        resolve(self.settings, ModelFacts(ANY_BLOCKS), Prompts(templates, self.sampling.steps))
