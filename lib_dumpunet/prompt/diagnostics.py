"""Explain mistakes in per-block brackets."""

from __future__ import annotations

import re
from typing import NamedTuple

from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.prompt.grammar import Grammar, Mismatch, describe_mismatch, one_of
from lib_dumpunet.prompt.selection import Fail
from lib_dumpunet.prompt.template import CLOSE, OPEN, STRONGEST


class _Hint(NamedTuple):
    """An explanation of a mistake; it applies where patterns match the pair's text before the mistake and at it."""

    before: str
    there: str
    problem: str
    remedy: str


_ALONE = "_ must be alone, because it means every block that nothing else in this bracket names"
_TWO_PAIRS = "Write two pairs: IN00: text ; _: text."
_STEPS_SO_FAR = r"@[\s0-9,()+-]*"
# Tried in order.
HINTS = (
    _Hint(r"^\s*_", ",", _ALONE, _TWO_PAIRS),
    _Hint(r",\s*$", "_", _ALONE, _TWO_PAIRS),
    _Hint(
        _STEPS_SO_FAR + "$",
        r"\*",
        "the strength goes before the steps",
        "Write M00*0.5@1-10, for instance.",
    ),
    _Hint("", r"\{block\}", "", "Name a block; {block} is for the command sweep, which tries every block."),
    _Hint(r"@\s*$", "", "", "Expected steps such as 5 or 1-10."),
    _Hint("@[0-9]+$", r"\.[0-9]", "steps are whole numbers", "Write 1-10, for instance."),
    _Hint(_STEPS_SO_FAR + r"-\s*$", "", "", "Expected the last step of the range, such as 1-10."),
    _Hint(_STEPS_SO_FAR + r",\s*$", "", "", "Expected another step, or a block such as IN00."),
    _Hint(r"-\s*$", "", "", "Expected the last block of the range, such as IN00-IN05."),
    _Hint(r"\*\s*$", "-", "a strength cannot be negative", f"Use 0 to {STRONGEST}."),
    _Hint(r"\*[0-9.\s]+$", "[%％]", "a strength is not a percentage", "Write 0.5 for 50%."),
    _Hint(r"\*\s*[0-9]+,$", "[0-9]", "a strength needs a decimal point", "Write 0.5 instead of 0,5."),
    _Hint(
        r"\*[0-9.\s]+$",
        r"-|\(\+",
        "the strength goes after the range",
        "Write IN00-IN08(+2)*0.5, for instance.",
    ),
    _Hint(
        r"(?i)(_|(in|out|m)[0-9]+)\s*$",
        r"\.?[0-9]",
        "a strength needs '*' before it, and steps need '@'",
        "Write M00*0.5 or M00@1-10, for instance.",
    ),
    _Hint(r"[\w.)]\s*$", re.escape(CLOSE), "':' and a text are missing", "Write M00: text, for instance."),
    _Hint(
        r"[\w.)]\s+$",
        r"(?!(in|out|m)\d)[^\W\d_]",
        "':' is missing before the text",
        "Write M00: text, for instance.",
    ),
)
_UNSEEN = r"[\u200b-\u200d\u2060\ufeff]*"
NEARLY_OPEN = re.compile(rf"[(（]{_UNSEEN}[~～〜]{_UNSEEN}[:：](?!{_UNSEEN}[~～〜])")
NEARLY_CLOSE = re.compile(r"[:：]\s*[~～〜]\s*[)）]")


def check_lookalikes(text: str, fail: Fail) -> None:
    """Refuse a misspelled opening of a bracket, because the bracket would be read as plain text.

    Raises:
        PromptSyntaxError: with the position.
    """
    for found in NEARLY_OPEN.finditer(text):
        if found[0] != OPEN:
            raise fail(f"{found[0]!r} does not open a bracket", f"Write {OPEN} instead.", found.start())


def explain(error: Mismatch, text: str, grammar: Grammar, fail: Fail) -> DumpUNetError:
    """Make the error for a prompt that does not match the grammar."""
    position = error.position
    inside = text.rfind(OPEN, 0, position)
    if inside >= 0 and text.startswith(OPEN, position):
        return fail(f"brackets {OPEN} {CLOSE} do not nest", f"Close the first one with {CLOSE}.", position)
    if text.startswith(CLOSE, position) and "'(~:'" in error.expected:
        check_lookalikes(text[:position], fail)
        return fail(f"{CLOSE} closes nothing", f"Open a bracket with {OPEN}, or remove it.", position)
    if position == len(text):
        nearly = NEARLY_CLOSE.search(text, inside)
        if nearly:
            return fail(
                f"{nearly[0]!r} does not close the bracket", f"Write {CLOSE} instead.", nearly.start()
            )
        return fail(
            f"this bracket is not closed; the text ends where {one_of(error.expected)} is expected",
            f"Close it with {CLOSE}.",
            inside,
        )
    problem, remedy = _explain_spec(text, position, grammar)
    return fail(
        problem or describe_mismatch(text, position),
        remedy or f"Expected {one_of(error.expected)}.",
        position,
    )


def _explain_spec(text: str, position: int, grammar: Grammar) -> tuple[str, str]:
    """Find the problem and the remedy of a mistake in a block-spec; empty where only the grammar knows."""
    meant = grammar.meant(text, position)
    if meant:
        return "", meant
    start = max(text.rfind(OPEN, 0, position) + len(OPEN), text.rfind(";", 0, position) + 1)
    before = text[start:position]
    for hint in HINTS:
        if re.search(hint.before, before) and re.match(hint.there, text[position:], re.IGNORECASE):
            return hint.problem, hint.remedy
    return "", ""
