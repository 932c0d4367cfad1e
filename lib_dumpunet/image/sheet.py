"""Sheets of attention: tables of tokens and heads, grids of self-attention maps, and components as colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lib_dumpunet.image.colorize import pack, paint
from lib_dumpunet.image.grid import GAP, to_image
from lib_dumpunet.image.labels import text_image
from lib_dumpunet.settings import ColorSettings

TEXT = 11
LONGEST_LABEL = 120
LABELLED_CELL = (12, 14)  # least height and width of a cell, so that labels do not overlap
POINTED_CELL = (1, 48)
DOT = 1  # pixels from a point's mark to its edge, without its rim
COMPONENTS_SIDE = 256
_PAD = 3


def draw_sheet(
    maps: Tensor, color: ColorSettings, columns: Sequence[str], rows: Sequence[str]
) -> Image.Image:
    """Lay out maps "row column h w" as a table with a label above each column and to the left of each row.

    Each map is coloured separately, at its own resolution; small maps are enlarged by an integer factor to make room
    for labels. If all labels are blank, there is no margin.

    Args:
        maps: of any float dtype, on the CPU.
        color: how values become colours.
        columns: a label for each column, drawn from bottom to top; long ones are cut.
        rows: a label for each row.

    Returns:
        a picture of mode L for White/Black, else RGB.

    Raises:
        FormulaError: if a custom method's formula is not arithmetic on ``v``.
    """
    assert maps.shape[:2] == (len(rows), len(columns))
    cells = _cells(maps, color, LABELLED_CELL)
    above = [text_image(text, TEXT, longest=LONGEST_LABEL, vertical=True) for text in columns]
    beside = [text_image(text, TEXT, longest=LONGEST_LABEL) for text in rows]
    body = _table(cells)
    top, left = _margin(label.height for label in above), _margin(label.width for label in beside)
    page = np.full((top + body.shape[0], left + body.shape[1]), 255, np.uint8)
    height, width = cells.shape[2:]
    for column, label in enumerate(above):
        middle = left + column * (width + GAP) + (width - label.width) // 2
        _stamp(page, label, top - _PAD - label.height, middle)
    for row, label in enumerate(beside):
        middle = top + row * (height + GAP) + (height - label.height) // 2
        _stamp(page, label, middle, left - _PAD - label.width)
    sheet = page.astype(body.dtype) * (_white(body) // 255)
    sheet[top:, left:] = body
    return to_image(sheet)


def draw_lattice(maps: Tensor, color: ColorSettings) -> Image.Image:
    """Lay out the self-attention maps "y x h w" of a grid of query points, each at its point's position in the image.

    Each map marks its point by a white dot with a black rim, visible on any colour. Maps less than 48 pixels wide are
    enlarged by an integer factor.

    Raises:
        FormulaError: if a custom method's formula is not arithmetic on ``v``.
    """
    cells = _cells(maps, color, POINTED_CELL)
    rows, columns, height, width = cells.shape
    for row, column in np.ndindex(rows, columns):
        y, x = (2 * row + 1) * height // (2 * rows), (2 * column + 1) * width // (2 * columns)
        _fill_square(cells[row, column], (y, x), DOT + 1, 0)
        _fill_square(cells[row, column], (y, x), DOT, _white(cells))
    return to_image(_table(cells))


def draw_components(maps: Tensor) -> Image.Image:
    """Draw "rgb h w" in [0,1] as red, green and blue, enlarged by an integer factor to 256 pixels or more.

    Values outside are clipped, and NaN counts as 0.
    """
    assert len(maps) == 3
    values = np.nan_to_num(maps.detach().float().numpy().transpose(1, 2, 0))
    levels = np.clip(values * np.float32(256), 0, 255).astype(np.uint8)
    image = to_image(pack(levels))
    factor = _factor(COMPONENTS_SIDE, max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _cells(maps: Tensor, color: ColorSettings, least: tuple[int, int]) -> NDArray[Any]:
    """Colour each map of "row column h w" separately, and enlarge them to at least the height and width ``least``."""
    pixels: NDArray[Any] = paint(maps.flatten(0, 1), color).reshape(maps.shape)
    factor = max(_factor(low, side) for low, side in zip(least, maps.shape[2:], strict=True))
    return pixels.repeat(factor, axis=2).repeat(factor, axis=3)


def _factor(least: int, side: int) -> int:
    """Return the integer factor that enlarges ``side`` to ``least`` or more."""
    return max(1, -(-least // side))


def _table(cells: NDArray[Any]) -> NDArray[Any]:
    """Join "row column h w" to "y x" with black gaps between them."""
    rows, columns, height, width = cells.shape
    table = np.zeros((rows, height + GAP, columns, width + GAP), cells.dtype)
    table[:, :height, :, :width] = cells.transpose(0, 2, 1, 3)
    return table.reshape(rows * (height + GAP), -1)[:-GAP, :-GAP]


def _white(pixels: NDArray[Any]) -> int:
    """Return the value of white, for grey or packed pixels."""
    return 0xFF if pixels.dtype == np.uint8 else 0xFFFFFF


def _fill_square(cell: NDArray[Any], middle: tuple[int, int], radius: int, level: int) -> None:
    """Fill a square around (y, x), clipped to the cell."""
    y, x = (slice(max(0, place - radius), place + radius + 1) for place in middle)
    cell[y, x] = level


def _margin(lengths: Iterable[int]) -> int:
    """Return the size of the margin for labels; 0 if all are blank."""
    longest = max(lengths)
    return longest + 2 * _PAD if longest else 0


def _stamp(page: NDArray[np.uint8], label: Image.Image, top: int, left: int) -> None:
    """Draw a black-on-white label onto a page without erasing what is there, clipped at the edges."""
    ink = np.asarray(label)[max(0, -top) :, max(0, -left) :]
    place = page[max(0, top) :, max(0, left) :][: ink.shape[0], : ink.shape[1]]
    np.minimum(place, ink[: place.shape[0], : place.shape[1]], out=place)
