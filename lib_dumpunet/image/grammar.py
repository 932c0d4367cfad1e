"""The limits of colour formulas and the remedies for mistakes, as data for Python and the explorer page's script."""

from __future__ import annotations

import keyword
from typing import Any

from lib_dumpunet.image.functions import ADVICE, CONSTANTS, FUNCTIONS, NEEDS_MANY
from lib_dumpunet.settings import FORMULAS

MAX_LENGTH = 1000  # characters
MAX_NODES = 500
MAX_DEPTH = 100
MAX_BRACKETS = 50
MOST_QUOTED = 40  # characters to quote of an unknown name
CLOSE = 0.8
"""The least similarity at which a known name is suggested for an unknown one."""
TERNARY = ("if", "else")
CHARACTER_REMEDIES = {
    ".": "Functions have no prefix except np and numpy.",
    "[": "A formula sees one number at a time, so it has no indices.",
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
"""The channels of each custom method, one formula each."""
EXAMPLE = "Write arithmetic on v, for example (2+v)/3."

# Tokens that a value must follow; "" is the start of the formula.
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
    """Return all of this as JSON data; functions map to their least and most number of arguments."""
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
