"""The grid has every map in its cell, and the shape that its rule says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_dumpunet.image.colorize import colorize, paint
from lib_dumpunet.image.grid import TOLERANCE, grid, layout
from lib_dumpunet.settings import ColorSettings


@pytest.mark.parametrize(
    ("count", "cell", "ratio", "expected"),
    [
        (320, (64, 64), 1.0, (20, 16)),
        (640, (32, 32), 1.0, (32, 20)),
        (1280, (8, 8), 1.0, (40, 32)),
        (320, (64, 96), 1.5, (20, 16)),
        (1, (64, 64), 1.0, (1, 1)),
        (2, (8, 8), 1.0, (2, 1)),
        (3, (8, 8), 1.0, (2, 2)),
        (4, (8, 8), 1.0, (2, 2)),
        (7, (8, 8), 1.0, (3, 3)),
        (12, (8, 8), 0.75, (3, 4)),
        (32, (8, 8), 1.0, (6, 6)),
    ],
)
def test_layout(count: int, cell: tuple[int, int], ratio: float, expected: tuple[int, int]) -> None:
    assert layout(count, *cell, ratio) == expected


counts, sizes = st.integers(1, 400), st.integers(1, 20)


@settings(deadline=None, max_examples=150)
@given(counts, sizes, sizes, st.floats(0.2, 5))
def test_layout_is_the_best_by_its_rule(count: int, height: int, width: int, ratio: float) -> None:
    columns, rows = layout(count, height, width, ratio)
    assert columns * (rows - 1) < count <= columns * rows

    def distance(c: int, r: int) -> float:
        return abs(math.log((c * (width + 1) - 1) / (r * (height + 1) - 1) / ratio))

    full = [(c, count // c) for c in range(1, count + 1) if count % c == 0]
    near = [shape for shape in full if distance(*shape) < math.log(TOLERANCE) - 1e-8]
    rivals = near or [(c, -(-count // c)) for c in range(1, count + 1)]
    assert distance(columns, rows) <= min(distance(*shape) for shape in rivals) + 1e-8


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 30), sizes, sizes, st.floats(0.3, 3), st.booleans())
def test_every_map_is_in_its_cell(count: int, height: int, width: int, ratio: float, grey: bool) -> None:
    shape = (count, height, width) if grey else (count, height, width, 3)
    maps = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = grid(maps, ratio, background=77)
    columns, rows = layout(count, height, width, ratio)
    assert image.mode == ("L" if grey else "RGB")
    assert image.size == (columns * (width + 1) - 1, rows * (height + 1) - 1)
    pixels, covered = np.asarray(image), np.zeros((image.height, image.width), bool)
    for i in range(count):
        y, x = i // columns * (height + 1), i % columns * (width + 1)
        np.testing.assert_array_equal(pixels[y : y + height, x : x + width], maps[i])
        covered[y : y + height, x : x + width] = True
    assert (pixels[~covered] == 77).all()


def test_packed_pixels_give_the_same_picture() -> None:
    tensor = torch.randn(7, 5, 6)
    for method in ("hsl", "white-black"):
        color = ColorSettings(method=method)
        assert grid(paint(tensor, color), 1.0) == grid(colorize(tensor, color), 1.0)


def test_a_single_map_is_bare() -> None:
    maps = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    np.testing.assert_array_equal(np.asarray(grid(maps, 1.0)), maps[0])
