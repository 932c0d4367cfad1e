"""Make command line flags from the settings tree, and settings from flags."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any, TypeVar, get_type_hints

from lib_dumpunet.errors import DumpUNetError, SettingsError
from lib_dumpunet.settings import ColorSettings, ExplorerSettings, GenerateSettings, Settings
from lib_dumpunet.settings.value import read_value

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """A command line flag, and the fields of a settings class that it sets."""

    flag: str
    kind: type
    members: tuple[Field[Any], ...]

    @property
    def label(self) -> str:
        """The fields' labels in the panel."""
        return ", ".join(m.metadata["label"] for m in self.members)

    @property
    def help(self) -> str:
        """The fields' help texts."""
        return "; ".join(m.metadata["help"] for m in self.members)

    @property
    def choices(self) -> list[str]:
        """The allowed values; empty if any value is allowed."""
        return [choice for choice in self.members[0].metadata["choices"] or () if choice]

    @property
    def default(self) -> str:
        """The default as written on the command line; empty for sections that are off unless asked for."""
        if getattr(self.kind, "enabled", True) is False:
            return ""
        values: list[Any] = [m.default for m in self.members]
        if self.takes_any:
            (values,) = values
        return ",".join(f"{v:g}" if isinstance(v, float) else "" if v is None else str(v) for v in values)

    @property
    def hint(self) -> Any:
        """The type of the first field."""
        return get_type_hints(self.kind)[self.members[0].name]

    @property
    def is_list(self) -> bool:
        """Whether the flag takes several values in one text."""
        return len(self.members) > 1 or self.hint not in (str, int, float, bool)

    @property
    def takes_any(self) -> bool:
        """Whether the flag takes any number of its choices."""
        return self.is_list and bool(self.choices)


def options(kind: type, *, skip: Iterable[str] = ()) -> Iterator[Option]:
    """Yield the options of a settings class and of nested classes, except the flags in ``skip``."""
    own = [f for f in fields(kind) if "label" in f.metadata]
    for flag, members in groupby(own, key=lambda f: str(f.metadata["flag"] or f.name)):
        if flag not in skip:
            yield Option(flag, kind, tuple(members))
    for _, inner in _inner(kind):
        yield from options(inner, skip=skip)


def add_settings(parser: argparse.ArgumentParser, kind: type, *, skip: Iterable[str] = ()) -> None:
    """Add a flag for each option, grouped by settings class."""
    for group_kind, members in groupby(options(kind, skip=skip), key=lambda o: o.kind):
        group = parser.add_argument_group((group_kind.__doc__ or "").partition("\n")[0].rstrip("."))
        for option in members:
            arguments = _arguments(option)
            group.add_argument(f"--{option.flag}", **arguments)
            alias = option.members[0].metadata["alias"]
            if alias:
                dest = option.flag.replace("-", "_")
                group.add_argument(f"--{alias}", **{**arguments, "dest": dest, "help": argparse.SUPPRESS})


def read_settings(args: argparse.Namespace, kind: type[T], **fixed: Any) -> T:
    """Make settings from parsed flags; ``fixed`` sets fields of ``kind`` directly.

    Raises:
        SettingsError: for an invalid value.
    """
    values = dict(fixed)
    for option in options(kind):
        given = getattr(args, option.flag.replace("-", "_"), None)
        if option.kind is not kind or given is None or any(m.name in fixed for m in option.members):
            continue
        values.update(_read(option, given))
    for name, inner in _inner(kind):
        values.setdefault(name, read_settings(args, inner))
    return kind(**values)


def read_explorer(args: argparse.Namespace) -> ExplorerSettings:
    """Make the explorer settings from parsed flags; --html-only implies --html."""
    settings = read_settings(args, ExplorerSettings)
    return replace(settings, enabled=settings.enabled or settings.alone)


def named_by_flag(error: DumpUNetError) -> DumpUNetError:
    """Set an error's field to the flag of its setting, if it has one."""
    flag = _flags().get(error.path)
    if flag is not None:
        error.field = f"--{flag}"
    return error


@cache
def _flags() -> dict[tuple[str, ...], str]:
    """Return the flags by the paths of the settings that they set."""

    def walk(kind: type, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
        for f in fields(kind):
            if "label" in f.metadata and f.name != "path":  # dumps go to the folder of all results
                yield (*above, f.name), f.metadata["flag"] or f.name
        for name, inner in _inner(kind):
            yield from walk(inner, (*above, name))

    alone = (
        GenerateSettings,
        ColorSettings,
        ExplorerSettings,
    )  # read on their own, so their paths have no section
    return dict(pair for kind in (*alone, Settings) for pair in walk(kind, ()))


def _inner(kind: type) -> Iterator[tuple[str, type]]:
    hints = get_type_hints(kind)
    for f in fields(kind):
        if is_dataclass(hints[f.name]):
            yield f.name, hints[f.name]


def _arguments(option: Option) -> dict[str, Any]:
    """Return argparse's arguments for an option; the default is None, so that the settings' own defaults apply."""
    text = f"{option.help} (default: {option.default})" if option.default else option.help
    arguments: dict[str, Any] = {"help": text.replace("%", "%%"), "default": None}
    if option.hint is bool:
        arguments["action"] = argparse.BooleanOptionalAction
    elif option.takes_any:
        arguments["metavar"] = ",".join(option.choices)
    elif option.choices:
        arguments["metavar"] = f"{{{','.join(option.choices)}}}"
    elif len(option.members) > 1:
        arguments["metavar"] = ",".join(m.name.rpartition("_")[2].upper() for m in option.members)
    elif option.hint in (int, float):
        arguments["metavar"] = "N"
    else:
        arguments["metavar"] = '"R;G;B"' if option.is_list else option.flag.upper()
    return arguments


def _read(option: Option, given: Any) -> dict[str, Any]:
    """Read a flag's value: one value, or a value for each field, separated by commas."""
    name = f"--{option.flag}"
    if len(option.members) == 1:
        return {option.members[0].name: read_value(option.members[0], given, name=name)}
    parts = given.split(",")
    if len(parts) != len(option.members):
        raise SettingsError(
            f"{given!r} has {len(parts)} part{'s' * (len(parts) != 1)} instead of {len(option.members)}",
            remedy=f"Write them like {name}={option.default}.",
            field=name,
        )
    return {m.name: read_value(m, part, name=name) for m, part in zip(option.members, parts, strict=True)}
