"""Check that a colour formula is arithmetic, by its tokens, their order and brackets.

``explorer/page/syntax.js`` does the same in explorer pages.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from typing import NoReturn

from lib_dumpunet.errors import FormulaError, SourcePosition
from lib_dumpunet.image.grammar import (
    CHARACTER_REMEDIES,
    EXAMPLE,
    MAX_BRACKETS,
    MAX_LENGTH,
    MOST_QUOTED,
    TERNARY,
    WANTS_OPERAND,
    WORD_REMEDIES,
)

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)|(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<operator>\*\*|//|[<>=!]=|[-+*/%<>(),])"
)


def check_text(text: str) -> None:
    """Check a formula's length, tokens, their order and brackets.

    Raises:
        FormulaError: with the position of the first mistake.
    """
    if len(text) > MAX_LENGTH:
        problem = f"the formula has {len(text)} characters"
        refuse(text[:MAX_LENGTH], MAX_LENGTH, problem, f"Use at most {MAX_LENGTH}.")
    if not text.strip():
        refuse(text, 0, "the formula is empty", EXAMPLE)
    nesting = _Nesting(text)
    before = ""
    for token in _tokens(text):
        _check_order(text, before, token)
        nesting.take(token)
        before = token.group()
    nesting.finish()
    if before in WANTS_OPERAND:
        refuse(text, len(text), "the formula ends too early", EXAMPLE)


def _tokens(text: str) -> Iterator[re.Match[str]]:
    """Split into numbers, names and operators; refuse other characters and Python's keywords."""
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            remedy = CHARACTER_REMEDIES.get(text[position], EXAMPLE)
            refuse(text, position, f"{text[position]!r} has no meaning in a formula", remedy)
        if keyword.iskeyword(token.group()) and token.group() not in TERNARY:
            remedy = WORD_REMEDIES.get(token.group(), EXAMPLE)
            refuse(text, position, f"{token.group()} has no meaning in a formula", remedy)
        if token.lastgroup != "space":
            yield token
        position = token.end()


def _check_order(text: str, before: str, token: re.Match[str]) -> None:
    """Refuse a token that cannot follow ``before``; the positions of ``ast.parse`` differ between Python versions."""
    this, position = token.group(), token.start()
    if before in WANTS_OPERAND:
        # Allow sin() and clip(v, 0, 1,): the compiler counts arguments.
        allowed = ("(", ")", "+", "-") if before in ("(", ",") else ("(", "+", "-")
        if _is_operator(token) and this not in allowed:
            refuse(text, position, f"a value is missing before {this}", EXAMPLE)
    elif not _is_operator(token):
        refuse(text, position, f"an operator is missing before {this[:MOST_QUOTED]}", "Write 2*v for 2v.")


def _is_operator(token: re.Match[str]) -> bool:
    return token.lastgroup == "operator" or token.group() in TERNARY


class _Nesting:
    """Matches brackets and, inside each pair, every ``if`` with its ``else``."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._open: list[int] = []  # positions of open brackets
        self._conditions: list[int | None] = [None]  # by level: position of an `if` without its `else` so far

    def take(self, token: re.Match[str]) -> None:
        """Take the next token, and refuse one without its partner."""
        this, position = token.group(), token.start()
        if this == "(":
            self._open.append(position)
            self._conditions.append(None)
            if len(self._open) > MAX_BRACKETS:
                remedy = f"Use at most {MAX_BRACKETS} levels."
                refuse(self._text, position, "brackets are nested too deeply", remedy)
        elif this == "if":
            if self._conditions[-1] is not None:
                remedy = "Put the inner condition in brackets."
                refuse(self._text, position, "a condition is nested in another", remedy)
            self._conditions[-1] = position
        elif this == "else":
            if self._conditions[-1] is None:
                refuse(self._text, position, "else has no if before it", "Write a if condition else b.")
            self._conditions[-1] = None
        elif this in (")", ","):
            self._require_else()
            if this == ")":
                if not self._open:
                    refuse(self._text, position, "this bracket was never opened", "Remove it.")
                self._open.pop()
                self._conditions.pop()

    def finish(self) -> None:
        """Refuse a bracket or condition that is still open."""
        if self._open:
            refuse(self._text, self._open[-1], "this bracket is not closed", "Add a closing bracket.")
        self._require_else()

    def _require_else(self) -> None:
        start = self._conditions[-1]
        if start is not None:
            refuse(self._text, start, "this if has no else", "Write a if condition else b.")


def refuse(text: str, position: int, problem: str, remedy: str) -> NoReturn:
    """Refuse a formula, pointing at a position of it.

    Raises:
        FormulaError: always.
    """
    raise FormulaError(problem, remedy=remedy, source=SourcePosition(text, position))
