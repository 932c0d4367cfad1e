"""Lay out all channels of a block in one picture, in channel order, row by row."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_dumpunet.image.colorize import PACKED, Pixels, pack

GAP = 1

# A full grid (without empty cells) is preferred if its aspect ratio is off by less than this factor.
TOLERANCE = 2.0


@lru_cache(maxsize=64)
def layout(count: int, height: int, width: int, ratio: float) -> tuple[int, int]:
    """Choose the columns and rows for ``count`` cells of ``height`` by ``width`` pixels.

    Grids without empty cells come first, if their aspect ratio, including gaps, differs from ``ratio`` by a factor
    below ``TOLERANCE``; so 320 square cells make 20 columns × 16 rows rather than 18 × 18 with four empty. Then the
    nearest aspect ratio wins (the smallest absolute logarithm of the factor), then fewer empty cells, then more
    columns. The last row is never empty.
    """

    def badness(columns: int) -> tuple[bool, float, int, int]:
        rows = -(-count // columns)
        shape = _length(columns, width) / _length(rows, height)
        # Rounded so that a grid and its transpose tie exactly.
        distance = round(abs(math.log(shape / ratio)), 9)
        empty = columns * rows - count
        return empty > 0 or distance >= math.log(TOLERANCE), distance, empty, -columns

    columns = min(range(1, count + 1), key=badness)
    return columns, -(-count // columns)


def grid(maps: Pixels, ratio: float, background: int = 0) -> Image.Image:
    """Lay out maps in one picture, with an aspect ratio (width by height) near ``ratio``.

    Args:
        maps: uint8 "c h w" for grey, packed pixels "c h w" or uint8 "c h w 3" for colour; at least one map.
        ratio: width by height of the generated image.
        background: grey level, 0 to 255, of gaps and empty cells.

    Returns:
        a picture of mode L or RGB; a single map has no border.
    """
    maps = pack(maps) if maps.ndim == 4 else maps
    count, height, width = maps.shape
    columns, rows = layout(count, height, width, ratio)
    filling = background if maps.dtype == np.uint8 else background * 0x010101
    canvas = np.full((rows, height + GAP, columns, width + GAP), filling, maps.dtype)
    full = count // columns
    cells = maps[: full * columns].reshape(full, columns, height, width)
    canvas[:full, :height, :, :width] = cells.transpose(0, 2, 1, 3)
    canvas[full:, :height, : count % columns, :width] = maps[full * columns :].transpose(1, 0, 2)
    return to_image(canvas.reshape(rows * (height + GAP), -1)[:-GAP, :-GAP])


def to_image(pixels: NDArray[np.uint8] | NDArray[np.uint32]) -> Image.Image:
    """Make a picture of mode L from uint8 "h w", or of mode RGB from packed pixels "h w"."""
    height, width = pixels.shape
    data = np.ascontiguousarray(pixels)
    if data.dtype == np.uint8:
        return Image.frombytes("L", (width, height), data.data)
    return Image.frombytes("RGB", (width, height), data.astype(PACKED, copy=False).data, "raw", "RGBX")


def _length(cells: int, size: int) -> int:
    """Return the length in pixels of ``cells`` cells with the gaps between them."""
    return cells * (size + GAP) - GAP
