"""Lay out generated images side by side, with labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from lib_dumpunet.image.labels import text_image
from lib_dumpunet.image.overlay import contact_sheet

LARGEST = 256
"""Longest side of an image in pixels; larger images are downscaled."""
SCREEN = 16 / 9
TEXT = 14
BAND = 24


def draw_gallery(images: Sequence[tuple[Image.Image, str]], columns: int | None = None) -> Image.Image:
    """Lay out one or more images of the same size row by row, with labels below them.

    Without ``columns`` the sheet gets about the aspect ratio of a screen.
    """
    cells = [_cell(image, label) for image, label in images]
    width, height = cells[0].size
    return contact_sheet(cells, columns or max(1, round(math.sqrt(SCREEN * len(cells) * height / width))))


def reduced(image: Image.Image) -> Image.Image:
    """Downscale an image to its size in a gallery."""
    scale = min(1, LARGEST / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _cell(image: Image.Image, label: str) -> Image.Image:
    small = reduced(image)
    cell = Image.new("RGB", (small.width, small.height + BAND), "white")
    cell.paste(small, (0, 0))
    text = text_image(label, TEXT, longest=cell.width)
    cell.paste(text, ((cell.width - text.width) // 2, small.height + (BAND - text.height) // 2))
    return cell
