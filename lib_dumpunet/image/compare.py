"""Compare two images of the same size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lib_dumpunet.image.overlay import draw_overlay


def draw_change(before: Image.Image, after: Image.Image) -> Image.Image:
    """Draw how much each pixel changed (mean over red, green and blue, 0 to 255), with a colour scale."""
    change = np.abs(_levels(after) - _levels(before)).mean(-1)
    return draw_overlay(None, torch.from_numpy(change), "change, of 255")


def pixel_distance(before: Image.Image, after: Image.Image) -> float:
    """Return the root mean square difference over all pixels and channels, on a scale of 0 to 255."""
    return float(np.sqrt(np.square(_levels(after) - _levels(before)).mean()))


def _levels(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image.convert("RGB"), np.float32)
