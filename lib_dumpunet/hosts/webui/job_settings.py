"""Find a job's settings: in the panel, in the API's request, or in an axis of a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lib_dumpunet.errors import SettingsError
from lib_dumpunet.hosts.webui import axes, options
from lib_dumpunet.hosts.webui.page import FROM_PANEL
from lib_dumpunet.settings import PanelSettings
from lib_dumpunet.settings.fields import ENTRIES, unpack
from lib_dumpunet.settings.json import from_dict

REQUEST = "dumpunet_settings"
"""Attribute of the webui's job that holds the settings from the panel."""


def settings_of(p: Any, given: Any, panel: Any) -> PanelSettings | None:
    """Find a job's settings: from the panel, from the API, from the panel next to another script, or from an axis.

    Args:
        given: the API's value for the always-on script.
        panel: the panel's script; None if the page has none.

    Raises:
        SettingsError: for the first mistake.
    """
    settings: PanelSettings | None = getattr(p, REQUEST, None)
    if settings is None and given:
        settings = _from_api(given)
    if settings is None and options.others_allowed():
        settings = _beside_another_script(p, panel)
    if axes.has_changes(p):
        settings = axes.changed(settings or options.default_settings(), p)
    return settings


def read_arguments(args: tuple[Any, ...]) -> PanelSettings:
    """Read the panel's values, or the dictionary of settings that the API gave instead.

    Raises:
        SettingsError: for the first mistake.
    """
    first = args[0] if args else None
    if isinstance(first, Mapping):
        return from_dict(first)
    if first == FROM_PANEL:
        return unpack(args[1 : 1 + len(ENTRIES)])
    raise SettingsError(
        "there are no settings",
        remedy='Give one dictionary, such as [{"features": {"layers": "M00", "steps": "10"}}].',
        field="script_args",
    )


def _from_api(given: Any) -> PanelSettings:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise SettingsError(
                "args of alwayson_scripts is not JSON", remedy="Give a dictionary.", field="args"
            ) from error
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"{given!r} is not a dictionary of settings",
            remedy='Write {"args": [{"features": {"layers": "M00"}}]}.',
            field="args",
        )
    return from_dict(given)


def _beside_another_script(p: Any, panel: Any) -> PanelSettings | None:
    """Read the panel's values if another script is selected; None otherwise."""
    if panel is None or not other_script(p, panel):
        return None
    values = tuple(p.script_args[panel.args_from : panel.args_to])
    return read_arguments(values) if values and values[0] == FROM_PANEL else None


def other_script(p: Any, panel: Any) -> bool:
    """Return whether a script other than the panel is selected."""
    chosen = p.script_args[0] if p.script_args else 0
    selectable = getattr(p.scripts, "selectable_scripts", [])
    if not isinstance(chosen, int) or not 0 < chosen <= len(selectable):
        return False
    return selectable[chosen - 1] is not panel
