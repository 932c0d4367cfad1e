"""The panel: four tabs, laid out from the entries of the wire."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_dumpunet.settings import METHODS, TRANSFORMS, PanelSettings
from lib_dumpunet.ui.checks import formula_labels, key_of
from lib_dumpunet.ui.events import (
    Info,
    block_table,
    watch_blocks,
    watch_clamp,
    watch_colors,
    watch_field,
)
from lib_dumpunet.ui.fields import Field, element_id, make_field, tooltip
from lib_dumpunet.wire import Entry, Path, entries

NOTATION = """
In the prompt or the negative prompt, <code>(~: blocks : text ; blocks : text :~)</code> gives each block a text of its
own at that place. <code>a (~: IN00-OUT11: cute ; M00: excellent :~) girl</code> is read as
<code>a excellent girl</code> in M00 and as <code>a cute girl</code> in every other block. <code>_</code> stands for all
blocks that nothing else in the bracket names, <code>M00*0.5</code> mixes half of it in, <code>M00@1-10</code> acts in
the first ten steps, <code>\\;</code> is a semicolon.
"""


@dataclass(frozen=True)
class Panel:
    """The controls, in the order of the wire, and the entries that they stand for."""

    components: list[Any]
    entries: list[Entry]


class _Builder:
    """Makes each control once, where the layout asks for it."""

    def __init__(self, tab: str, info: Info, size: Sequence[Any], defaults: PanelSettings) -> None:
        self.tab, self.info, self.size = tab, info, size
        self.entries = {entry.path: entry for entry in entries(defaults)}
        self.fields: dict[Path, Field] = {}

    def add(self, *path: str, **more: Any) -> Field:
        """Put a control here; ``more`` as ``make_field`` has it."""
        field = make_field(self.tab, self.entries[path], **more)
        self.fields[path] = field
        return field

    def id(self, section: str, name: str) -> str:
        """Name a part of the page that is no control."""
        return f"dumpunet-{self.tab}-{section}-{name}"


def build(tab: str, info: Info, size: Sequence[Any] = (), defaults: PanelSettings | None = None) -> Panel:
    """Build the panel inside the current layout; everything is made anew at each call.

    Args:
        tab: part of the element ids, such as ``txt2img``.
        size: the page's controls of width and height, if it has some.
        defaults: what the controls hold at first.
    """
    builder = _Builder(tab, info, size, defaults or PanelSettings())
    with gr.Tabs(elem_id=f"dumpunet-{tab}-tabs"):
        with gr.Tab("U-Net features", elem_id=f"dumpunet-{tab}-features"):
            builder.add("features", "enabled")
            _looking(builder, "features")
        with gr.Tab("Attention", elem_id=f"dumpunet-{tab}-attention"):
            builder.add("switch", "enabled")
            builder.add("attention", "kinds")
            _looking(builder, "attention", after_steps=_attention)
        with gr.Tab("Layer Prompt", elem_id=f"dumpunet-{tab}-layerprompt"):
            builder.add("layer_prompt", "enabled")
            gr.HTML(f'<p class="dumpunet-notation">{NOTATION}</p>')
            builder.add("difference", "enabled")
            _looking(builder, "difference")
        with gr.Tab("Settings", elem_id=f"dumpunet-{tab}-settings"):
            builder.add("output", "save")
            builder.add("output", "log")
    _tooltips(builder)
    for field in builder.fields.values():
        if field.message is not None:
            watch_field(field, info)
    ordered = list(builder.entries.values())
    return Panel([builder.fields[entry.path].component for entry in ordered], ordered)


def _looking(builder: _Builder, section: str, after_steps: Any = None) -> None:
    """Lay out what features, attention and differences have in common."""
    with gr.Row():
        layers = builder.add(section, "layers")
        builder.add(section, "steps")
    if after_steps is not None:
        after_steps(builder)
    builder.add(section, "average")
    with gr.Accordion("Colorization", open=False, elem_id=builder.id(section, "colorization")):
        _colors(builder, section)
    with gr.Accordion("Dump Setting", open=False, elem_id=builder.id(section, "dump")):
        builder.add(section, "dump", "enabled")
        builder.add(section, "dump", "format")
        builder.add(section, "dump", "path")
    with gr.Accordion("Selected Layer Info", open=False, elem_id=builder.id(section, "info")):
        text = layers.entry.default
        table = gr.HTML(block_table(text, builder.info), elem_id=builder.id(section, "info-table"))
    watch_blocks(layers, table, builder.info, builder.size)


def _attention(builder: _Builder) -> None:
    with gr.Row():
        builder.add("attention", "words")
        builder.add("attention", "negative_words")
    with gr.Row():
        builder.add("attention", "points")
        builder.add("attention", "lattice")


def _colors(builder: _Builder, section: str) -> None:
    method = builder.add(section, "color", "method")
    transform = builder.add(section, "color", "transform")
    how, what = builder.entries[method.entry.path].default, builder.entries[transform.entry.path].default
    with gr.Column(visible=what == TRANSFORMS["linear"]) as linear:
        with gr.Row():
            low = builder.add(section, "color", "clamp_min")
            high = builder.add(section, "color", "clamp_max")
        place = gr.HTML("", elem_classes=["dumpunet-message"])
    with gr.Row(visible=what == TRANSFORMS["sigmoid"]) as sigmoid:
        builder.add(section, "color", "gain")
        builder.add(section, "color", "offset")
    channels = formula_labels(key_of(METHODS, how))
    looks = [{"label": label, "placeholder": formula} for label, formula in channels] or [{}, {}, {}]
    with gr.Row(visible=bool(channels)) as boxes:
        formulas = [builder.add(section, "color", "formula", str(i), **look) for i, look in enumerate(looks)]
    watch_colors(method, transform, (linear, sigmoid, boxes), formulas)
    watch_clamp(low, high, place)


def _tooltips(builder: _Builder) -> None:
    """Leave the tooltips in the page; a script puts them on the controls."""
    texts = {
        element_id(builder.tab, entry): tooltip(entry) for entry in builder.entries.values() if tooltip(entry)
    }
    data = html.escape(json.dumps(texts, ensure_ascii=False), quote=True)
    gr.HTML(f'<div class="dumpunet-tooltips" data-tooltips="{data}" hidden></div>', visible=True)
