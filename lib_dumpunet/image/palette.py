"""The palette of heatmaps, from dark to bright: black, purple, magenta, orange, pale yellow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Chosen so that the lightness (CIE L*) rises in nearly equal steps of about 12: equal differences look equal, and the
# order is visible even in greyscale print.
ANCHORS = (
    (0, 0, 0),
    (36, 11, 64),
    (84, 14, 107),
    (138, 24, 124),
    (190, 40, 112),
    (230, 77, 82),
    (249, 130, 50),
    (253, 190, 84),
    (255, 247, 196),
)


def heat(x: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Colour values "..." in [0,1] as red, green and blue "... 3"; values outside are clamped."""
    places = np.linspace(0, 1, len(ANCHORS))
    colors = np.empty((*x.shape, 3), np.uint8)
    for channel, levels in enumerate(zip(*ANCHORS, strict=True)):
        colors[..., channel] = np.rint(np.interp(x, places, levels))
    return colors
