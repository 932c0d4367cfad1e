"""Check fields while the user types, with the core's own parsers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from lib_dumpunet.blocks import BlockOrder, spans
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.image.expression import compile_formula
from lib_dumpunet.kinds import CHOICES
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.points import parse_points
from lib_dumpunet.prompt.selection import parse_steps, select_blocks
from lib_dumpunet.prompt.template import Share
from lib_dumpunet.settings import FORMULAS, AttentionSettings, AttentionSwitch, ColorSettings, PanelSettings
from lib_dumpunet.settings.value import read_value


def problem(read: Callable[[], object]) -> str:
    """Return the error message of a parser; empty if it succeeds."""
    try:
        read()
    except DumpUNetError as error:
        return str(error)
    return ""


def check_layers(text: str, order: BlockOrder, *, field: str) -> str:
    """Check a selection of blocks."""
    return problem(lambda: select_blocks(text, order, field=field))


def check_steps(text: str, *, field: str) -> str:
    """Check the notation of steps; the number of sampling steps is not known yet."""
    return problem(lambda: parse_steps(text, field=field))


def check_points(text: str) -> str:
    """Check the notation of points."""
    return problem(lambda: parse_points(text))


def check_formula(text: str, *, field: str) -> str:
    """Check a colour formula; an empty one means the default."""
    return problem(lambda: compile_formula(text, field)) if text.strip() else ""


def check_clamp(low: float | None, high: float | None) -> str:
    """Check the limits of the linear transform."""
    declared = {f.name: f for f in fields(ColorSettings)}
    given = {"clamp_min": low, "clamp_max": high}
    return problem(
        lambda: ColorSettings(**{name: read_value(declared[name], value) for name, value in given.items()})
    )


def check_attention(on: bool, kinds: Sequence[str], words: str, negative_words: str, points: str) -> str:
    """Check that something is chosen if attention is on."""

    def read() -> PanelSettings:
        chosen = tuple(key_of(CHOICES, kind) for kind in kinds)
        asked = AttentionSettings(kinds=chosen, words=words, negative_words=negative_words, points=points)
        return PanelSettings(switch=AttentionSwitch(on), attention=asked)

    return problem(read)


def texts_of_blocks(prompt: str, order: BlockOrder, step: int) -> Sequence[tuple[str, Sequence[Share]]]:
    """Return what blocks read from a prompt in a step, with blocks that read the same grouped.

    Raises:
        PromptSyntaxError: if a bracket has a syntax error.
    """
    template = parse_prompt(prompt, order, field="Prompt")
    groups: dict[Sequence[Share], list[str]] = {}
    for block in order:
        groups.setdefault(template.shares(block, step), []).append(block)
    return [(spans(tuple(blocks)), shares) for shares, blocks in groups.items()]


def key_of(choices: Mapping[str, str], label: str) -> str:
    """Find the value that is shown as ``label``."""
    return next((value for value, shown in choices.items() if shown == label), label)


def formula_labels(method: str) -> Sequence[tuple[str, str]]:
    """Return the channels of a custom method with their default formulas; empty for other methods."""
    if method not in FORMULAS:
        return ()
    return tuple(zip(method.upper(), FORMULAS[method], strict=True))
