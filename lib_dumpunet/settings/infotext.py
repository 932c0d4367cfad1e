"""Settings as image parameters (the webui's infotext), which the webui writes into its files and reads back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.settings.fields import DEFAULTS, PREFIX, SWITCHES, Entry, Path, entries, shown
from lib_dumpunet.settings.tree import PanelSettings


def to_infotext(settings: PanelSettings) -> dict[str, str]:
    """Return image parameters for the settings that differ from the defaults, in sections that are on."""
    return {
        entry.key: _quoted(_as_text(entry.default))
        for entry in entries(settings)
        if _is_on(settings, entry.section) and entry.is_shared and entry.default != DEFAULTS[entry.path]
    }


def _is_on(settings: PanelSettings, section: str) -> bool:
    """Whether a section is on; differences also need per-block prompts."""
    if section == "difference" and not settings.layer_prompt.enabled:
        return False
    switch = SWITCHES.get(section)
    return switch is None or bool(_get(settings, switch))


def from_infotext(parameters: Mapping[str, Any], entry: Entry) -> Any:
    """Return a control's value for an image's parameters.

    None leaves the control unchanged: the image has no parameters of this extension, or may not set this control.
    """
    if not entry.is_shared or not any(str(name).startswith(f"{PREFIX} ") for name in parameters):
        return None
    text = parameters.get(entry.key)
    if text is None and f"{entry.key}-1" in parameters:  # the webui splits any 2x3 into width and height
        text = f"{parameters[f'{entry.key}-1']}x{parameters.get(f'{entry.key}-2')}"
    try:
        return DEFAULTS[entry.path] if text is None else _shown_again(entry, text)
    except DumpUNetError:  # written by hand, or by another version
        return DEFAULTS[entry.path]


def _as_text(value: Any) -> str:
    return ";".join(value) if isinstance(value, list) else str(value)


def _quoted(text: str) -> str:
    """Quote a text that the webui would not quote, but would change on reading: it strips spaces and quotes."""
    bare = not any(sign in text for sign in ",:\n")  # the webui quotes all others
    return json.dumps(text, ensure_ascii=False) if bare and text.strip().strip('"') != text else text


def _shown_again(entry: Entry, text: Any) -> Any:
    """Convert the text of a parameter back into the control's value."""
    value = entry.read(text)
    if entry.control == "number":
        low, high = entry.field.metadata["limits"]
        return value if low <= value <= high else DEFAULTS[entry.path]
    return value if entry.path[-2] == "formula" else shown(entry.field, value)


def _get(settings: Any, path: Path) -> Any:
    for name in path:
        settings = getattr(settings, name)
    return settings
