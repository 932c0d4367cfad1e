"""What a colour formula may hold, and what is said of what it may not: as data, for Python and for a page's script."""

from __future__ import annotations

import keyword
from typing import Any

from lib_dumpunet.image.functions import ADVICE, CONSTANTS, FUNCTIONS, NEEDS_MANY
from lib_dumpunet.settings import FORMULAS

MAX_LENGTH = 1000  # characters
MAX_NODES = 500
MAX_DEPTH = 100
MAX_BRACKETS = 50
MOST_QUOTED = 40  # characters of a name that is not known
CLOSE = 0.8
"""From which likeness on a known name is offered in place of one that is not."""
TERNARY = ("if", "else")
CHARACTER_REMEDIES = {
    ".": "Functions have no prefix but np and numpy.",
    "[": "A formula sees one number at a time, so there is nothing to choose from.",
    "=": "Compare with ==; arguments have no names here.",
    "^": "Write ** for a power.",
    "&": "Write logical_and(a, b).",
    "|": "Write logical_or(a, b).",
    "!": "Write logical_not(a).",
    "~": "Write logical_not(a).",
    ";": "Give one formula for each channel.",
}
WORD_REMEDIES = {
    "and": "Write logical_and(a, b).",
    "or": "Write logical_or(a, b).",
    "not": "Write logical_not(a).",
}
CHANNELS = {"rgb": "RGB", "hsl": "HSL"}
"""The letters of the channels that a custom method has a formula for."""
EXAMPLE = "Write arithmetic on v, for example (2+v)/3."

# What leaves a value still to come, the start of the formula among it.
WANTS_OPERAND = {
    "",
    "if",
    "else",
    "(",
    ",",
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "**",
    "<",
    ">",
    "<=",
    ">=",
    "==",
    "!=",
}


def as_data() -> dict[str, Any]:
    """Return all of it in JSON; of functions, the least and the most arguments that each takes."""
    return {
        "functions": {name: [function.least, function.most] for name, function in FUNCTIONS.items()},
        "constants": CONSTANTS,
        "formulas": FORMULAS,
        "channels": CHANNELS,
        "limits": {
            "length": MAX_LENGTH,
            "nodes": MAX_NODES,
            "depth": MAX_DEPTH,
            "brackets": MAX_BRACKETS,
            "quoted": MOST_QUOTED,
        },
        "close": CLOSE,
        "example": EXAMPLE,
        "keywords": sorted(set(keyword.kwlist) - set(TERNARY)),
        "ternary": list(TERNARY),
        "wantsOperand": sorted(WANTS_OPERAND),
        "characterRemedies": CHARACTER_REMEDIES,
        "wordRemedies": WORD_REMEDIES,
        "advice": ADVICE,
        "needsMany": sorted(NEEDS_MANY),
    }
