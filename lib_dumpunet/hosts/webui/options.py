"""Options on the webui's Settings page, which apply to every job."""

from __future__ import annotations

from dataclasses import Field, fields, replace
from typing import Any

import gradio as gr
from modules import shared

from lib_dumpunet.hosts.common.log_capture import TITLE
from lib_dumpunet.settings import ColorSettings, DumpSettings, PanelSettings

SECTION = ("dumpunet", TITLE)
METHOD, TRANSFORM, FORMAT = "dumpunet_method", "dumpunet_transform", "dumpunet_format"
THREADS, OTHERS = "dumpunet_threads", "dumpunet_other_scripts"
MOST_THREADS = 16


def add_options() -> None:
    """Add the options to the Settings page."""
    for key, settings, name in (
        (METHOD, ColorSettings, "method"),
        (TRANSFORM, ColorSettings, "transform"),
        (FORMAT, DumpSettings, "format"),
    ):
        declared = _declared(settings, name)
        choices = list(declared.metadata["choices"].values())
        default = declared.metadata["choices"][declared.default]
        label = f"Default of {declared.metadata['label']}"
        _add(key, default, label, gr.Radio, {"choices": choices}, "takes effect with Reload UI")
    _add(
        THREADS,
        0,
        "Worker threads that draw and write",
        gr.Slider,
        {"minimum": 0, "maximum": MOST_THREADS, "step": 1},
        "0 uses the number of CPU cores, at most 4",
    )
    _add(
        OTHERS,
        True,
        "Let the panel act while another script is chosen in the Script dropdown",
        gr.Checkbox,
        {},
        "then X/Y/Z plot, Prompt matrix and other scripts also show features and use per-block prompts; set up the "
        "panel first, then choose the other script",
    )


def default_settings() -> PanelSettings:
    """Return the panel's defaults, as set on the Settings page."""
    settings = PanelSettings()
    color = replace(
        settings.features.color,
        method=_value(ColorSettings, "method", METHOD),
        transform=_value(ColorSettings, "transform", TRANSFORM),
    )
    dump = replace(settings.features.dump, format=_value(DumpSettings, "format", FORMAT))
    return replace(
        settings,
        features=replace(settings.features, color=color, dump=dump),
        attention=replace(settings.attention, color=color, dump=dump),
        difference=replace(settings.difference, color=color, dump=dump),
    )


def threads() -> int | None:
    """Return the number of worker threads; None lets the core choose."""
    return int(getattr(shared.opts, THREADS, 0) or 0) or None


def others_allowed() -> bool:
    """Return whether the panel acts while another script is chosen."""
    return bool(getattr(shared.opts, OTHERS, True))


def _declared(settings: type, name: str) -> Field[Any]:
    return next(f for f in fields(settings) if f.name == name)


def _add(key: str, default: Any, label: str, component: Any, arguments: dict[str, Any], info: str) -> None:
    option = shared.OptionInfo(default, label, component, arguments, section=SECTION)
    shared.opts.add_option(key, option.info(info))


def _value(settings: type, name: str, key: str) -> str:
    """Convert the readable name on the Settings page into the setting's value; unknown names give the default."""
    declared = _declared(settings, name)
    chosen = getattr(shared.opts, key, None)
    values = {label: value for value, label in declared.metadata["choices"].items()}
    return str(values.get(chosen, declared.default))
