"""The panel on the webui's pages: with what the model, the Settings page and pasted parameters say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr

from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.hooks.shapes import BlockInfo
from lib_dumpunet.hosts.webui import compat, options
from lib_dumpunet.hosts.webui.blocks import block_table, sd1_table
from lib_dumpunet.hosts.webui.host import TITLE
from lib_dumpunet.ui.panel import Panel, build
from lib_dumpunet.unet.sites import describe
from lib_dumpunet.wire import Entry, from_infotext

FROM_PANEL = "panel"
"""Stands first among the values of the page's panel; the API may put a dictionary of settings there."""


def build_page(tab: str, size: Sequence[Any]) -> tuple[list[Any], Panel]:
    """Build the panel in the webui's page: the values that the script gets, and the panel itself."""
    marker = gr.Textbox(
        value=FROM_PANEL, label=f"{TITLE} panel", visible=False, elem_id=f"dumpunet-{tab}-marker"
    )
    marker.do_not_save_to_config = True
    panel = build(tab, blocks_of_model, size, options.default_settings())
    for component, entry in zip(panel.components, panel.entries, strict=True):
        # The webui keeps first values by label, which these share; and some have theirs on its Settings page.
        if {"color", "dump"} & set(entry.path):
            component.do_not_save_to_config = True
    return [marker, *panel.components], panel


def paste_fields(panel: Panel) -> list[tuple[Any, Callable[[Mapping[str, Any]], Any]]]:
    """Say what each control gets from the parameters of an image."""
    return [
        (component, partial(_pasted, entry=entry))
        for component, entry in zip(panel.components, panel.entries, strict=True)
        if entry.is_shared
    ]


def blocks_of_model(width: int, height: int) -> list[BlockInfo]:
    """List the blocks of the loaded model; those of SD 1.x where none is loaded, or it has none."""
    model = compat.loaded_model()
    try:
        if model is not None:
            return block_table(describe(compat.live_unet(model)), width, height)
    except (DumpUNetError, AttributeError):
        pass
    return sd1_table(width, height)


def _pasted(parameters: Mapping[str, Any], *, entry: Entry) -> Any:
    return from_infotext(parameters, entry)
