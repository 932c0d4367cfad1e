"""The panel's controls, one for each field of ``PanelSettings``, and their values as a flat list.

Controls hold the readable names of choices; a colour's formulas have three text controls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from lib_dumpunet.errors import SettingsError, within
from lib_dumpunet.settings.tree import FORMULAS, ColorSettings, PanelSettings
from lib_dumpunet.settings.value import Control, control_of, read_text, read_value

Path = tuple[str, ...]
PREFIX = "Dump U-Net"
SWITCHES: Mapping[str, Path] = {
    "features": ("features", "enabled"),
    "attention": ("switch", "enabled"),
    "layer_prompt": ("layer_prompt", "enabled"),
    "difference": ("difference", "enabled"),
    "explorer": ("explorer", "enabled"),
}
"""The switch that turns each section on."""
NAMES = {"switch": "attention"}
"""Sections that users know by another name."""
HIDDEN = {("attention", "heat")}
"""Sections without controls in the panel."""
UNSHARED = {"path"}
"""Fields that image parameters neither contain nor set: a stranger's image must not choose where files are written."""
CHANNELS = ("R / H", "G / S", "B / L")


@dataclass(frozen=True)
class Entry:
    """One control of the panel.

    Attributes:
        path: of the field in the settings; for a formula, followed by the channel's index.
        default: the control's initial value.
    """

    path: Path
    field: Field[Any]
    control: Control
    default: Any

    @property
    def section(self) -> str:
        """The section of the settings that it belongs to."""
        return NAMES.get(self.path[0], self.path[0])

    @property
    def label(self) -> str:
        """The control's label."""
        if self.path[-2] == "formula":
            return f"Color space {CHANNELS[int(self.path[-1])]}"
        return str(self.field.metadata["label"])

    @property
    def help(self) -> str:
        """The control's help text."""
        return str(self.field.metadata["help"])

    @property
    def choices(self) -> Mapping[str, str]:
        """Readable names by value."""
        return self.field.metadata["choices"] or {}

    @property
    def key(self) -> str:
        """Name in an image's parameters: only letters and spaces, as the webui's parser requires."""
        words = [self.section, *self.path[1:]]
        return f"{PREFIX} {' '.join(words).replace('_', ' ')}"

    def read(self, value: Any, *, name: str = "") -> Any:
        """Convert the control's value, or a text that stands for it, into the setting.

        Raises:
            SettingsError: if the value does not fit; the error names ``name``, or else the control's label.
        """
        if self.control == "text":
            return read_text(value, name or self.label)
        return read_value(self.field, value, name=name)

    @property
    def is_shared(self) -> bool:
        """Whether an image's parameters contain it."""
        return self.path[-1] not in UNSHARED and self.path[-2:] != ("dump", "enabled")


def entries(defaults: PanelSettings) -> list[Entry]:
    """List the panel's controls in order, with their initial values."""
    return list(_entries(defaults, ()))


def _entries(settings: Any, above: Path) -> Iterator[Entry]:
    for f in fields(settings):
        path = (*above, f.name)
        value = getattr(settings, f.name)
        if path in HIDDEN:
            continue
        if is_dataclass(value):
            yield from _entries(value, path)
        elif f.name == "formula":
            for i, formula in enumerate(value or ("", "", "")):
                yield Entry((*path, str(i)), f, "text", formula)
        else:
            yield Entry(path, f, control_of(f), shown(f, value))


def shown(f: Field[Any], value: Any) -> Any:
    """Convert a setting into its control's value."""
    names = f.metadata["choices"]
    if names and isinstance(value, tuple):
        return [names[one] for one in value]
    return names[value] if names else value


ENTRIES: Sequence[Entry] = tuple(entries(PanelSettings()))
"""The panel's controls in order."""
DEFAULTS: Mapping[Path, Any] = {entry.path: entry.default for entry in ENTRIES}
"""Values that image parameters omit; a page may start with other values."""


def pack(settings: PanelSettings) -> list[Any]:
    """Convert settings into the values of the controls, in the order of ``ENTRIES``."""
    return [entry.default for entry in entries(settings)]


def unpack(values: Sequence[Any]) -> PanelSettings:
    """Convert the values of the controls, in the order of ``ENTRIES``, into settings.

    Raises:
        SettingsError: for an invalid value; the error names its control.
    """
    if len(values) != len(ENTRIES):
        raise SettingsError(
            f"the panel sent {len(values)} values, not {len(ENTRIES)}",
            remedy="Reload the page.",
        )
    tree: dict[str, Any] = {}
    for entry, value in zip(ENTRIES, values, strict=True):
        with within(*entry.path):
            put(tree, entry.path, entry.read(value))
    return build(PanelSettings, tree, PanelSettings())


def build(kind: Any, tree: Mapping[str, Any], base: Any) -> Any:
    """Build settings from ``tree``; fields that it lacks keep their value in ``base``."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for f in fields(kind):
        if f.name not in tree:
            continue
        given = tree[f.name]
        if is_dataclass(hints[f.name]):
            with within(f.name):
                values[f.name] = build(hints[f.name], given, getattr(base, f.name))
        elif f.name == "formula":
            method = tree.get("method", base.method)
            values[f.name] = _formula(given, method, base)
        else:
            values[f.name] = given
    if isinstance(base, ColorSettings) and values.get("method", base.method) != base.method:
        values.setdefault("formula", None)  # another method's formulas mean something else
    return dataclasses.replace(base, **values)


def _formula(parts: Mapping[str, str], method: str, base: ColorSettings) -> tuple[str, str, str] | None:
    """Join the formulas of three channels; empty ones take the method's default. None if the method has no formulas."""
    known = base.formula if method == base.method else None
    given = [parts.get(str(i), known[i] if known else "").strip() for i in range(3)]
    own = FORMULAS.get(method)
    if own is None or not any(given):
        return None
    first, second, third = (text or default for text, default in zip(given, own, strict=True))
    return first, second, third


def put(tree: dict[str, Any], path: Path, value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    if value == {} and path[-1] in tree:
        return
    tree[path[-1]] = value
