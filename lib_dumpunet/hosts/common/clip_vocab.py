"""Convert the entries of CLIP's vocabulary into tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from lib_dumpunet.prompt.words import Token

WORD_END = "</w>"


def piece(name: str) -> Token:
    """Convert a vocabulary entry, in which characters stand for bytes, into a token."""
    letters = name.removesuffix(WORD_END)
    return Token(bytes(_byte_values()[letter] for letter in letters), ends_word=letters != name)


@cache
def _byte_values() -> Mapping[str, int]:
    """Invert the table with which byte-level tokenizers write bytes as visible characters.

    Bytes that are printable in Latin-1 stand for themselves; the others are numbered from 256 in order. The space and
    the soft hyphen do not count as printable.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
