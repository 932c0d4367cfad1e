"""Overlays: the palette, the heatmap over an image, its caption, its point, and many on one sheet."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from lib_dumpunet.image.overlay import (
    OPACITY,
    SHEET_GAP,
    contact_sheet,
    draw_overlay,
    layer_of,
    normalise,
    resize_map,
)
from lib_dumpunet.image.palette import ANCHORS, heat

NAN, INF = float("nan"), float("inf")


def luminance(colors: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute the relative luminance of sRGB colours "... 3"."""
    levels = colors / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def picture_of(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def map_of(height: int, width: int) -> torch.Tensor:
    return torch.rand(height, width, generator=torch.Generator().manual_seed(height))


def test_heat_becomes_brighter_throughout() -> None:
    light = luminance(heat(np.linspace(0, 1, 129)))
    assert (np.diff(light) > 0).all()
    assert light[0] < 0.01
    assert light[-1] > 0.85


def test_heat_passes_its_anchors_in_any_shape() -> None:
    x = np.linspace(0, 1, len(ANCHORS)).reshape(3, 3)
    np.testing.assert_array_equal(heat(x), np.array(ANCHORS).reshape(3, 3, 3))
    np.testing.assert_array_equal(heat(np.array([-1.0, 2.0])), np.array([ANCHORS[0], ANCHORS[-1]]))
    assert heat(np.zeros((2, 5), np.float32)).shape == (2, 5, 3)


def test_normalise_by_the_map_s_own_range() -> None:
    values, low, high = normalise(torch.tensor([[0.2, 0.3], [0.6, 0.4]], dtype=torch.float64))
    np.testing.assert_allclose(values, [[0, 0.25], [1, 0.5]], rtol=1e-6)
    assert values.dtype == np.float32
    assert (low, high) == (0.2, 0.6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_normalise_any_float_type(dtype: torch.dtype) -> None:
    values, low, high = normalise(torch.tensor([[1.0, 3.0, 2.0]], dtype=dtype))
    assert values.tolist() == [[0, 1, 0.5]]
    assert (low, high) == (1, 3)


def test_normalise_odd_maps() -> None:
    values, low, high = normalise(torch.full((2, 3), 0.7))
    assert not values.any()
    assert low == high == pytest.approx(0.7)
    values, low, high = normalise(torch.tensor([[NAN, 2.0, 4.0, INF, -INF]]))
    assert values.tolist() == [[0, 0, 1, 1, 0]]
    assert (low, high) == (2, 4)
    values, low, high = normalise(torch.full((2, 2), NAN))
    assert not values.any()
    assert math.isnan(low)
    assert math.isnan(high)
    values, _, _ = normalise(torch.tensor([[-3e38, 3e38]]))
    assert values.tolist() == [[0, 1]]


def test_resize_is_smooth_and_keeps_the_range() -> None:
    edge = torch.zeros(6, 8)
    edge[:, 4:] = 1
    resized = resize_map(edge, (64, 30))
    assert resized.shape == (30, 64)
    assert resized.dtype == np.float32
    assert resized.min() == 0
    assert resized.max() == 1
    np.testing.assert_allclose(resized, resized[:1].repeat(30, 0), atol=1e-5)
    # It rises over several pixels, in the middle, to the same height on both sides.
    row = resized[0]
    assert ((row > 0.05) & (row < 0.95)).sum() >= 4
    np.testing.assert_allclose(row + row[::-1], 1, atol=1e-5)


def test_resize_leaves_things_where_they_are() -> None:
    spot = torch.zeros(8, 10)
    spot[3, 6] = 1
    resized = resize_map(spot, (100, 64))
    ys, xs = np.indices(resized.shape) + 0.5
    assert (ys * resized).sum() / resized.sum() == pytest.approx(3.5 * 8, abs=0.01)
    assert (xs * resized).sum() / resized.sum() == pytest.approx(6.5 * 10, abs=0.01)


def test_resize_odd_maps() -> None:
    assert np.allclose(resize_map(torch.full((3, 3), 5.0), (7, 4)), 5)
    assert not resize_map(torch.full((3, 3), NAN), (7, 4)).any()
    holed = torch.full((4, 4), 2.0)
    holed[0, 0], holed[3, 3] = NAN, 3.0
    resized = resize_map(holed, (16, 16))
    assert np.isfinite(resized).all()
    assert resized[0, 0] == 2


def test_layer_is_the_more_opaque_the_higher_the_value() -> None:
    ramp = torch.linspace(0, 1, 32).square()[None].repeat(4, 1)
    layer = layer_of(ramp, (96, 40))
    assert layer.mode == "RGBA"
    assert layer.size == (96, 40)
    pixels = np.asarray(layer)
    alpha = pixels[20, :, 3].astype(int)
    assert (np.diff(alpha) >= 0).all()
    assert alpha[0] == 0
    assert alpha[-1] == round(OPACITY * 255)
    assert (np.diff(luminance(pixels[20, :, :3])) >= -1e-3).all()


@pytest.mark.parametrize("odd", [torch.full((4, 4), 0.3), torch.full((4, 4), NAN)])
def test_a_map_without_a_range_is_transparent(odd: torch.Tensor) -> None:
    assert not np.asarray(layer_of(odd, (20, 10)))[..., 3].any()
    plain = draw_overlay(picture_of(256, 100), odd, "x").crop((0, 0, 256, 100))
    other = draw_overlay(picture_of(256, 100), torch.zeros(2, 2), "x").crop((0, 0, 256, 100))
    assert plain == other


@pytest.mark.parametrize(
    ("size", "factor"), [((64, 64), 4), ((256, 128), 1), ((300, 500), 1), ((200, 40), 2), ((1024, 640), 1)]
)
def test_overlay_enlarges_by_a_whole_factor_and_adds_a_band(size: tuple[int, int], factor: int) -> None:
    image = draw_overlay(picture_of(*size), map_of(8, 12), "red circle")
    assert image.mode == "RGB"
    assert image.width == size[0] * factor
    assert 20 <= image.height - size[1] * factor <= image.width / 10
    band = np.asarray(image)[size[1] * factor :]
    assert (band[0] == 255).all()
    assert (band < 100).all(-1).any()


def test_the_image_shows_where_there_is_no_heat_and_heat_where_there_is() -> None:
    half = torch.zeros(16, 16)
    half[:, 8:] = 1
    red = draw_overlay(Image.new("RGB", (256, 256), (250, 20, 20)), half, "x")
    blue = draw_overlay(Image.new("RGB", (256, 256), (20, 20, 250)), half, "x")
    cold, hot = np.array(red.getpixel((10, 128))), np.array(red.getpixel((245, 128)))
    assert cold[0] > cold[1] + 20
    assert cold[0] < 250
    assert hot.min() > 150
    assert np.abs(hot - np.array(blue.getpixel((245, 128)))).max() < 40
    assert np.abs(cold - np.array(blue.getpixel((10, 128)))).max() > 40


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_images_of_any_mode(mode: str) -> None:
    assert draw_overlay(picture_of(32, 32).convert(mode), map_of(4, 4), "x").mode == "RGB"


def test_without_an_image_the_heat_stands_alone() -> None:
    heat_map = torch.zeros(16, 24)
    heat_map[8, 12] = 1
    image = draw_overlay(None, heat_map, "red circle")
    assert image.width == 24 * 11
    assert image.height > 16 * 11
    assert image.getpixel((2, 2)) == (0, 0, 0)
    assert min(image.getpixel((12 * 11 + 5, 8 * 11 + 5))[:2]) > 200


@pytest.mark.parametrize("ground", ["black", "white", "orange"])
@pytest.mark.parametrize("point", [(0.25, 0.75), (0.0, 0.0), (0.999, 0.5)])
def test_the_point_is_ringed_on_any_colour(ground: str, point: tuple[float, float]) -> None:
    image = Image.new("RGB", (320, 200), ground)
    plain = np.asarray(draw_overlay(image, torch.zeros(8, 8), "x")).astype(int)
    marked = np.asarray(draw_overlay(image, torch.zeros(8, 8), "x", point=point)).astype(int)
    difference = np.abs(plain - marked).max(-1)
    ys, xs = np.nonzero(difference)
    middle = point[0] * 320, point[1] * 200
    assert difference.max() > 60
    distances = np.hypot(xs + 0.5 - middle[0], ys + 0.5 - middle[1])
    assert distances.min() > 1
    assert distances.max() < 10
    if 0.1 < point[0] < 0.9:
        assert abs(xs.mean() + 0.5 - middle[0]) <= 1
        assert abs(ys.mean() + 0.5 - middle[1]) <= 1


def changed(first: Image.Image, second: Image.Image) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the differing area."""
    assert first.size == second.size
    difference = (np.asarray(first) != np.asarray(second)).any(-1)
    ys, xs = np.nonzero(difference)
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


def test_the_title_changes_the_left_of_the_band_only() -> None:
    image, heat_map = picture_of(256, 200), map_of(8, 8)
    first = draw_overlay(image, heat_map, "red circle")
    for title in ("blue square", "赤い丸", "a very long title " * 40):
        left, top, right, _ = changed(first, draw_overlay(image, heat_map, title))
        assert left >= 6
        assert top > 200
        assert right < 160


def test_the_scale_tells_the_range() -> None:
    ramp = torch.tensor([[0.0, 1.0]]).repeat(2, 1)
    same = draw_overlay(None, ramp * 0.13, "x")
    assert draw_overlay(None, ramp * 0.134, "x") == same
    assert draw_overlay(None, ramp * 0.1 + 0.0021, "x") == draw_overlay(None, ramp * 0.1 + 0.00214, "x")
    left, top, _, _ = changed(same, draw_overlay(None, ramp * 0.17, "x"))
    assert left > 200
    assert top > 256
    left, top, right, _ = changed(same, draw_overlay(None, ramp * 0.1299 + 0.00011, "x"))
    assert left > 100
    assert right < 190
    assert top > 256


def test_a_map_of_no_numbers_is_told() -> None:
    image = draw_overlay(None, torch.full((4, 4), NAN), "x")
    assert not np.asarray(image.crop((0, 0, 256, 256))).any()
    assert image != draw_overlay(None, torch.zeros(4, 4), "x")


def test_contact_sheet_lays_out_row_by_row() -> None:
    pictures = [Image.new("RGB", (20, 10), (level, 0, 0)) for level in range(5)]
    sheet = contact_sheet(pictures, 3)
    assert sheet.size == (3 * 20 + 2 * SHEET_GAP, 2 * 10 + SHEET_GAP)
    pixels = np.asarray(sheet).copy()
    for number in range(5):
        y, x = number // 3 * (10 + SHEET_GAP), number % 3 * (20 + SHEET_GAP)
        assert (pixels[y : y + 10, x : x + 20] == (number, 0, 0)).all()
        pixels[y : y + 10, x : x + 20] = 255
    assert (pixels == 255).all()
