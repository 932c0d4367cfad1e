"""Mistakes that can be found without a model: before torch is imported, and minutes before a model is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lib_dumpunet.blocks import SD1, BlockOrder
from lib_dumpunet.errors import SettingsError, Spot
from lib_dumpunet.image.expression import compile_channels
from lib_dumpunet.kinds import KINDS, is_shown
from lib_dumpunet.prompt.layer_prompt import Template, parse_prompt
from lib_dumpunet.prompt.points import parse_points
from lib_dumpunet.prompt.selection import parse_steps, select_blocks
from lib_dumpunet.prompt.webui_syntax import strip_webui_syntax
from lib_dumpunet.settings import GenerateSettings, Settings

PLACE = "{block}"
"""Stands for the block in the prompts of a sweep."""
_RANGE = re.compile(r"\{block\}\s*-|-\s*\{block\}")


@dataclass(frozen=True)
class Prompts:
    """The prompts of a run, and the blocks that they may name."""

    positive: Sequence[str]
    negative: str = ""
    order: BlockOrder = SD1

    def parse(self) -> tuple[Template, ...]:
        """Read all prompts.

        Raises:
            PromptSyntaxError: for a broken per-block bracket.
            SettingsError: if a prompt is not text.
        """
        positive = [read_prompt(text, self.order, "prompt") for text in self.positive]
        return (*positive, read_prompt(self.negative, self.order, "Negative prompt"))


def check_early(settings: Settings, steps: int, prompts: Prompts) -> None:
    """Find the mistakes that need no model.

    Raises:
        SettingsError: for blocks, steps, points or a formula that cannot be read, a difference of prompts without
            per-block text, or a page with nothing to show.
        PromptSyntaxError: for a broken per-block bracket.
    """
    chosen = (
        (settings.features, "Layers", "Image saving steps"),
        (settings.attention, "Attention layers", "Attention steps"),
        (settings.difference, "Difference layers", "Difference steps"),
    )
    for part, layers, own_steps in chosen:
        if part.enabled:
            select_blocks(part.layers, prompts.order, field=layers)
            parse_steps(part.steps, field=own_steps).left(steps)
    parse_points(settings.attention.points)
    compile_channels(settings.features.color)
    templates = prompts.parse()
    if settings.difference.enabled:
        require_brackets(templates)
    require_shown(settings)


def read_prompt(text: str, order: Iterable[str], field: str) -> Template:
    """Read one prompt where no webui reads it first: what only a webui understands is left out.

    Raises:
        SettingsError: if it is no text, as a terminal may give it.
        PromptSyntaxError: for a broken per-block bracket.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise SettingsError("it holds bytes that are no text", remedy="Write it in UTF-8.", field=field)
    template = parse_prompt(text, order, field=field)  # as it was typed, for the places of mistakes
    stripped = strip_webui_syntax(text)
    return parse_prompt(stripped.text, order, field=field) if stripped.found else template


def require_brackets(templates: Iterable[Template]) -> None:
    """Make sure that there is something to compare.

    Raises:
        SettingsError: if no prompt has text per block.
    """
    if not any(template.has_brackets for template in templates):
        raise SettingsError(
            "no prompt has text per block, so there is nothing to compare",
            remedy="Write some, as in a (~: M00: cute :~) girl, or leave the difference out.",
            field="Difference",
        )


def require_shown(settings: Settings) -> None:
    """Make sure that something is captured that an explorer page can show, if there is to be one.

    Raises:
        SettingsError: if not.
    """
    attention = settings.attention
    shown = [row for row in KINDS.values() if row.choice in attention.kinds and is_shown(row)]
    texts = attention.words + attention.negative_words + attention.points
    looks = settings.features.enabled or settings.difference.enabled or shown or texts.strip()
    if settings.explorer.enabled and not looks:
        raise SettingsError(
            "nothing is captured that a page could show",
            remedy="Turn on features, or attention with another choice than K, or leave the page out.",
            field="Write explorer page",
        )


def require_place(prompt: str, sampling: GenerateSettings) -> None:
    """Make sure that a prompt that is used says where the block's name goes.

    Raises:
        SettingsError: if none does.
    """
    if PLACE not in prompt + (sampling.negative if sampling.guidance > 1 else ""):
        unused = PLACE in sampling.negative
        raise SettingsError(
            f"there is no {PLACE}{' but in the negative prompt, which is not used' * unused}, so all images would be "
            "the same",
            remedy=f"Write it where the block's name goes, as in a girl, (~:{PLACE}: bad anatomy :~)."
            + " The negative prompt is used where CFG Scale is above 1." * unused,
            field="prompt",
        )
    for name, text in (("prompt", prompt), ("Negative prompt", sampling.negative)):
        found = _RANGE.search(text)
        if found:
            raise SettingsError(
                f"{PLACE} cannot be an end of a range",
                remedy="Give it alone, and name ranges by --groups.",
                field=name,
                spot=Spot(text, found.start()),
            )
