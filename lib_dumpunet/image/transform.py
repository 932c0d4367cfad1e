"""Value transforms, which map a feature value to [0,1] or [-1,1] before it is coloured.

All take and return float32. White/Black shows magnitude, so its linear and sigmoid transforms use absolute values; the
other methods keep the sign.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lib_dumpunet.settings import ColorSettings

Float32 = NDArray[np.float32]

# Transforms that depend on a single value, so that equal values get equal colours in every map.
FIXED = ("linear", "sigmoid")

_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)


def transform(values: Float32, color: ColorSettings) -> Float32:
    """Apply the chosen transform to ``values`` "map pixel"; NaN stays NaN."""
    folded = color.method == "white-black"
    if color.transform == "linear":
        return linear(values, color.clamp_min, color.clamp_max, folded)
    if color.transform == "sigmoid":
        return sigmoid(values, color.gain, color.offset, folded)
    return auto(values, signed=color.transform == "auto11")


def auto(values: Float32, signed: bool) -> Float32:
    """Scale each map of ``values`` "map pixel" to [0,1], or to [-1,1] if ``signed``, by its own range.

    A map whose range is not a finite positive number is left unchanged: a constant map, one that contains NaN or
    infinity (all other values would become 0 or NaN), or one whose range overflows float32.
    """
    low = values.min(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        span = values.max(axis=1, keepdims=True) - low
    usable = np.isfinite(span) & (span > 0)
    # (v - 0) / 1 * 1 - 0 returns v bit for bit for maps left unchanged.
    result: Float32 = np.subtract(values, np.where(usable, low, np.float32(0)))
    np.divide(result, np.where(usable, span, _ONE), out=result)
    if signed:
        np.multiply(result, np.where(usable, _TWO, _ONE), out=result)
        np.subtract(result, np.where(usable, _ONE, np.float32(0)), out=result)
    return result


def linear(values: Float32, low: float, high: float, folded: bool) -> Float32:
    """Clip to ``low`` … ``high`` and map that range to [-1,1]; if ``folded``, map absolute values to [0,1]."""
    result: Float32 = np.clip(values, np.float32(low), np.float32(high))
    if folded:
        sizes = abs(low), abs(high)
        low, high = 0.0 if low * high < 0 else min(sizes), max(sizes)
        np.abs(result, out=result)
    np.subtract(result, np.float32(low), out=result)
    # Subtract before rounding: two different limits may round to the same float32.
    np.divide(result, np.float32(high - low), out=result)
    if not folded:
        np.multiply(result, _TWO, out=result)
        np.subtract(result, _ONE, out=result)
    return result


def sigmoid(values: Float32, gain: float, offset: float, folded: bool) -> Float32:
    """Map values to [-1,1] by 2·(σ(gain·(v+offset)) − ½); if ``folded``, absolute values of that to [0,1]."""
    with np.errstate(all="ignore"):
        result: Float32 = np.add(values, np.float32(offset))
        np.multiply(result, np.float32(-gain), out=result)
        np.exp(result, out=result)
        np.add(result, _ONE, out=result)
        np.divide(_ONE, result, out=result)
    np.subtract(result, _HALF, out=result)
    np.multiply(result, _TWO, out=result)
    if folded:
        np.abs(result, out=result)
    return result
