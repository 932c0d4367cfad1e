"""Colour formulas: arithmetic on ``v`` that a user types, parsed safely and evaluated on whole arrays.

A formula passes three checks, each of which is an allowlist:

1. ``syntax.py``: length, tokens, brackets. It refuses quotes, dots outside numbers, brackets other than ``()``,
   Python's keywords and letters outside ASCII, so names cannot be disguised, and columns count characters.
2. ``ast.parse``, which parses without running anything.
3. ``compiler.py``: allowed nodes and names, limits of size and depth.

The result is a list of instructions for a stack machine, which can reach nothing of Python except the functions in
``functions.py``. All values are float32, so numbers cannot grow: ``9**9**9`` is infinity.
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
    """A compiled colour formula; made by ``compile_formula``."""

    text: str
    program: tuple[Instruction, ...] = dataclasses.field(repr=False, compare=False)

    def __call__(self, v: Any) -> Any:
        """Evaluate on every element of ``v``, in float32 and without warnings; comparisons give 0 or 1.

        Returns:
            a float32 array of the shape of ``v``; a scalar if ``v`` is one or the formula does not use it.
        """
        v = np.asarray(v, dtype=np.float32)
        stack: list[Any] = []
        with np.errstate(all="ignore"):
            for step in self.program:
                if step.apply is None:
                    stack.append(v)
                    continue
                start = len(stack) - step.count
                # Force float32: NumPy 1 and 2 promote scalars differently, and comparisons are boolean.
                stack[start:] = [np.asarray(step.apply(*stack[start:])).astype(np.float32, copy=False)]
        return stack.pop()[()]


def compile_formula(text: str, field: str = "") -> Formula:
    """Compile a formula of ``v``.

    Args:
        text: what the user typed.
        field: where it was typed, for the message.

    Raises:
        FormulaError: with the position of anything but arithmetic on ``v``.
    """
    try:
        return _compile(text)
    except FormulaError as error:
        raise error.in_field(field) from None


def compile_channels(color: ColorSettings) -> tuple[Formula, ...]:
    """Compile the formulas of a custom method; other methods have none. An error names its channel.

    Raises:
        FormulaError: for the first formula that is not arithmetic on ``v``.
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
    # Replace prefixes by spaces to keep positions as the user typed them.
    plain = _PREFIX.sub(lambda match: " " * len(match[0]), text)
    try:
        return Formula(text, compile_text(plain))
    except FormulaError as error:
        assert error.source is not None
        error.source = SourcePosition(text[: len(error.source.text)], error.source.position)
        raise
