"""Parse prompts outside the webui, and check the placeholder of a sweep."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

from lib_dumpunet.blocks import BlockOrder
from lib_dumpunet.errors import SettingsError, SourcePosition
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.template import Template
from lib_dumpunet.prompt.webui_syntax import strip_webui_syntax
from lib_dumpunet.settings import GenerateSettings

log = logging.getLogger("dumpunet")

PLACE = "{block}"
"""Stands for the block in the prompts of a sweep."""
_RANGE = re.compile(r"\{block\}\s*-|-\s*\{block\}")


def read_templates(positive: Sequence[str], negative: str, order: BlockOrder) -> tuple[Template, ...]:
    """Parse all prompts, the negative prompt last.

    Raises:
        PromptSyntaxError: for a broken per-block bracket.
        SettingsError: if a prompt is not text.
    """
    templates = [read_prompt(text, order, "prompt") for text in positive]
    return (*templates, read_prompt(negative, order, "Negative prompt"))


def read_prompt(text: str, order: Iterable[str], field: str) -> Template:
    """Parse one prompt, leaving out syntax that only the webui understands.

    Raises:
        SettingsError: if it contains bytes that are not text, which a terminal can pass.
        PromptSyntaxError: for a broken per-block bracket.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise SettingsError("it contains bytes that are not text", remedy="Write it in UTF-8.", field=field)
    template = parse_prompt(text, order, field=field)  # as typed, so that errors have the right position
    stripped = strip_webui_syntax(text)
    return parse_prompt(stripped.text, order, field=field) if stripped.found else template


def require_place(prompt: str, sampling: GenerateSettings) -> None:
    """Check that a prompt in use has the placeholder for the block's name.

    Raises:
        SettingsError: if none has it, or it is an end of a range.
    """
    if PLACE not in prompt + (sampling.negative if sampling.guidance > 1 else ""):
        unused = PLACE in sampling.negative
        raise SettingsError(
            f"there is no {PLACE}{' except in the negative prompt, which is not used' * unused}, so all images would "
            "be the same",
            remedy=f"Write it in place of the block's name, as in a girl, (~:{PLACE}: bad anatomy :~)."
            + " The negative prompt is used only if CFG Scale is above 1." * unused,
            field="prompt",
        )
    for name, text in (("prompt", prompt), ("Negative prompt", sampling.negative)):
        found = _RANGE.search(text)
        if found:
            raise SettingsError(
                f"{PLACE} cannot be an end of a range",
                remedy="Use it alone, and give ranges to --groups.",
                field=name,
                source=SourcePosition(text, found.start()),
            )


def warn_of_webui_syntax(texts: Iterable[str]) -> None:
    """Log a warning for each piece that was left out of prompts because only the webui reads it."""
    found = (piece for text in texts for piece in strip_webui_syntax(text).found)
    for piece in dict.fromkeys(found):
        log.warning("%s is left out of the prompt: only the webui reads it", piece)
