"""A prompt of any length in chunks of 75 tokens, as a text encoder of CLIP reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CHUNK = 75
"""Pieces of text that the encoder reads at once, without start and end."""

BACKTRACK = 20
"""Tokens before the end of a full chunk among which a comma is looked for, to move what follows it to the next."""


class Piece(NamedTuple):
    """A token's number in the vocabulary, and the weight of the text it comes from."""

    number: int
    weight: float


Chunk = tuple[Piece, ...]


def lay_out(sections: Sequence[Sequence[Piece]], comma: int) -> tuple[Chunk, ...]:
    """Cut sections into chunks, at least one; each section begins a chunk.

    Where text goes on after a full chunk with a comma (its number is ``comma``) among its last 20 pieces, the chunk
    ends after that comma, unless a comma is also what comes next.
    """
    chunks: list[Chunk] = []
    for section in sections:
        rest = tuple(section)
        while len(rest) > CHUNK:
            end = _end_of_chunk(rest, comma)
            chunks.append(rest[:end])
            rest = rest[end:]
        chunks.append(rest)
    # Nothing after the last BREAK is no reason for another chunk.
    return tuple(chunks[:-1] if len(chunks) > 1 and not chunks[-1] else chunks)


def _end_of_chunk(pieces: Chunk, comma: int) -> int:
    if pieces[CHUNK].number != comma:
        for end in range(CHUNK, CHUNK - BACKTRACK, -1):
            if pieces[end - 1].number == comma:
                return end
    return CHUNK


def fill(layout: tuple[Chunk, ...], count: int) -> tuple[Chunk, ...]:
    """Give a prompt as many chunks as ``count``, those that it lacks empty."""
    empty: Chunk = ()
    return (*layout, *[empty] * (count - len(layout)))
