"""Read settings from JSON, and change single settings by their paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_dumpunet.errors import SettingsError
from lib_dumpunet.settings.fields import ENTRIES, NAMES, SWITCHES, Path, build, put
from lib_dumpunet.settings.tree import PanelSettings
from lib_dumpunet.settings.value import read_value


def from_dict(tree: Mapping[str, Any]) -> PanelSettings:
    """Read settings from JSON, in which every key is optional; naming a section turns it on.

    A colour's formulas may be a list of three strings, or one string separated by ``;``.

    Raises:
        SettingsError: for unknown keys and invalid values.
    """
    asked: dict[str, Any] = {}
    _merge(asked, tree, ())
    for section in tree:
        switch = SWITCHES.get(section)
        if switch is not None and "enabled" not in tree[section]:
            put(asked, switch, True)
    for section in ("features", "attention", "difference"):
        dump = asked.get(section, {}).get("dump")
        if dump is not None:
            dump.setdefault("enabled", True)
    if asked.get("difference", {}).get("enabled"):
        asked.setdefault("layer_prompt", {}).setdefault("enabled", True)
    return build(PanelSettings, asked, PanelSettings())


def override(settings: PanelSettings, changes: Mapping[str, str]) -> PanelSettings:
    """Change single settings by paths such as ``features.layers``, and turn their sections on.

    Raises:
        SettingsError: for unknown paths and invalid values.
    """
    tree: dict[str, Any] = {}
    for dotted, text in changes.items():
        entry = next((entry for entry in ENTRIES if ".".join(entry.path) == dotted), None)
        if entry is None:
            raise SettingsError(f"there is no {dotted!r}", remedy="Use a path such as features.layers.")
        if entry.section in SWITCHES:
            put(tree, SWITCHES[entry.section], True)
        put(tree, entry.path, entry.read(text))
    return build(PanelSettings, tree, settings)


def _merge(tree: dict[str, Any], given: Any, above: Path) -> None:
    """Merge a JSON dictionary into a tree of settings."""
    where = ".".join(above) or "settings"
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"{given!r} is not a dictionary", remedy="Write its settings in braces.", field=where
        )
    for name, value in given.items():
        path = SWITCHES["attention"] if (*above, name) == ("attention", "enabled") else (*above, str(name))
        below = [entry for entry in ENTRIES if entry.path[: len(path)] == path]
        if not below or (path[0] in NAMES and path != SWITCHES["attention"]):
            raise SettingsError(f"there is no {name!r}", remedy=f"There are {_known(above)}.", field=where)
        if below[0].path == path:
            put(tree, path, below[0].read(value, name=".".join((*above, name))))
        elif name == "formula":
            for i, formula in enumerate(read_value(below[0].field, value, name=".".join((*above, name)))):
                put(tree, (*path, str(i)), formula)
        else:
            put(tree, path, {})
            _merge(tree, value, path)


def _known(above: Path) -> str:
    names = dict.fromkeys(entry.path[len(above)] for entry in ENTRIES if entry.path[: len(above)] == above)
    return ", ".join(
        name for name in (*names, *(["enabled"] if above == ("attention",) else [])) if name not in NAMES
    )
