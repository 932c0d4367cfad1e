"""Generated images side by side, each with a label."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from lib_dumpunet.image.labels import text_image
from lib_dumpunet.image.overlay import contact_sheet

LARGEST = 256
"""Pixels of an image's longer side; larger ones are reduced."""
SCREEN = 16 / 9
TEXT = 14
BAND = 24


def draw_gallery(images: Sequence[tuple[Image.Image, str]], columns: int | None = None) -> Image.Image:
    """Lay out images of one size row by row, their labels below; at least one.

    Without ``columns`` the sheet becomes about as wide as a screen.
    """
    cells = [_cell(image, label) for image, label in images]
    width, height = cells[0].size
    return contact_sheet(cells, columns or max(1, round(math.sqrt(SCREEN * len(cells) * height / width))))


def reduced(image: Image.Image) -> Image.Image:
    """Bring an image to the size that it has in a gallery."""
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
