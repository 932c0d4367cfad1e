"""The documentation of options and of the webui's API matches the program."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from lib_dumpunet.app.flags import options
from lib_dumpunet.app.generate import SHARED
from lib_dumpunet.settings import (
    AttentionSettings,
    ColorSettings,
    DifferenceSettings,
    ExplorerSettings,
    FeatureSettings,
    GenerateSettings,
)
from lib_dumpunet.settings.fields import ENTRIES
from lib_dumpunet.settings.json import from_dict


def rows() -> list[str]:
    """Make the table of options from the settings."""
    lines = ["| option | label in the panel | what it is | default |", "| --- | --- | --- | --- |"]
    shown = [
        (GenerateSettings, ()),
        (FeatureSettings, ("enabled", "path")),
        (AttentionSettings, SHARED),
        (DifferenceSettings, SHARED),
        (ExplorerSettings, ()),
    ]
    for kind, skip in shown:
        for option in options(kind, skip=skip):
            text = option.help.replace("|", "\\|")
            choices = f" ({', '.join(option.choices)})" if option.choices else ""
            lines.append(f"| `--{option.flag}` | {option.label} | {text}{choices} | {option.default} |")
    return lines


def test_table_of_options_is_that_of_the_settings(root: Path) -> None:
    assert table(root, "options") == rows(), "the table should be:\n" + "\n".join(rows())


def table(root: Path, name: str) -> list[str]:
    """Read a table from the page of options."""
    page = (root / "docs" / "options.md").read_text("utf-8")
    return page.partition(f"<!-- {name}")[2].partition("-->\n")[2].partition("\n<!-- end")[0].splitlines()


def key_rows() -> list[str]:
    """Make the table of keys from the panel's controls; naming a section replaces its switch."""
    lines = ["| key | control of the panel |", "| --- | --- |"]
    labels: dict[str, str] = {}
    for entry in ENTRIES:
        section, *path = entry.path
        if section != "switch":
            formula = path[-2:-1] == ["formula"]
            key = ".".join([section, *(path[:-1] if formula else path)])
            labels.setdefault(key, "Color space" if formula else entry.label)
    return lines + [f"| `{key}` | {label} |" for key, label in labels.items()]


def test_table_of_keys_is_that_of_the_panel(root: Path) -> None:
    assert table(root, "keys") == key_rows(), "the table should be:\n" + "\n".join(key_rows())


def test_every_colour_option_can_be_set_on_the_command_line() -> None:
    flags = {option.flag for option in options(FeatureSettings)}
    assert {str(f.metadata["flag"] or f.name) for f in fields(ColorSettings)} <= flags


def test_the_request_to_the_webui_is_understood(root: Path) -> None:
    """tests/hosts/webui/test_real.py sends it to a real webui."""
    (settings,) = request_of(root)["alwayson_scripts"]["Dump U-Net"]["args"]
    read = from_dict(settings)
    assert (read.features.layers, read.features.color.method) == ("M00,OUT11", "red-blue")
    assert read.core.attention.words == "circle"
    assert read.layer_prompt.enabled


def request_of(root: Path) -> Any:
    """Extract the body from the curl command."""
    page = (root / "docs" / "webui.md").read_text("utf-8")
    return json.loads(page.partition("<!-- curl -->")[2].partition("-d '")[2].partition("'\n")[0])
