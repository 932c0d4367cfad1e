"""The settings tree as flags of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import Field, fields, is_dataclass
from itertools import groupby
from typing import Any, TypeVar, get_type_hints

from lib_dumpunet.errors import SettingsError

T = TypeVar("T")
SEPARATOR = {True: ";", False: ","}
"""Formulas hold commas, so they are told apart by semicolons; numbers by commas."""


def add_settings(parser: argparse.ArgumentParser, kind: type, *, skip: Iterable[str] = ()) -> None:
    """Add a flag for each option of a settings class and of the classes in it; ``skip`` names flags to leave out."""
    group = parser.add_argument_group((kind.__doc__ or "").partition("\n")[0].partition(":")[0].rstrip("."))
    for flag, members in _flags(kind):
        if flag not in skip:
            _add(group, flag, members, get_type_hints(kind))
    for _, inner in _inner(kind):
        add_settings(parser, inner, skip=skip)


def read_settings(args: argparse.Namespace, kind: type[T], **fixed: Any) -> T:
    """Make the settings from parsed flags; ``fixed`` gives fields of ``kind`` that have no flag.

    Raises:
        SettingsError: for a value that the settings refuse.
    """
    values = dict(fixed)
    for flag, members in _flags(kind):
        given = getattr(args, flag.replace("-", "_"), None)
        if given is None or any(m.name in fixed for m in members):
            continue
        if len(members) == 1 and not _is_list(members[0], kind):
            values[members[0].name] = given
        else:
            values.update(_split(flag, members, given, kind))
    for name, inner in _inner(kind):
        values.setdefault(name, read_settings(args, inner))
    return kind(**values)


def _flags(kind: type) -> Iterator[tuple[str, list[Field[Any]]]]:
    """List the flags of a class with the fields that share each."""
    options = [f for f in fields(kind) if "label" in f.metadata]
    for flag, members in groupby(options, key=lambda f: str(f.metadata["flag"] or f.name)):
        yield flag, list(members)


def _inner(kind: type) -> Iterator[tuple[str, type]]:
    hints = get_type_hints(kind)
    for f in fields(kind):
        if is_dataclass(hints[f.name]):
            yield f.name, hints[f.name]


def _is_list(member: Field[Any], kind: type) -> bool:
    return get_type_hints(kind)[member.name] not in (str, int, float, bool)


def _add(group: argparse._ArgumentGroup, flag: str, members: list[Field[Any]], hints: dict[str, Any]) -> None:
    first = members[0]
    hint = hints[first.name]
    text = "; ".join(m.metadata["help"] for m in members)
    default = ",".join(f"{m.default:g}" if isinstance(m.default, float) else str(m.default) for m in members)
    if default not in ("", "None"):
        text += f" (default: {default})"
    options: dict[str, Any] = {"help": text.replace("%", "%%"), "default": None}
    if hint is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif first.metadata["choices"] is not None:
        options["choices"] = [c for c in first.metadata["choices"] if c]
    elif len(members) > 1:
        options["metavar"] = ",".join(m.name.rpartition("_")[2].upper() for m in members)
    elif hint in (int, float):
        options |= {"type": hint, "metavar": "N"}
    else:
        options["metavar"] = '"R;G;B"' if hint is not str else flag.upper()
    group.add_argument(f"--{flag}", **options)


def _split(flag: str, members: list[Field[Any]], given: str, kind: type) -> dict[str, Any]:
    """Take a flag's text apart: numbers for several fields, or the formulas of a single one."""
    texts = len(members) == 1
    parts = [part.strip() for part in given.split(SEPARATOR[texts])]
    wanted = 3 if texts else len(members)
    if len(parts) != wanted:
        example = (
            str(members[0].metadata["placeholder"]) if texts else ",".join(f"{m.default:g}" for m in members)
        )
        raise SettingsError(
            f"{given!r} has {len(parts)} part{'s' * (len(parts) != 1)} instead of {wanted}",
            remedy=f'Write them as in --{flag}="{example}".',
            field=f"--{flag}",
        )
    if texts:
        return {members[0].name: tuple(parts)}
    return {m.name: _number(part, flag) for m, part in zip(members, parts, strict=True)}


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingsError(
            f"{text!r} is not a number", remedy="Write it as 0.5.", field=f"--{flag}"
        ) from None
