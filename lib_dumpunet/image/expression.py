"""Colour formulas: arithmetic on ``v`` that a user types, read safely and evaluated on whole arrays.

A formula passes three gates, each of which knows only what it lets through:

1. ``syntax.py``: length, tokens, brackets. No quote, no dot but a number's, no bracket but ``()``, no word of
   Python's and no letter outside ASCII passes: names cannot be disguised, and a column is a character.
2. ``ast.parse``, which reads and runs nothing.
3. ``compiler.py``: a list of allowed nodes and names, and bounds on size and depth.

What comes out is a list of instructions for a stack machine. Nothing of Python is reachable from it but the
functions of ``functions.py``, and all values are float32, so no number can grow: ``9**9**9`` is infinity.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from lib_dumpunet.errors import FormulaError, SourcePosition, within
from lib_dumpunet.image.compiler import Instruction, compile_text
from lib_dumpunet.image.grammar import CHANNELS
from lib_dumpunet.settings import ColorSettings

# NumPy's own names, as formulas of the original extension have them.
_PREFIX = re.compile(r"(?<![A-Za-z_0-9.])(?:np|numpy)\.(?=[A-Za-z_])")


@dataclass(frozen=True)
class Formula:
    """A colour formula, ready to be evaluated; made by ``compile_formula``."""

    text: str
    program: tuple[Instruction, ...] = dataclasses.field(repr=False, compare=False)

    def __call__(self, v: Any) -> Any:
        """Evaluate on every element of ``v``, in float32 and without warnings; a comparison gives 0 or 1.

        Returns:
            a float32 array of the shape of ``v``; a scalar where ``v`` is one or the formula lacks it.
        """
        v = np.asarray(v, dtype=np.float32)
        stack: list[Any] = []
        with np.errstate(all="ignore"):
            for step in self.program:
                if step.apply is None:
                    stack.append(v)
                    continue
                start = len(stack) - step.count
                # NumPy 1 and 2 promote scalars differently, and comparisons are boolean, so force float32.
                stack[start:] = [np.asarray(step.apply(*stack[start:])).astype(np.float32, copy=False)]
        return stack.pop()[()]


def compile_formula(text: str, field: str = "") -> Formula:
    """Read a formula of ``v``.

    Args:
        text: what the user typed.
        field: where it was typed, for the message.

    Raises:
        FormulaError: with the place of what is not arithmetic on ``v``.
    """
    try:
        return _compile(text)
    except FormulaError as error:
        raise error.in_field(field) from None


def compile_channels(color: ColorSettings) -> tuple[Formula, ...]:
    """Read the formulas of a custom method, none for the others; a mistake names its channel.

    Raises:
        FormulaError: at the first formula that is not arithmetic on ``v``.
    """
    if color.method not in CHANNELS:
        return ()
    formulas = []
    for i, (letter, text) in enumerate(zip(CHANNELS[color.method], color.channels, strict=True)):
        with within("formula", str(i)):
            formulas.append(compile_formula(text, f"Color space, {letter}"))
    return tuple(formulas)


@lru_cache(maxsize=64)
def _compile(text: str) -> Formula:
    # Blanks in place of prefixes: what is read has every character where the user has it.
    plain = _PREFIX.sub(lambda match: " " * len(match[0]), text)
    try:
        return Formula(text, compile_text(plain))
    except FormulaError as error:
        assert error.source is not None
        error.source = SourcePosition(text[: len(error.source.text)], error.source.position)
        raise
