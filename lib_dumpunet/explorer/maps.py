"""Compress maps for a page: quantise each to 256 levels between its minimum and maximum, and downscale it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width of a map."""

TOP = 255
_NONE = np.float32(np.nan)


class Quantised(NamedTuple):
    """Maps "map h w" as levels, from 0 for ``low`` to 255 for ``high``, which are float32 "map".

    A map with NaN or infinity, or whose range overflows, has NaN for both.
    """

    levels: UInt8
    low: Float32
    high: Float32


def quantise(values: Float32) -> Quantised:
    """Quantise each map of ``values`` "map h w"; the error is at most 1/510 of its range."""
    low, high = values.min((1, 2)), values.max((1, 2))
    with np.errstate(all="ignore"):
        step = (high - low) / np.float32(TOP)
        whole = np.isfinite(step)
        scaled = (values - low[:, None, None]) / np.where(whole & (step > 0), step, 1)[:, None, None]
        # A range may be too small to divide by 255.
        scaled = np.where((values == high[:, None, None]) & (high > low)[:, None, None], TOP, np.rint(scaled))
    levels = np.where(whole[:, None, None], scaled, 0).clip(0, TOP).astype(np.uint8)
    return Quantised(levels, np.where(whole, low, _NONE), np.where(whole, high, _NONE))


def dequantise(maps: Quantised) -> Float32:
    """Return the values that levels stand for, with the same float32 operations as the page."""
    low, high = maps.low[:, None, None], maps.high[:, None, None]
    with np.errstate(all="ignore"):
        step = (high - low) / np.float32(TOP)
        values = low + maps.levels.astype(np.float32) * step
    return np.where(maps.levels == TOP, high, values)


def size_at(size: Size, side: int) -> Size:
    """Return the size of a map downscaled so that its longer side is at most ``side``."""
    longer = max(size)
    if longer <= side:
        return size
    height, width = (max(1, round(length * side / longer)) for length in size)
    return height, width


def shrink(maps: Quantised, size: Size) -> Quantised:
    """Downscale maps by averaging."""
    if maps.levels.shape[1:] == size:
        return maps
    values = torch.from_numpy(dequantise(maps))
    return quantise(torch.nn.functional.adaptive_avg_pool2d(values, size).numpy())


def as_maps(tensor: Tensor) -> Float32:
    """Return a tensor "... h w" of any float dtype as float32 "map h w"."""
    values: Float32 = tensor.detach().float().flatten(0, -3).contiguous().numpy()
    return values
