"""Distances of pictures, and pictures side by side."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from lib_dumpunet.image.compare import draw_change, pixel_distance
from lib_dumpunet.image.gallery import BAND, LARGEST, draw_gallery
from lib_dumpunet.image.overlay import SHEET_GAP


def test_distance_is_the_root_of_the_mean_square() -> None:
    black = Image.new("RGB", (4, 2))
    other = black.copy()
    assert pixel_distance(black, other) == 0
    other.putpixel((1, 1), (255, 0, 30))
    assert math.isclose(pixel_distance(black, other), math.sqrt((255**2 + 30**2) / 24), rel_tol=1e-6)
    assert pixel_distance(other, black) == pixel_distance(black, other)
    assert pixel_distance(Image.new("L", (3, 3), 255), Image.new("RGBA", (3, 3))) == 255


def test_change_is_bright_where_pixels_differ() -> None:
    before = Image.new("RGB", (256, 128), (10, 20, 30))
    after = before.copy()
    after.paste((200, 0, 90), (128, 0, 256, 128))
    drawn = np.asarray(draw_change(before, after), int).sum(-1)
    assert drawn.shape[1] == 256
    assert drawn[60, 20] == 0
    assert drawn[60, 200] > 600
    assert draw_change(before, before).size == draw_change(before, after).size


def test_gallery_is_about_as_wide_as_a_screen() -> None:
    images = [(Image.new("RGB", (512, 512), (i, 0, 0)), f"image {i}") for i in range(17)]
    sheet = draw_gallery(images)
    cell, row = LARGEST + SHEET_GAP, LARGEST + BAND + SHEET_GAP
    assert sheet.size == (6 * cell - SHEET_GAP, 3 * row - SHEET_GAP)
    for i in (0, 5, 16):
        assert sheet.getpixel((i % 6 * cell + 9, i // 6 * row + 9)) == (i, 0, 0)
    label = np.asarray(sheet.crop((0, LARGEST, LARGEST, LARGEST + BAND)), int)
    assert label.min() < 60
    assert label.max() == 255


def test_small_images_stay_as_they_are_and_columns_can_be_asked_for() -> None:
    sheet = draw_gallery([(Image.new("L", (64, 32), 7), "a long label that is cut")] * 4, columns=2)
    assert sheet.size == (2 * 64 + SHEET_GAP, 2 * (32 + BAND) + SHEET_GAP)
    assert sheet.getpixel((63, 31)) == (7, 7, 7)
