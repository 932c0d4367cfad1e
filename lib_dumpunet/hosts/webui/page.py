"""The panel on the webui's pages, connected to the loaded model, the Settings page and pasted parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from lib_dumpunet.hosts.common.log_capture import TITLE
from lib_dumpunet.hosts.webui import options, pages
from lib_dumpunet.hosts.webui.blocks import blocks_of_model
from lib_dumpunet.settings.fields import Entry
from lib_dumpunet.settings.infotext import from_infotext
from lib_dumpunet.ui.panel import Panel, build

FROM_PANEL = "panel"
"""First of the panel's values, to distinguish them from the API's, whose first value is a dictionary of settings."""


def build_page(tab: str, size: Sequence[Any]) -> tuple[list[Any], Panel]:
    """Build the panel in the webui's page; return the script's inputs and the panel."""
    marker = gr.Textbox(
        value=FROM_PANEL, label=f"{TITLE} panel", visible=False, elem_id=f"dumpunet-{tab}-marker"
    )
    marker.do_not_save_to_config = True
    panel = build(tab, blocks_of_model, size, options.default_settings(), pages=pages.links)
    for component, entry in zip(panel.components, panel.entries, strict=True):
        # The webui saves defaults by label, which these share; some also have defaults on its Settings page.
        if {"color", "dump"} & set(entry.path):
            component.do_not_save_to_config = True
    return [marker, *panel.components], panel


class Parameter(str):
    """The name of an image parameter; called with all parameters, it returns the value for its control.

    The webui calls it when it reads the parameters of an image. It goes by the name when it sends the panel's values
    from one page to the other.
    """

    entry: Entry

    def __new__(cls, entry: Entry) -> Parameter:
        """Make the name of a control's parameter."""
        parameter = super().__new__(cls, entry.key)
        parameter.entry = entry
        return parameter

    def __call__(self, parameters: Mapping[str, Any]) -> Any:
        """Return the value for the control."""
        return from_infotext(parameters, self.entry)


def paste_fields(panel: Panel) -> list[tuple[Any, Parameter]]:
    """Return the controls with the parameters that fill them, from an image or from the webui's other page."""
    return [
        (component, Parameter(entry))
        for component, entry in zip(panel.components, panel.entries, strict=True)
        if entry.is_shared
    ]
