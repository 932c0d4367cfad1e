"""Measure how fast blocks are coloured, compared with one pixel at a time and with a bare gather."""

from __future__ import annotations

import colorsys
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.image.colorize import paint
from lib_dumpunet.settings import ColorSettings

_FASTER = 200.0  # than one pixel at a time
_OF_GATHER = 3.0  # times a bare gather of the same size
_RGB = tuple[int, int, int]


def measure_colour(rounds: int = 5, shape: Sequence[int] = (320, 64, 64)) -> list[Row]:
    """Colour a half-precision block with the default formulas in all variants by turns, and compare the best times.

    Times are of the thread, because colouring uses one thread and other work must not count. One pixel at a time
    takes seconds, so it is measured on a sixteenth of the maps and multiplied.
    """
    block = _block(shape)
    part = block[: max(1, shape[0] // 16)]
    table, patterns = np.arange(65536, dtype=np.uint32), block.view(torch.int16).numpy().view(np.uint16)
    auto, sigmoid = ColorSettings(transform="auto01"), ColorSettings(transform="sigmoid")
    ways: dict[str, Callable[[], Any]] = {
        "gather": lambda: np.take(table, patterns),
        "auto": lambda: paint(block, auto),
        "sigmoid": lambda: paint(block, sigmoid),
        "auto, by pixel": lambda: colour_by_pixel(part, _auto),
        "sigmoid, by pixel": lambda: colour_by_pixel(part, _sigmoid),
    }
    best = _best_times(ways, rounds)
    scale = len(block) / len(part)
    return [
        *(
            Row(
                f"colour HSL {name}, speed of one pixel at a time",
                best[f"{name}, by pixel"] * scale / best[name],
                "x",
                _FASTER,
                True,
            )
            for name in ("auto", "sigmoid")
        ),
        Row(
            "colour HSL sigmoid, time of one gather", best["sigmoid"] / best["gather"], "x", _OF_GATHER, False
        ),
    ]


def colour_by_pixel(block: Tensor, transform: Callable[[list[float]], list[float]]) -> list[list[_RGB]]:
    """Colour "c h w" with the default HSL formulas and ``colorsys``, pixel by pixel."""
    return [[_pixel(x) for x in transform(values.flatten().tolist())] for values in block.float()]


def _pixel(v: float) -> _RGB:
    red, green, blue = colorsys.hls_to_rgb((2 + v) / 3, 0.5, 1.0)
    return _level(red), _level(green), _level(blue)


def _level(x: float) -> int:
    return int(min(max(x * 256, 0), 255))


def _auto(values: list[float]) -> list[float]:
    low, span = min(values), max(values) - min(values)
    return [(v - low) / span for v in values]


def _sigmoid(values: list[float]) -> list[float]:
    return [2 * (1 / (1 + math.exp(-v)) - 0.5) for v in values]


def _block(shape: Sequence[int]) -> Tensor:
    """Make a block of half-precision noise, as varied as a real block."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).half()


def _best_times(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Run the variants by turns and return the shortest time of each, in seconds; a first round warms up tables."""
    best = dict.fromkeys(ways, math.inf)
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.thread_time()
            way()
            if turn:
                best[name] = min(best[name], time.thread_time() - start)
    return best
