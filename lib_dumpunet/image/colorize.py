"""Convert feature values into colours, each equal to the formula evaluated in float32.

Pixels of three channels are *packed*: one uint32 holds red, green, blue and a zero byte, in this order in
memory. A gather then moves a whole pixel, and Pillow, which also stores RGB in four bytes, takes them unchanged.

There are two methods with the same result. A 16-bit tensor has only 65,536 possible values, so if the transform
depends on a single value, a lookup table is exact and one gather colours a block. Otherwise the formula is evaluated
on chunks of maps that fit in the CPU cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lib_dumpunet.image.expression import Formula, compile_channels
from lib_dumpunet.image.hsl import hsl_to_rgb
from lib_dumpunet.image.transform import FIXED, Float32, transform
from lib_dumpunet.settings import ColorSettings

if TYPE_CHECKING:  # torch takes a second to import; drawing files works without it
    from torch import Tensor

    Numbers = Tensor | NDArray[Any]

UInt8 = NDArray[np.uint8]
Pixels = NDArray[np.uint8] | NDArray[np.uint32]

# Red is the first byte in memory on every machine.
PACKED = np.dtype("<u4")
_SIGNED = np.dtype("<i4")  # CPUs convert floats to signed integers in half the time

# Values per chunk, 128 KiB of float32: several such arrays fit in an L2 cache of 1 MiB, and the overhead of a NumPy
# call is spread over many pixels. Measured: half as many values take a third more time.
CHUNK = 32768

_GREY = "white-black"


def colorize(tensor: Numbers, color: ColorSettings) -> UInt8:
    """Colour a tensor "c h w" of any float dtype, on the CPU.

    Returns:
        "c h w" for White/Black; else "c h w 3", a view of packed pixels with a stride of four bytes.

    Raises:
        FormulaError: if a custom method's formula is not arithmetic on ``v``.
    """
    return unpack(paint(tensor, color))


def paint(tensor: Numbers, color: ColorSettings) -> Pixels:
    """Colour a tensor "c h w" as ``colorize`` does, but return colours as packed pixels "c h w"."""
    numbers, is_bfloat16 = _array(tensor)
    if numbers.dtype.itemsize == 2 and color.transform in FIXED:
        table: NDArray[Any] = color_table(color, is_bfloat16=is_bfloat16)
        return np.take(table, numbers.view(np.uint16), mode="clip")
    return _evaluate(numbers, color, is_bfloat16=is_bfloat16)


def _array(tensor: Numbers) -> tuple[NDArray[Any], bool]:
    """Return numbers as an array, and whether it has the bits of bfloat16, which NumPy lacks."""
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor), False
    tensor = tensor.detach().contiguous()
    if str(tensor.dtype) == "torch.bfloat16":
        import torch

        return tensor.view(torch.int16).numpy().view(np.uint16), True
    return tensor.numpy(), False


def _float32(numbers: NDArray[Any], *, is_bfloat16: bool) -> NDArray[np.float32]:
    """Convert to float32; bfloat16 is the upper half of float32."""
    if is_bfloat16:
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32, copy=False)


@lru_cache(maxsize=16)
def color_table(color: ColorSettings, *, is_bfloat16: bool) -> Pixels:
    """Return the pixel for each of the 65,536 values of a 16-bit dtype, in the order of their bits."""
    patterns = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    numbers = patterns if is_bfloat16 else patterns.view(np.float16)
    table = _evaluate(numbers, color, is_bfloat16=is_bfloat16).reshape(65536)
    table.setflags(write=False)
    return table


def unpack(pixels: Pixels) -> UInt8:
    """View packed pixels "..." as uint8 "... 3"; return uint8 unchanged."""
    if pixels.dtype == np.uint8:
        return pixels.view(np.uint8)
    return pixels.view(np.uint8).reshape(*pixels.shape, 4)[..., :3]


def pack(colors: Pixels) -> NDArray[np.uint32]:
    """Pack colours "... 3" into pixels "..."."""
    pixels = np.zeros(colors.shape[:-1], PACKED)
    unpack(pixels)[:] = colors
    return pixels


def _evaluate(tensor: NDArray[Any], color: ColorSettings, *, is_bfloat16: bool) -> Pixels:
    """Colour "c h w" by evaluating the formula on every value, a chunk of maps at a time."""
    maps = tensor.reshape(tensor.shape[0], -1)
    pixels = np.empty(maps.shape, np.uint8 if color.method == _GREY else PACKED)
    channels_of = _method(color)
    count = max(1, CHUNK // max(1, maps.shape[1]))
    with np.errstate(all="ignore"):
        for start in range(0, len(maps), count):
            part = _float32(maps[start : start + count], is_bfloat16=is_bfloat16)
            values = transform(part, color)
            _store(channels_of(values), pixels[start : start + count])
            if np.isnan(values.max()):
                # NaN is black even if the formula ignores v, as 1.0 does.
                pixels[start : start + count][np.isnan(values)] = 0
    return pixels.reshape(tensor.shape)


def _method(color: ColorSettings) -> Callable[[Float32], tuple[Any, ...]]:
    """Return the function from transformed values to one grey channel, or to red, green and blue."""
    if color.method == _GREY:
        return lambda x: (x,)
    if color.method == "red-blue":
        return lambda x: (x, np.float32(0), -x)  # negative channels are clipped to 0
    formulas = compile_channels(color)
    if color.method == "rgb":
        return lambda x: _values(formulas, x)
    return lambda x: hsl_to_rgb(*_values(formulas, x))


def _values(formulas: tuple[Formula, ...], x: Float32) -> tuple[Any, ...]:
    """Evaluate the formulas, equal ones only once."""
    values = {formula: formula(x) for formula in set(formulas)}
    return tuple(values[formula] for formula in formulas)


def _store(channels: tuple[Any, ...], pixels: Pixels) -> None:
    """Write channels as pixels; NaN becomes 0."""
    levels = {id(channel): _levels(channel) for channel in channels}
    if len(channels) == 1:
        pixels[...] = levels[id(channels[0])]
        return
    red, green, blue = (levels[id(channel)] for channel in channels)
    packed = pixels.view(_SIGNED)
    np.left_shift(blue, 8, out=packed)
    np.bitwise_or(packed, green, out=packed)
    np.left_shift(packed, 8, out=packed)
    np.bitwise_or(packed, red, out=packed)


def _levels(channel: Any) -> Any:
    """Scale a channel from [0,1] to integers from 0 to 255, by truncation; NaN becomes 0."""
    scaled = np.asarray(channel * np.float32(256))
    np.clip(scaled, np.float32(0), np.float32(255), out=scaled)
    if np.isnan(scaled.max()):
        scaled = np.where(np.isnan(scaled), np.float32(0), scaled)
    return scaled.astype(_SIGNED)
