"""Declare an option as a dataclass field, and check its choices and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, field, fields
from typing import Any

from lib_dumpunet.errors import SettingsError, within


def option(
    default: Any,
    label: str,
    help: str,
    *,
    choices: Mapping[str, str] | None = None,
    limits: tuple[float, float] | None = None,
    placeholder: str = "",
    flag: str | None = None,
    alias: str = "",
) -> Any:
    """Declare a field.

    ``choices`` maps each value to its readable name; a tuple field takes several choices. ``limits`` are inclusive.
    ``flag`` is the command line option, by default the field's name; fields with the same flag share it, their values
    joined by commas. ``alias`` is another name of the flag, hidden from help.
    """
    metadata = {
        "label": label,
        "help": help,
        "choices": choices,
        "limits": limits,
        "placeholder": placeholder,
        "flag": flag,
        "alias": alias,
    }
    return field(default=default, metadata=metadata)


def check_fields(settings: Any) -> None:
    """Check each field's value against its choices or limits.

    Raises:
        SettingsError: if a value is not allowed; it names the field's label, the value and what is allowed.
    """
    for f in fields(settings):
        value = getattr(settings, f.name)
        with within(f.name):
            if f.metadata.get("choices") is not None:
                _check_choice(f, value)
            elif f.metadata.get("limits") is not None:
                _check_limits(f, value)


def _check_choice(f: Field[Any], value: object) -> None:
    for part in value if isinstance(value, tuple) else (value,):
        if part not in f.metadata["choices"]:
            raise SettingsError(
                f"{part!r} is not one of its choices",
                remedy=f"Use {', '.join(f.metadata['choices'])}.",
                field=f.metadata["label"],
            )


def _check_limits(f: Field[Any], value: float) -> None:
    low, high = f.metadata["limits"]
    if not isinstance(value, (int, float)) or not math.isfinite(value) or not low <= value <= high:
        raise SettingsError(
            f"{value!r} is outside {low:.17g} to {high:.17g}",
            remedy=f"Use a number from {low:.17g} to {high:.17g}.",
            field=f.metadata["label"],
        )
