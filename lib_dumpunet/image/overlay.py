"""Draw heatmaps over the generated image, with a caption and a colour scale, and lay out many on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from lib_dumpunet.image.labels import text_image
from lib_dumpunet.image.palette import heat

Float32 = NDArray[np.float32]

OPACITY = 0.85  # at the heatmap's maximum
LEAST_WIDTH = 256  # pixels, so that there is room for a caption
GREYNESS, BRIGHTNESS = 0.6, 0.7  # of the image below, so that the heatmap's colours stand out
SHEET_GAP = 6


def normalise(heatmap: Tensor) -> tuple[Float32, float, float]:
    """Scale a map "h w" to [0,1] by its own range; also return its minimum and maximum.

    NaN becomes 0, and so does a constant map; infinities are clipped to the finite range. If no value is finite,
    minimum and maximum are NaN.
    """
    values = heatmap.detach().double().numpy()
    low, high = _range(values)
    if not low < high:
        return np.zeros(values.shape, np.float32), low, high
    scaled = (np.clip(values, low, high) - low) / (high - low)
    return np.nan_to_num(scaled).astype(np.float32), low, high


def resize_map(heatmap: Tensor, size: tuple[int, int]) -> Float32:
    """Resize a map "h w" to ``size`` (width, height) by bicubic interpolation, clamped to the map's own range.

    Bicubic interpolation overshoots at edges, so the result is clamped. NaN counts as the minimum.

    Returns:
        "height width"
    """
    values = heatmap.detach().float()
    low, high = _range(values.numpy())
    if math.isnan(low):
        low = high = 0.0
    values = torch.nan_to_num(values, nan=low, posinf=high, neginf=low)[None, None]
    resized = torch.nn.functional.interpolate(values, size[::-1], mode="bicubic", align_corners=False)
    return resized[0, 0].clamp(low, high).numpy()


def layer_of(heatmap: Tensor, size: tuple[int, int]) -> Image.Image:
    """Draw a map "h w" as an RGBA layer of the given width and height; higher values are more opaque."""
    values = _resized(heatmap, size)
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., :3] = heat(values)
    pixels[..., 3] = np.rint(values * np.float32(OPACITY * 255))
    return Image.fromarray(pixels)


def draw_overlay(
    image: Image.Image | None, heatmap: Tensor, title: str, *, point: tuple[float, float] | None = None
) -> Image.Image:
    """Draw a map "h w" over an image, with a title and a colour scale in a band below.

    Args:
        image: of any mode; it is desaturated and dimmed. None draws the heatmap alone.
        heatmap: of any float dtype, on the CPU; it is resized to the image.
        title: any text; a long one is cut.
        point: where to draw a ring: x and y as fractions of the image's width and height.

    Returns:
        a picture of mode RGB, enlarged by an integer factor to at least 256 pixels wide.
    """
    height, width = heatmap.shape if image is None else (image.height, image.width)
    factor = max(1, -(-LEAST_WIDTH // width))
    size = width * factor, height * factor
    picture = Image.fromarray(heat(_resized(heatmap, size))) if image is None else _below(image, size)
    if image is not None:
        layer = layer_of(heatmap, size)
        picture.paste(layer, mask=layer)
    if point is not None:
        _mark(picture, point)
    _, low, high = normalise(heatmap)
    band = _caption(picture.width, title, low, high)
    result = Image.new("RGB", (picture.width, picture.height + band.height))
    result.paste(picture, (0, 0))
    result.paste(band, (0, picture.height))
    return result


def contact_sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Lay out one or more pictures of the same size row by row, with white gaps."""
    width, height = pictures[0].size
    assert all(picture.size == (width, height) for picture in pictures)
    rows = -(-len(pictures) // columns)
    across, down = width + SHEET_GAP, height + SHEET_GAP
    sheet = Image.new("RGB", (columns * across - SHEET_GAP, rows * down - SHEET_GAP), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * across, number // columns * down))
    return sheet


def _range(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return the minimum and maximum of the finite values, or NaN."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)


def _resized(heatmap: Tensor, size: tuple[int, int]) -> Float32:
    """Scale a map to [0,1] by its own range, and resize it to a width and height."""
    return resize_map(torch.from_numpy(normalise(heatmap)[0]), size)


def _below(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize, desaturate and dim the image below a heatmap."""
    large = image.convert("RGB").resize(size, Image.Resampling.NEAREST)
    greyed = Image.blend(large, large.convert("L").convert("RGB"), GREYNESS)
    return Image.blend(Image.new("RGB", size), greyed, BRIGHTNESS)


def _mark(picture: Image.Image, point: tuple[float, float]) -> None:
    """Draw a white ring with black rims, visible on any colour."""
    radius = max(5, round(max(picture.size) / 80))
    side, fine = 2 * radius + 1, 4  # drawn four times as large, because Pillow does not antialias circles
    thick = max(1, radius // 4)
    ring = Image.new("LA", (side * fine, side * fine))
    pen = ImageDraw.Draw(ring)
    for inset, levels in enumerate(((0, 255), (255, 255), (0, 255), (0, 0))):
        edge = inset * thick * fine
        pen.ellipse((edge, edge, side * fine - 1 - edge, side * fine - 1 - edge), fill=levels)
    small = ring.resize((side, side), Image.Resampling.BOX)
    x, y = (math.floor(place * length) for place, length in zip(point, picture.size, strict=True))
    picture.paste(small.convert("RGB"), (x - radius, y - radius), small.getchannel("A"))


def _caption(width: int, title: str, low: float, high: float) -> Image.Image:
    """Draw the band below a picture: the title on the left, the colour scale on the right."""
    size = max(12, width // 42)
    band = Image.new("RGB", (width, 2 * size), "white")
    pad = size // 2
    scale = _scale(size, _number(low), _number(high))
    text = text_image(title, size, longest=width - scale.width - 4 * pad)
    band.paste(text, (pad, (band.height - text.height) // 2))
    band.paste(scale, (width - scale.width - pad, (band.height - scale.height) // 2))
    return band


def _number(value: float) -> str:
    return f"{value:.0f}" if 10 <= abs(value) < 1e5 else f"{value:.2g}"


def _scale(size: int, low: str, high: str) -> Image.Image:
    """Draw the palette from left to right, with a number at each end."""
    start, end = (text_image(text, size, longest=6 * size) for text in (low, high))
    bar, pad = _bar(4 * size, size), size // 3
    width, height = start.width + bar.width + end.width + 2 * pad, max(start.height, bar.height)
    scale = Image.new("RGB", (width, height), "white")
    scale.paste(start, (0, (height - start.height) // 2))
    scale.paste(bar, (start.width + pad, (height - bar.height) // 2))
    scale.paste(end, (width - end.width, (height - end.height) // 2))
    return scale


def _bar(width: int, height: int) -> Image.Image:
    """Draw the palette with a grey rim, because its bright end is nearly white."""
    bar = Image.new("RGB", (width, height), "grey")
    colors = np.tile(heat(np.linspace(0, 1, width - 2)), (height - 2, 1, 1))
    bar.paste(Image.fromarray(colors), (1, 1))
    return bar
