"""The panel's tables: what blocks read from a prompt, and what the chosen blocks are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lib_dumpunet.blocks import BlockOrder
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.prompt.selection import select_blocks
from lib_dumpunet.ui import checks
from lib_dumpunet.ui.markup import fill, message


class BlockRow(Protocol):
    """A row of the block table; shapes are "c h w", ``heads`` has a number for each attention layer."""

    @property
    def block(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def input(self) -> tuple[int, ...]: ...
    @property
    def output(self) -> tuple[int, ...]: ...
    @property
    def heads(self) -> tuple[int, ...]: ...


Info = Callable[[int, int], Sequence[BlockRow]]
"""Returns the blocks of the loaded model for a width and height in pixels."""
DEFAULT_SIZE = 512


def order_of(info: Info) -> BlockOrder:
    """Return the blocks of the loaded model."""
    return BlockOrder(tuple(row.block for row in info(DEFAULT_SIZE, DEFAULT_SIZE)))


def text_table(prompt: str | None, info: Info, step: float | None) -> str:
    """Return an HTML table of what each block reads, or the error in the prompt; empty for an empty prompt."""
    if not prompt:
        return ""
    try:
        groups = checks.texts_of_blocks(prompt, order_of(info), int(step or 1))
    except DumpUNetError as error:
        return message(str(error))
    return fill("texts", groups=groups)


def block_table(text: str | None, info: Info, size: Sequence[Any] = ()) -> str:
    """Return the table of chosen blocks in HTML; empty if the choice has an error."""
    width, height = (int(value or DEFAULT_SIZE) for value in (*size, *(DEFAULT_SIZE,) * (2 - len(size))))
    rows = info(width, height)
    try:
        chosen = select_blocks(text or "", BlockOrder(tuple(row.block for row in rows)))
    except DumpUNetError:
        return ""
    return fill("blocks", width=width, height=height, rows=[row for row in rows if row.block in chosen])
