"""Parse texts with Lark, and turn its errors into messages for users.

Only this module knows the quirks of Lark's errors: the end of input has the position of the token before it, imported
terminals carry their grammar's name (``selection__BLOCK``), and expected terminals are names, not words for users.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from lark import Lark, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

WORDS = {
    "NUMBER": "a number",
    "STRENGTH": "a strength such as 0.5",
    "COMMA": "','",
    "STEP_COMMA": "','",
    "DASH": "'-'",
    "STRIDE": "'(+'",
    "STRIDE_END": "')'",
    "TIMES": "'*'",
    "AT": "'@'",
    "OTHERWISE": "'_'",
    "COLON": "':'",
    "SEMICOLON": "';'",
    "OPEN": "'(~:'",
    "CLOSE": "':~)'",
    "PROMPT": "a prompt",
    "TEXT": "text",
    "BLOCK": "a block such as IN00, M00 or OUT11",
}
LOOKALIKES = str.maketrans("、–—−〜×", ",----*")
"""Characters easily mistyped for those of the notation; NFKC normalisation handles full-width forms."""
_PIECE = re.compile(r"\(~:|:~\)|[0-9]*\.[0-9]+|\w{1,20}|[\s\S]")


class Mismatch(Exception):
    """The text leaves its grammar at ``position``; ``expected`` lists what may come there, in words for users."""

    def __init__(self, position: int, expected: tuple[str, ...]) -> None:
        super().__init__(position, expected)
        self.position = position
        self.expected = expected


class Grammar(NamedTuple):
    """A grammar file of this package, and its start rule."""

    file: str
    start: str

    def parse(self, text: str) -> Tree:  # type: ignore[type-arg]  # lark 1.1 has no parameter there
        """Parse ``text`` into a tree.

        Raises:
            Mismatch: if the text does not follow the grammar.
        """
        try:
            return _parser(self.file, self.start).parse(text)
        except UnexpectedInput as error:
            raise _mismatch(error, text) from None

    def meant(self, text: str, position: int) -> str:
        """Return a remedy for a lookalike or invisible character at ``position``.

        Empty if replacing or deleting the character would not let parsing continue.
        """
        found = piece(text, position)
        invisible = _is_invisible(found)
        meant = "" if invisible else unicodedata.normalize("NFKC", found.translate(LOOKALIKES))
        if meant == found:
            return ""
        remedy = "Delete it." if invisible else f"Write {meant!r} instead."
        try:
            self.parse(text[:position] + meant + text[position + len(found) :])
        except Mismatch as error:
            return remedy if error.position >= position + len(meant) + invisible else ""
        return remedy


@cache
def _parser(file: str, start: str) -> Lark:
    # Built on first use: it takes a few milliseconds, and imports must be fast.
    return Lark.open(
        file, rel_to=__file__, parser="lalr", lexer="contextual", start=start, propagate_positions=True
    )


def _mismatch(error: UnexpectedInput, text: str) -> Mismatch:
    if isinstance(error, UnexpectedToken):
        at_end = error.token.type == "$END"
        position = len(text) if at_end else error.token.start_pos or 0
        # `expected` and `accepts()` keep only upper-case names, so they omit imported terminals.
        return Mismatch(position, _words(error.interactive_parser.choices()))
    assert isinstance(error, UnexpectedCharacters)
    return Mismatch(error.pos_in_stream or 0, _words(error.allowed or ()))


def _words(terminals: Iterable[str]) -> tuple[str, ...]:
    names = {own_name(name).lstrip("_") for name in terminals}
    return tuple(dict.fromkeys(word for name, word in WORDS.items() if name in names))


def own_name(name: str) -> str:
    """Remove the grammar's name from an imported rule or terminal such as ``selection__BLOCK``."""
    return name.rpartition("__")[2]


def one_of(words: tuple[str, ...]) -> str:
    """Join words as a choice: ``"',', '-' or ':'"``."""
    if len(words) < 2:
        return "".join(words) or "the end"
    return f"{', '.join(words[:-1])} or {words[-1]}"


def piece(text: str, position: int) -> str:
    """Return the word, number or sign at a position, for quoting; long words are cut, the end of the text is empty."""
    match = _PIECE.match(text, position)
    return match[0] if match else ""


def _is_invisible(found: str) -> bool:
    return bool(found) and unicodedata.category(found[0]) == "Cf"


def describe_mismatch(text: str, position: int) -> str:
    """Describe the problem at the position where the text leaves its grammar."""
    found = piece(text, position)
    if _is_invisible(found):
        return f"there is an invisible character here (U+{ord(found[0]):04X})"
    return f"{found!r} is not allowed here" if found else "the text ends too early"
