"""The benchmark compares two ways to make the same picture."""

from __future__ import annotations

import math

import numpy as np
import torch

from lib_dumpunet.app.bench.colour import _auto, _sigmoid, colour_by_pixel, measure_colour
from lib_dumpunet.image.colorize import colorize
from lib_dumpunet.settings import ColorSettings


def test_both_ways_draw_the_same() -> None:
    block = torch.randn(2, 5, 5).half()
    for transform, name in ((_auto, "auto01"), (_sigmoid, "sigmoid")):
        slow = np.array(colour_by_pixel(block, transform)).reshape(2, 5, 5, 3)
        assert np.abs(slow - colorize(block, ColorSettings(transform=name))).max() <= 1


def test_rows_are_ratios() -> None:
    rows = measure_colour(rounds=1, shape=(64, 32, 32))
    assert [row.at_least for row in rows] == [True, True, False]
    assert all(math.isfinite(row.value) and row.value > 0 for row in rows)
