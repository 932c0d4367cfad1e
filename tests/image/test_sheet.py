"""Sheets: every map is in its cell, pixel for pixel, labels are next to their cells, points are marked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from lib_dumpunet.image import sheet as sheet_module
from lib_dumpunet.image.colorize import colorize
from lib_dumpunet.image.sheet import LONGEST_LABEL, draw_components, draw_lattice, draw_sheet
from lib_dumpunet.settings import ColorSettings

HSL, GREY = ColorSettings(), ColorSettings(method="white-black")


def maps_of(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def body(sheet: Image.Image, columns: int, rows: int, cell: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut off the margins at the top and on the left."""
    height, width = rows * (cell[0] + 1) - 1, columns * (cell[1] + 1) - 1
    return np.asarray(sheet)[sheet.height - height :, sheet.width - width :]


def ink(pixels: NDArray[np.uint8]) -> bool:
    return bool((pixels < 128).any())


@pytest.mark.parametrize(
    "color", [HSL, GREY, ColorSettings(transform="linear"), ColorSettings(method="red-blue")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("size", "factor"), [((8, 8), 2), ((12, 14), 1), ((12, 13), 2), ((11, 20), 2), ((5, 30), 3), ((1, 1), 14)]
)
def test_every_map_is_in_its_cell(
    color: ColorSettings, dtype: torch.dtype, size: tuple[int, int], factor: int
) -> None:
    maps = maps_of(2, 3, *size).to(dtype) * torch.arange(1, 7).reshape(2, 3, 1, 1)
    sheet = draw_sheet(maps, color, ["a", "bb", "c"], ["head 1", "head 2"])
    height, width = size[0] * factor, size[1] * factor
    pixels = body(sheet, 3, 2, (height, width))
    covered = np.zeros(pixels.shape[:2], bool)
    for row in range(2):
        for column in range(3):
            y, x = row * (height + 1), column * (width + 1)
            cell = pixels[y : y + height, x : x + width]
            covered[y : y + height, x : x + width] = True
            expected = colorize(maps[row, column][None], color)[0]
            np.testing.assert_array_equal(cell[::factor, ::factor], expected)
            np.testing.assert_array_equal(cell, expected.repeat(factor, 0).repeat(factor, 1))
    assert (pixels[~covered] == 0).all()


def test_mode_and_white_margins() -> None:
    for color, mode in ((GREY, "L"), (HSL, "RGB")):
        sheet = draw_sheet(maps_of(1, 2, 16, 16), color, ["a", "b"], ["head 1"])
        assert sheet.mode == mode
        pixels = np.asarray(sheet.convert("RGB"))
        margin = pixels[: sheet.height - 16]
        assert (margin == margin[..., :1]).all()
        assert (margin[:, 0] == 255).all()
        assert (pixels[:, 0] == 255).all()


def test_column_labels_stand_above_their_columns() -> None:
    labels = ["red", "", "circle"]
    sheet = draw_sheet(maps_of(1, 3, 20, 20), GREY, labels, [""])
    assert sheet.width == 3 * 21 - 1
    above = np.asarray(sheet)[: sheet.height - 20]
    red, blank, circle = (above[:, x : x + 20] for x in (0, 21, 42))
    assert ink(red)
    assert not ink(blank)
    assert ink(circle)
    # They start just above the table, and the longer one reaches higher.
    assert ink(red[-8:])
    assert ink(circle[-8:])
    top = [int(np.flatnonzero((part < 128).any(1))[0]) for part in (red, circle)]
    assert top[0] > top[1]


def test_row_labels_stand_at_the_left_of_their_rows() -> None:
    sheet = draw_sheet(maps_of(3, 1, 20, 20), GREY, [""], ["head 1", "", "head 3"])
    assert sheet.height == 3 * 21 - 1
    beside = np.asarray(sheet)[:, : sheet.width - 20]
    assert [ink(beside[y : y + 20]) for y in (0, 21, 42)] == [True, False, True]


def test_blank_labels_take_no_room() -> None:
    assert draw_sheet(maps_of(2, 3, 16, 16), GREY, ["", " ", ""], ["", ""]).size == (50, 33)


def test_long_labels_are_cut() -> None:
    sheet = draw_sheet(maps_of(1, 1, 16, 16), GREY, ["wonderful " * 50], ["splendid " * 50])
    assert LONGEST_LABEL - 20 < sheet.width - 16 < LONGEST_LABEL + 10
    assert LONGEST_LABEL - 20 < sheet.height - 16 < LONGEST_LABEL + 10


def test_labels_thicker_than_a_cell_do_not_wipe_each_other_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet_module, "TEXT", 20)
    maps = maps_of(1, 2, 12, 14)
    both = np.asarray(draw_sheet(maps, GREY, ["gypsy", "gypsy"], [""]))
    first = np.asarray(draw_sheet(maps, GREY, ["gypsy", ""], [""]))
    second = np.asarray(draw_sheet(maps, GREY, ["", "gypsy"], [""]))
    np.testing.assert_array_equal(both, np.minimum(first, second))


def test_labels_of_any_script() -> None:
    sheet = draw_sheet(maps_of(1, 3, 8, 8), HSL, ["赤い", "丸", "🙂"], ["頭"])
    above = np.asarray(sheet)[: sheet.height - 16, sheet.width - 50 :]
    assert all(ink(above[:, x : x + 16]) for x in (0, 17, 34))


@pytest.mark.parametrize(("side", "factor"), [(8, 6), (24, 2), (48, 1), (64, 1)])
@pytest.mark.parametrize("color", [HSL, GREY])
def test_lattice_shows_each_point_s_map_at_its_place(color: ColorSettings, side: int, factor: int) -> None:
    maps = maps_of(3, 4, side, side)
    image = draw_lattice(maps, color)
    size = side * factor
    assert image.size == (4 * (size + 1) - 1, 3 * (size + 1) - 1)
    pixels = np.asarray(image)
    for row in range(3):
        for column in range(4):
            cell = pixels[row * (size + 1) :, column * (size + 1) :][:size, :size]
            expected = colorize(maps[row, column][None], color)[0].repeat(factor, 0).repeat(factor, 1).copy()
            y, x = int((row + 0.5) / 3 * size), int((column + 0.5) / 4 * size)
            expected[y - 2 : y + 3, x - 2 : x + 3] = 0
            expected[y - 1 : y + 2, x - 1 : x + 2] = 255
            np.testing.assert_array_equal(cell, expected)


def test_lattice_marks_points_at_the_edge() -> None:
    pixels = np.asarray(draw_lattice(torch.rand(32, 32, 24, 24), GREY))
    assert pixels[0, 0] == 255
    assert pixels[-1, -1] == 255


def test_components_are_red_green_and_blue() -> None:
    maps = torch.zeros(3, 2, 3)
    maps[0, 0, 0], maps[1, 0, 1], maps[2, 1, 2] = 1.0, 0.5, 7.0
    maps[0, 1, 0], maps[1, 1, 1] = -1.0, float("nan")
    image = draw_components(maps)
    assert image.mode == "RGB"
    assert image.size == (258, 172)
    expected = np.zeros((2, 3, 3), np.uint8)
    expected[0, 0, 0], expected[0, 1, 1], expected[1, 2, 2] = 255, 128, 255
    np.testing.assert_array_equal(np.asarray(image), expected.repeat(86, 0).repeat(86, 1))


def test_large_components_keep_their_size() -> None:
    assert draw_components(maps_of(3, 300, 200)).size == (200, 300)
