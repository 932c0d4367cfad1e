"""Settings as panels and files carry them: Gradio's flat list of values, JSON, and the webui's parameters of an image.

The only module that knows these. An entry is one field of ``PanelSettings`` as people see it: choices by their readable
names, the formulas of a colour as three texts.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import Any, Literal, get_type_hints

from lib_dumpunet.errors import DumpUNetError, SettingsError, within
from lib_dumpunet.settings import FORMULAS, ColorSettings, PanelSettings

Path = tuple[str, ...]
Control = Literal["checkbox", "text", "choice", "choices", "number"]
PREFIX = "Dump U-Net"
SWITCHES: Mapping[str, Path] = {
    "features": ("features", "enabled"),
    "attention": ("switch", "enabled"),
    "layer_prompt": ("layer_prompt", "enabled"),
    "difference": ("difference", "enabled"),
    "explorer": ("explorer", "enabled"),
}
"""What has to be on for a section to count."""
NAMES = {"switch": "attention"}
"""Sections that people know by another name."""
HIDDEN = {("attention", "heat")}
"""Sections that a panel has no controls for."""
UNSHARED = {"path"}
"""Fields that no image tells, and that none can set: a stranger's image must not choose where files are written."""
CHANNELS = ("R / H", "G / S", "B / L")


@dataclass(frozen=True)
class Entry:
    """One control of the panel.

    Attributes:
        path: of the field in the settings; the formulas have the channel's number behind it.
        default: what the control holds at first.
    """

    path: Path
    field: Field[Any]
    control: Control
    default: Any

    @property
    def section(self) -> str:
        """Part of the settings that it belongs to."""
        return NAMES.get(self.path[0], self.path[0])

    @property
    def label(self) -> str:
        """Name for people."""
        if self.path[-2] == "formula":
            return f"Color space {CHANNELS[int(self.path[-1])]}"
        return str(self.field.metadata["label"])

    @property
    def help(self) -> str:
        """What it is for."""
        return str(self.field.metadata["help"])

    @property
    def choices(self) -> Mapping[str, str]:
        """Readable names by value."""
        return self.field.metadata["choices"] or {}

    @property
    def key(self) -> str:
        """Name among the parameters of an image: letters and blanks, as the webui's reader asks."""
        words = [self.section, *self.path[1:]]
        return f"{PREFIX} {' '.join(words).replace('_', ' ')}"

    @property
    def is_shared(self) -> bool:
        """Tell whether the parameters of an image have it."""
        return self.path[-1] not in UNSHARED and self.path[-2:] != ("dump", "enabled")


def entries(defaults: PanelSettings) -> list[Entry]:
    """List the controls of the panel in their order, with the values that they begin with."""
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
            yield Entry(path, f, _control(f, value), _shown(f, value))


def _control(f: Field[Any], value: Any) -> Control:
    if f.metadata["choices"]:
        return "choices" if isinstance(value, tuple) else "choice"
    if isinstance(value, bool):
        return "checkbox"
    return "number" if f.metadata["limits"] else "text"


def _shown(f: Field[Any], value: Any) -> Any:
    """Turn a setting into what a control holds."""
    names = f.metadata["choices"]
    if names and isinstance(value, tuple):
        return [names[one] for one in value]
    return names[value] if names else value


ENTRIES: Sequence[Entry] = tuple(entries(PanelSettings()))
"""The controls of the panel in their order."""
DEFAULTS: Mapping[Path, Any] = {entry.path: entry.default for entry in ENTRIES}
"""What an image leaves out; a page may begin with other values."""


def pack(settings: PanelSettings) -> list[Any]:
    """List what the controls hold that stand for settings."""
    return [entry.default for entry in entries(settings)]


def unpack(values: Sequence[Any]) -> PanelSettings:
    """Read the settings off the values of the controls, in the order of ``ENTRIES``.

    Raises:
        SettingsError: for a value that the settings refuse, with the name of its control.
    """
    if len(values) != len(ENTRIES):
        raise SettingsError(
            f"the panel sent {len(values)} values where {len(ENTRIES)} are expected",
            remedy="Reload the page.",
        )
    tree: dict[str, Any] = {}
    for entry, value in zip(ENTRIES, values, strict=True):
        with within(*entry.path):
            _put(tree, entry.path, _read(entry, value))
    return _build(PanelSettings, tree, PanelSettings())


def from_dict(tree: Mapping[str, Any]) -> PanelSettings:
    """Read settings from JSON, in which everything may be left out; a section that is named is on.

    The formulas of a colour may be a list of three texts, or one with ``;`` between them.

    Raises:
        SettingsError: for what there is not, and for values that the settings refuse.
    """
    asked: dict[str, Any] = {}
    _merge(asked, tree, ())
    for section in tree:
        switch = SWITCHES.get(section)
        if switch is not None and "enabled" not in tree[section]:
            _put(asked, switch, True)
    for section in ("features", "attention", "difference"):
        dump = asked.get(section, {}).get("dump")
        if dump is not None:
            dump.setdefault("enabled", True)
    if asked.get("difference", {}).get("enabled"):
        asked.setdefault("layer_prompt", {}).setdefault("enabled", True)
    return _build(PanelSettings, asked, PanelSettings())


def override(settings: PanelSettings, changes: Mapping[str, str]) -> PanelSettings:
    """Change single settings, by paths such as ``features.layers``, and turn their sections on.

    Raises:
        SettingsError: for what there is not, and for values that the settings refuse.
    """
    tree: dict[str, Any] = {}
    for dotted, text in changes.items():
        entry = next((entry for entry in ENTRIES if ".".join(entry.path) == dotted), None)
        if entry is None:
            raise SettingsError(f"there is no {dotted!r}", remedy="Use a path such as features.layers.")
        if entry.section in SWITCHES:
            _put(tree, SWITCHES[entry.section], True)
        _put(tree, entry.path, _read(entry, text))
    return _build(PanelSettings, tree, settings)


def to_infotext(settings: PanelSettings) -> dict[str, str]:
    """Write what differs from the defaults, of the sections that are on, as parameters of an image."""
    return {
        entry.key: _quoted(_as_text(entry.default))
        for entry in entries(settings)
        if _is_on(settings, entry.section) and entry.is_shared and entry.default != DEFAULTS[entry.path]
    }


def _is_on(settings: PanelSettings, section: str) -> bool:
    """Tell whether a section counts; differences are between images with and without per-block prompts."""
    if section == "difference" and not settings.layer_prompt.enabled:
        return False
    switch = SWITCHES.get(section)
    return switch is None or bool(_get(settings, switch))


def from_infotext(parameters: Mapping[str, Any], entry: Entry) -> Any:
    """Give what a control is to hold for the parameters of an image.

    None leaves it as it is: if the image has no parameters of this kind at all, or none may tell this one.
    """
    if not entry.is_shared or not any(str(name).startswith(f"{PREFIX} ") for name in parameters):
        return None
    text = parameters.get(entry.key)
    if text is None and f"{entry.key}-1" in parameters:  # the webui takes any 2x3 for a width and a height
        text = f"{parameters[f'{entry.key}-1']}x{parameters.get(f'{entry.key}-2')}"
    try:
        return DEFAULTS[entry.path] if text is None else _shown_again(entry, text)
    except DumpUNetError:  # written by hand, or by another version
        return DEFAULTS[entry.path]


def _as_text(value: Any) -> str:
    return ";".join(value) if isinstance(value, list) else str(value)


def _quoted(text: str) -> str:
    """Quote a text that the webui would leave bare, but not read back: it strips blanks and a pair of quotes."""
    bare = not any(sign in text for sign in ",:\n")  # the webui quotes all others
    return json.dumps(text, ensure_ascii=False) if bare and text.strip().strip('"') != text else text


def _shown_again(entry: Entry, text: Any) -> Any:
    """Turn a text that stands for a control's value into that value."""
    value = _read(entry, text)
    if entry.control == "number":
        low, high = entry.field.metadata["limits"]
        return (
            value if low <= value <= high else DEFAULTS[entry.path]
        )  # no number at all, too, is not between
    return value if entry.path[-2] == "formula" else _shown(entry.field, value)


def _read(entry: Entry, value: Any) -> Any:
    """Turn what a control holds, or a text for it, into the setting.

    Raises:
        SettingsError: if it is something else.
    """
    if entry.control == "checkbox":
        return _as_bool(entry, value)
    if entry.control == "number":
        return _as_number(entry, value)
    if entry.control == "choice":
        return _value_of(entry, value)
    if entry.control == "choices":
        return _as_choices(entry, value)
    return _text(entry.label, value)


def _as_bool(entry: Entry, value: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return bool(value)
    known = {"true": True, "false": False}.get(str(value).strip().lower())
    if known is None:
        raise SettingsError(
            f"{value!r} is neither true nor false", remedy="Use true or false.", field=entry.label
        )
    return known


def _as_choices(entry: Entry, value: Any) -> tuple[str, ...]:
    parts = re.split("[;,]", value) if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple, type(None))):
        raise SettingsError(
            f"{value!r} is not a list", remedy=f"Use {', '.join(entry.choices)}.", field=entry.label
        )
    return tuple(dict.fromkeys(_value_of(entry, part) for part in parts or () if str(part).strip()))


def _as_number(entry: Entry, value: Any) -> float:
    whole = isinstance(entry.default, int)
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
        if whole and number == int(number):
            return int(number)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or whole:
        what = "a whole number" if whole else "a number"
        raise SettingsError(f"{value!r} is not {what}", remedy="Write one.", field=entry.label)
    return number


def _value_of(entry: Entry, value: Any) -> str:
    """Find a choice by its value or its readable name, whatever the case of its letters."""
    wanted = str(value).strip().lower()
    for known, name in entry.choices.items():
        if wanted in (known.lower(), name.lower()):
            return known
    raise SettingsError(
        f"{value!r} is not one of its choices",
        remedy=f"Use {', '.join(entry.choices)}.",
        field=entry.label,
    )


def _text(label: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise SettingsError(f"{value!r} is not a text", remedy="Write it in quotes.", field=label)


def _build(kind: Any, tree: Mapping[str, Any], base: Any) -> Any:
    """Make settings from what is given, and from ``base`` for the rest."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for f in fields(kind):
        if f.name not in tree:
            continue
        given = tree[f.name]
        if is_dataclass(hints[f.name]):
            with within(f.name):
                values[f.name] = _build(hints[f.name], given, getattr(base, f.name))
        elif f.name == "formula":
            method = tree.get("method", base.method)
            values[f.name] = _formula(given, method, base)
        else:
            values[f.name] = given
    if isinstance(base, ColorSettings) and values.get("method", base.method) != base.method:
        values.setdefault("formula", None)  # those of another method mean something else
    return dataclasses.replace(base, **values)


def _formula(parts: Mapping[str, str], method: str, base: ColorSettings) -> tuple[str, str, str] | None:
    """Join the formulas of three channels; those left empty are the method's own, which none has but custom ones."""
    known = base.formula if method == base.method else None
    given = [parts.get(str(i), known[i] if known else "").strip() for i in range(3)]
    own = FORMULAS.get(method)
    if own is None or not any(given):
        return None
    first, second, third = (text or default for text, default in zip(given, own, strict=True))
    return first, second, third


def _merge(tree: dict[str, Any], given: Any, above: Path) -> None:
    """Read a dictionary of JSON into a tree of settings."""
    where = ".".join(above) or "settings"
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"{given!r} is no dictionary", remedy="Write its settings in braces.", field=where
        )
    for name, value in given.items():
        path = SWITCHES["attention"] if (*above, name) == ("attention", "enabled") else (*above, str(name))
        below = [entry for entry in ENTRIES if entry.path[: len(path)] == path]
        if not below or (path[0] in NAMES and path != SWITCHES["attention"]):
            raise SettingsError(f"there is no {name!r}", remedy=f"There are {_known(above)}.", field=where)
        if below[0].path == path:
            _put(tree, path, _read_named((*above, name), below[0], value))
        elif name == "formula":
            for i, formula in enumerate(_three((*above, name), value)):
                _put(tree, (*path, str(i)), formula)
        else:
            _put(tree, path, {})
            _merge(tree, value, path)


def _read_named(path: Path, entry: Entry, value: Any) -> Any:
    """Read a value of JSON, which people know by its path."""
    try:
        return _read(entry, value)
    except SettingsError as error:
        error.field = ".".join(path)
        raise


def _known(above: Path) -> str:
    names = dict.fromkeys(entry.path[len(above)] for entry in ENTRIES if entry.path[: len(above)] == above)
    return ", ".join(
        name for name in (*names, *(["enabled"] if above == ("attention",) else [])) if name not in NAMES
    )


def _three(path: Path, value: Any) -> Sequence[str]:
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or len(parts) != 3 or not all(isinstance(p, str) for p in parts):
        raise SettingsError(
            f"{value!r} is not three formulas",
            remedy='Write ["(2+v)/3", "1.0", "0.5"].',
            field=".".join(path),
        )
    return [part.strip() for part in parts]


def _put(tree: dict[str, Any], path: Path, value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    if value == {} and path[-1] in tree:
        return
    tree[path[-1]] = value


def _get(settings: Any, path: Path) -> Any:
    for name in path:
        settings = getattr(settings, name)
    return settings
