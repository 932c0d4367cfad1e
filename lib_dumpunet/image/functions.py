"""The functions that a colour formula may call: NumPy's element-wise functions, by their NumPy names.

Each entry has the number of arguments. Names that only NumPy 2 has (``asin``, ``pow``) are included, so a formula
means the same under every version. Functions that need arrays (``interp``) or more than one pixel (``mean``) are
left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Function:
    """An element-wise function, with its least and most number of arguments."""

    apply: Callable[..., Any]
    least: int
    most: int

    @property
    def arguments(self) -> str:
        """The allowed number of arguments in words, such as ``1 or 2 arguments``."""
        if self.least == self.most:
            return f"{self.least} argument{'s' * (self.least > 1)}"
        return f"{self.least} or {self.most} arguments"


def _round(value: Any, decimals: Any = None) -> Any:
    """Round half to even, to ``decimals`` places, which may be an array or negative."""
    if decimals is None:
        return np.rint(value)
    scale = np.power(np.float32(10), np.rint(decimals))
    return np.true_divide(np.rint(np.multiply(value, scale)), scale)


_UFUNCS = """
    absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh cbrt ceil copysign cos cosh deg2rad
    degrees divide equal exp exp2 expm1 fabs floor floor_divide fmax fmin fmod greater greater_equal heaviside
    hypot isfinite isinf isnan less less_equal log log10 log1p log2 logaddexp logaddexp2 logical_and
    logical_not logical_or logical_xor maximum minimum mod multiply negative nextafter not_equal positive power rad2deg
    radians reciprocal remainder rint sign signbit sin sinh spacing sqrt square subtract tan tanh true_divide
    trunc
"""

_SYNONYMS = {
    "abs": np.absolute,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "atanh": np.arctanh,
    "fix": np.trunc,
    "float_power": np.power,
    "max": np.maximum,
    "min": np.minimum,
    "pow": np.power,
}

FUNCTIONS: dict[str, Function] = {
    **{name: Function(f := getattr(np, name), f.nin, f.nin) for name in _UFUNCS.split()},
    **{name: Function(f, f.nin, f.nin) for name, f in _SYNONYMS.items()},
    "around": Function(_round, 1, 2),
    "clip": Function(np.clip, 3, 3),
    "nan_to_num": Function(np.nan_to_num, 1, 1),
    "round": Function(_round, 1, 2),
    "sinc": Function(np.sinc, 1, 1),
    "where": Function(lambda condition, then, other: np.where(np.not_equal(condition, 0), then, other), 3, 3),
}

CONSTANTS = {"pi": np.pi, "e": np.e}

# Replacements for names from other languages, and for NumPy functions that reduce an array.
ADVICE = {
    "amax": "maximum",
    "amin": "minimum",
    "ceiling": "ceil",
    "ln": "log",
    "sgn": "sign",
    "select": "where",
    "sigmoid": "1/(1+exp(-v))",
    "x": "v",
    "V": "v",
    "PI": "pi",
    "E": "e",
}

# NumPy functions that need more than one number.
_MANY = """
    all any arange argmax argmin argsort array average convolve corrcoef cov cross cumprod cumsum diff
    digitize dot gradient histogram interp linspace matmul mean median nanmax nanmean nanmin nanstd
    nansum ones percentile piecewise polyval prod ptp quantile random sort std sum take trapezoid unique
    unwrap var zeros
"""
NEEDS_MANY = frozenset(_MANY.split())
