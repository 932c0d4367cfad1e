"""Convert values from any interface into settings, with the same rules and messages everywhere."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import Field
from typing import Any, Literal

from lib_dumpunet.errors import SettingsError

Control = Literal["checkbox", "text", "choice", "choices", "number", "formulas"]
"""The type of control that shows an option."""


def control_of(f: Field[Any]) -> Control:
    """Return the type of control for an option."""
    if f.name == "formula":
        return "formulas"
    if f.metadata["choices"]:
        return "choices" if isinstance(f.default, tuple) else "choice"
    if isinstance(f.default, bool):
        return "checkbox"
    return "number" if f.metadata["limits"] else "text"


def read_value(f: Field[Any], value: Any, *, name: str = "") -> Any:
    """Convert an option's value from a control, a flag or a file, or a text that stands for it, into the setting.

    Args:
        name: the option's name in messages; its label if empty.
    Raises:
        SettingsError: if the value does not fit.
    """
    control = control_of(f)
    if control == "checkbox":
        return _flag(value, name or f.metadata["label"])
    if control == "number":
        return _number(f, value, name or f.metadata["label"])
    if control == "choice":
        return _choice(f.metadata["choices"], value, name or f.metadata["label"])
    if control == "choices":
        return _choices(f.metadata["choices"], value, name or f.metadata["label"])
    if control == "formulas":
        return _formulas(value, name or f.metadata["label"])
    return read_text(value, name or f.metadata["label"])


def read_text(value: Any, name: str) -> str:
    """Return a text; None becomes an empty text.

    Raises:
        SettingsError: if the value is not a text.
    """
    if value is None or isinstance(value, str):
        return value or ""
    raise SettingsError(f"{value!r} is not a text", remedy="Write it in quotes.", field=name)


def _flag(value: Any, name: str) -> bool:
    if isinstance(value, bool) or value is None:
        return bool(value)
    known = {"true": True, "false": False}.get(str(value).strip().lower())
    if known is None:
        raise SettingsError(f"{value!r} is neither true nor false", remedy="Use true or false.", field=name)
    return known


def _number(f: Field[Any], value: Any, name: str) -> float:
    what = "a whole number" if isinstance(f.default, int) else "a number"
    remedy = f"Write one, such as {f.default:g}."
    text = re.sub(r"\s", "", str("" if value is None else value))
    if not text:
        raise SettingsError("a number is missing", remedy=remedy, field=name)
    wrong = SettingsError(f"{value!r} is not {what}", remedy=remedy, field=name)
    try:
        number = math.nan if isinstance(value, bool) else float(text)
    except ValueError:
        raise wrong from None
    if not math.isfinite(number):
        raise wrong
    if not isinstance(f.default, int):
        return number
    if number != int(number):
        raise wrong
    return int(number)


def _choice(choices: Mapping[str, str], value: Any, name: str) -> str:
    """Find a choice by its value or its readable name, ignoring case."""
    wanted = str(value).strip().lower()
    for known, shown in choices.items():
        if wanted in (known.lower(), shown.lower()):
            return known
    raise SettingsError(f"{value!r} is not one of its choices", remedy=f"Use {_listed(choices)}.", field=name)


def _choices(choices: Mapping[str, str], value: Any, name: str) -> tuple[str, ...]:
    parts = re.split("[;,]", value) if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple, type(None))):
        raise SettingsError(f"{value!r} is not a list", remedy=f"Use {_listed(choices)}.", field=name)
    return tuple(dict.fromkeys(_choice(choices, part, name) for part in parts or () if str(part).strip()))


def _listed(choices: Mapping[str, str]) -> str:
    return ", ".join(filter(None, choices))


def _formulas(value: Any, name: str) -> tuple[str, str, str]:
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or len(parts) != 3 or not all(isinstance(p, str) for p in parts):
        raise SettingsError(
            f"{value!r} is not three formulas", remedy='Write "(2+v)/3; 1.0; 0.5".', field=name
        )
    first, second, third = (part.strip() for part in parts)
    return first, second, third
