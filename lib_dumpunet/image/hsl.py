"""Convert HSL to RGB on whole arrays in float32, with the same operations as ``colorsys.hls_to_rgb``."""

from __future__ import annotations

from typing import Any

import numpy as np

_THIRD, _SIXTH, _TWO_THIRDS = np.float32(1 / 3), np.float32(1 / 6), np.float32(2 / 3)
_HALF, _ONE, _TWO, _SIX = np.float32(0.5), np.float32(1), np.float32(2), np.float32(6)


def hsl_to_rgb(hue: Any, saturation: Any, lightness: Any) -> tuple[Any, Any, Any]:
    """Convert float32 arrays of the same shape, or scalars, to red, green and blue.

    The hue is in turns and wraps. A hue that is not finite gives NaN, unless the saturation is 0, where the hue is
    ignored.
    """
    s, l = saturation, lightness  # noqa: E741 - the formula's own names
    high = np.where(l <= _HALF, l * (_ONE + s), l + s - l * s).astype(np.float32, copy=False)[()]
    low = _TWO * l - high
    if np.ndim(low) == 0 and low == 0 and high == 1:
        return _pure(hue + _THIRD), _pure(hue), _pure(hue - _THIRD)
    grey = s == 0
    channels = [_channel(low, high, t) for t in (hue + _THIRD, hue, hue - _THIRD)]
    if np.any(grey):
        channels = [np.where(grey, l, channel) for channel in channels]
    return channels[0], channels[1], channels[2]


def _wrap(hue: Any) -> Any:
    """Return ``hue % 1.0``, computed several times as fast in float32."""
    whole = np.asarray(np.floor(hue))
    return np.subtract(hue, whole, out=whole)


def _channel(low: Any, high: Any, hue: Any) -> Any:
    """Return one channel: a rise over a sixth of a turn, a plateau, a fall over a sixth, and the floor."""
    hue = _wrap(hue)
    width = high - low
    # Start with the fall: it is NaN where the hue is NaN, and no comparison then replaces it.
    channel = np.asarray(low + width * (_TWO_THIRDS - hue) * _SIX)
    for where, value in (
        (hue >= _TWO_THIRDS, low),
        (hue < _HALF, high),
        (hue < _SIXTH, low + width * hue * _SIX),
    ):
        np.copyto(channel, value, where=where)
    return channel


def _pure(hue: Any) -> Any:
    """Return one channel of a pure colour, between 0 and 1, in few operations.

    With a floor of 0 and a plateau of 1, rise and fall reach the plateau's height exactly where the plateau begins
    and ends, so their minimum, clipped to [0,1], equals ``_channel(0, 1, hue)``, including rounding.
    """
    hue = _wrap(hue)
    channel = np.asarray(_TWO_THIRDS - hue)
    np.minimum(channel, hue, out=channel)
    return np.multiply(channel, _SIX, out=channel)
