"""Cut prompts of any length into chunks of 75 tokens, as CLIP text encoders read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CHUNK = 75
"""Tokens that the encoder reads at once, not counting the start and end tokens."""

BACKTRACK = 20
"""A full chunk ends early after a comma among its last 20 tokens; the tokens after it move to the next chunk."""


class Piece(NamedTuple):
    """A token's id in the vocabulary, and its emphasis weight."""

    number: int
    weight: float


Chunk = tuple[Piece, ...]


def lay_out(sections: Sequence[Sequence[Piece]], comma: int) -> tuple[Chunk, ...]:
    """Cut sections into chunks, at least one; each section begins a new chunk.

    A full chunk that more text follows ends after the last comma (token id ``comma``) among its last 20 tokens, if
    there is one, unless the next token is a comma too.
    """
    chunks: list[Chunk] = []
    for section in sections:
        rest = tuple(section)
        while len(rest) > CHUNK:
            end = _end_of_chunk(rest, comma)
            chunks.append(rest[:end])
            rest = rest[end:]
        chunks.append(rest)
    # An empty section after the last BREAK needs no chunk.
    return tuple(chunks[:-1] if len(chunks) > 1 and not chunks[-1] else chunks)


def _end_of_chunk(pieces: Chunk, comma: int) -> int:
    if pieces[CHUNK].number != comma:
        for end in range(CHUNK, CHUNK - BACKTRACK, -1):
            if pieces[end - 1].number == comma:
                return end
    return CHUNK


def fill(layout: tuple[Chunk, ...], count: int) -> tuple[Chunk, ...]:
    """Append empty chunks to a prompt until it has ``count``."""
    empty: Chunk = ()
    return (*layout, *[empty] * (count - len(layout)))
