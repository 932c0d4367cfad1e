"""An independent reference: one pixel at a time, in plain Python, for float64 or float32 numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

HUE = {"hsl": lambda v, f: ((f(2) + v) / f(3), f(1), f(0.5)), "rgb": lambda v, f: (abs(v), abs(v), abs(v))}


def color_map(values: Any, color: Any, number: Any, formulas: Any = None) -> list[tuple[int, ...]]:
    """Colour one map, a flat list, with ``number`` (``float`` or ``numpy.float32``) as the arithmetic."""
    with np.errstate(all="ignore"):
        values = [number(v) for v in values]
        return [
            _pixel(v, x, color.method, number, formulas)
            for v, x in zip(values, _transform(values, color, number), strict=True)
        ]


def _transform(values: Any, color: Any, f: Any) -> list[Any]:
    if color.transform in ("auto01", "auto11"):
        return _auto(values, color.transform == "auto11", f)
    folded = color.method == "white-black"
    one = _linear if color.transform == "linear" else _sigmoid
    return [v if math.isnan(v) else one(v, color, folded, f) for v in values]


def _auto(values: Any, signed: bool, f: Any) -> list[Any]:
    if any(not math.isfinite(v) for v in values) or min(values) == max(values):
        return list(values)
    span = max(values) - min(values)
    scaled = [(v - min(values)) / span for v in values]
    return [f(2) * x - f(1) for x in scaled] if signed else scaled


def _linear(v: Any, color: Any, folded: bool, f: Any) -> Any:
    low, high = color.clamp_min, color.clamp_max
    v = min(max(v, f(low)), f(high))
    if not folded:
        return f(2) * ((v - f(low)) / f(high - low)) - f(1)
    x, y = sorted((abs(low), abs(high)))
    x = 0.0 if low < 0 < high else x
    return (abs(v) - f(x)) / f(y - x)


def _sigmoid(v: Any, color: Any, folded: bool, f: Any) -> Any:
    t = f(color.gain) * (v + f(color.offset))
    x = f(2) * (f(1) / (f(1) + _exp(-t, f)) - f(0.5))
    return abs(x) if folded else x


def _exp(t: Any, f: Any) -> Any:
    if f is np.float32:
        return np.exp(t)
    try:
        return math.exp(t)
    except OverflowError:
        return math.inf


def _pixel(v: Any, x: Any, method: str, f: Any, formulas: Any) -> tuple[int, ...]:
    if method == "white-black":
        return (level(x, f),)
    if math.isnan(v):
        return (0, 0, 0)
    if method == "red-blue":
        return (level(x, f), 0, 0) if x > 0 else (0, 0, level(abs(x), f)) if x < 0 else (0, 0, 0)
    channels = (formulas or HUE[method])(x, f)
    if method == "hsl":
        channels = hsl(*channels, f)
    return tuple(level(c, f) for c in channels)


def level(x: Any, f: Any) -> int:
    """Quantise a channel; NaN is black."""
    return 0 if math.isnan(x) else int(min(max(x * f(256), f(0)), f(255)))


def hsl(h: Any, s: Any, l: Any, f: Any) -> tuple[Any, Any, Any]:  # noqa: E741
    """Convert like ``colorsys.hls_to_rgb``, whose source this follows, in the arithmetic of ``f``."""
    if s == 0:
        return l, l, l
    m2 = l * (f(1) + s) if l <= f(0.5) else l + s - l * s
    m1 = f(2) * l - m2
    third = f(1 / 3)
    return _channel(m1, m2, h + third, f), _channel(m1, m2, h, f), _channel(m1, m2, h - third, f)


def _channel(m1: Any, m2: Any, hue: Any, f: Any) -> Any:
    if not math.isfinite(hue):
        return math.nan
    hue = hue % f(1)
    if hue < f(1 / 6):
        return m1 + (m2 - m1) * hue * f(6)
    if hue < f(0.5):
        return m2
    if hue < f(2 / 3):
        return m1 + (m2 - m1) * (f(2 / 3) - hue) * f(6)
    return m1
