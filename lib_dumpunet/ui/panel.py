"""The panel: four tabs, laid out from the fields of the settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.kinds import KINDS
from lib_dumpunet.settings import METHODS, TRANSFORMS, PanelSettings
from lib_dumpunet.settings.fields import Entry, Path, entries
from lib_dumpunet.ui.checks import formula_labels, key_of
from lib_dumpunet.ui.events import (
    watch_attention,
    watch_blocks,
    watch_clamp,
    watch_colors,
    watch_field,
    watch_prompt,
)
from lib_dumpunet.ui.fields import Field, element_id, make_field, tooltip
from lib_dumpunet.ui.markup import fill, message
from lib_dumpunet.ui.tables import Info, block_table

NOTATION = """
In the prompt or the negative prompt, <code>(~: blocks : text ; blocks : text :~)</code> gives each block its own text
there. <code>a (~: IN00-OUT11: cute ; M00: excellent :~) girl</code> is read as <code>a excellent girl</code> in
M00 and as <code>a cute girl</code> in every other block. <code>_</code> means all blocks not named elsewhere in the
bracket, <code>M00*0.5</code> mixes in half of the text, <code>M00@1-10</code> acts in the first ten steps,
<code>\\;</code> is a semicolon.
"""
OUTPUT = "Tick what to draw: {}.".format(
    ", ".join(f"{row.choice_help} ({row.choice_label})" for row in KINDS.values() if row.choice_label)
)
COLOR_SPACE = (
    "Color space: a formula of <code>v</code> for each channel; an empty box means the formula shown in it."
)


@dataclass(frozen=True)
class Panel:
    """The controls in the order of the settings, and their entries."""

    components: list[Any]
    entries: list[Entry]
    fields: list[Field]

    @property
    def places(self) -> list[Any]:
        """Elements for error messages, below the controls that have one."""
        return [field.message for field in self.fields if field.message is not None]

    def messages(self, error: DumpUNetError | None) -> list[str]:
        """Return the messages for ``places``: the error at its control, empty texts at the others."""
        named = [field for field in self.fields if field.message is not None]
        return [message(str(error)) if error and _is_of(error, field) else "" for field in named]


class _Builder:
    """Makes each control once, where the layout asks for it."""

    def __init__(self, tab: str, info: Info, size: Sequence[Any], defaults: PanelSettings) -> None:
        self.tab, self.info, self.size = tab, info, size
        self.entries = {entry.path: entry for entry in entries(defaults)}
        self.fields: dict[Path, Field] = {}

    def add(self, *path: str, **more: Any) -> Field:
        """Add a control here; ``more`` is passed to ``make_field``."""
        field = make_field(self.tab, self.entries[path], **more)
        self.fields[path] = field
        return field

    def id(self, section: str, name: str) -> str:
        """Return the element id of a part of the page that is not a control."""
        return f"dumpunet-{self.tab}-{section}-{name}"

    def add_rest(self, *sections: str) -> None:
        """Add the controls that the layout does not place, so that every new option appears."""
        for path in self.entries:
            if path[0] in sections and path not in self.fields:
                self.add(*path)

    def message(self, section: str, name: str) -> Any:
        """Add an element for error messages here."""
        return gr.HTML("", elem_id=self.id(section, f"{name}-message"), elem_classes=["dumpunet-message"])


def build(
    tab: str,
    info: Info,
    size: Sequence[Any] = (),
    defaults: PanelSettings | None = None,
    pages: Callable[[], str] | None = None,
) -> Panel:
    """Build the panel inside the current layout; every call makes new components.

    Args:
        tab: part of the element ids, such as ``txt2img``.
        size: the page's controls for width and height, if it has any.
        defaults: initial values of the controls.
        pages: returns links to the latest explorer pages, in HTML.
    """
    builder = _Builder(tab, info, size, defaults or PanelSettings())
    with gr.Tabs(elem_id=f"dumpunet-{tab}-tabs"):
        with gr.Tab("U-Net features", elem_id=f"dumpunet-{tab}-features"):
            _looking(builder, "features", builder.add("features", "enabled"))
            builder.add_rest("features")
        with gr.Tab("Attention", elem_id=f"dumpunet-{tab}-attention"):
            switch = builder.add("switch", "enabled")
            with gr.Column(elem_classes=["dumpunet-field"]):
                builder.add("attention", "kinds", info=OUTPUT)
                place = builder.message("attention", "output")
            _looking(builder, "attention", switch, after_steps=_attention)
            names = ("kinds", "words", "negative_words", "points")
            watch_attention([switch, *(builder.fields["attention", name] for name in names)], place)
            builder.add_rest("switch", "attention")
        with gr.Tab("Layer Prompt", elem_id=f"dumpunet-{tab}-layerprompt"):
            builder.add("layer_prompt", "enabled")
            gr.HTML(f'<p class="dumpunet-notation">{NOTATION}</p>')
            _preview(builder)
            switch = builder.add("difference", "enabled")
            builder.add("difference", "runs")
            _looking(builder, "difference", switch)
            builder.add_rest("layer_prompt", "difference")
        with gr.Tab("Settings", elem_id=f"dumpunet-{tab}-settings"):
            builder.add("output", "save")
            builder.add("output", "log")
            builder.add("explorer", "enabled")
            with gr.Row():
                builder.add("explorer", "alone")
                builder.add("explorer", "limit")
            builder.add_rest("output", "explorer")
            if pages is not None:
                _pages(builder, pages)
    _tooltips(builder)
    for field in builder.fields.values():
        if field.message is not None:
            watch_field(field, info)
    ordered = list(builder.entries.values())
    fields = [builder.fields[entry.path] for entry in ordered]
    return Panel([field.component for field in fields], ordered, fields)


def _is_of(error: DumpUNetError, field: Field) -> bool:
    """Whether an error belongs to a control, by its setting, or without one by the control's label."""
    return error.path == field.entry.path if error.path else error.field == field.entry.label


def _preview(builder: _Builder) -> None:
    """Lay out the prompt preview, which is not part of the settings."""
    with (
        gr.Accordion("What each block reads", open=False, elem_id=builder.id("layerprompt", "preview")),
        gr.Column(elem_classes=["dumpunet-field"]),
    ):
        prompt = gr.Textbox(
            label="Prompt to try",
            info="Paste a prompt here to see what each block reads; it is not used for generating.",
            lines=2,
            elem_id=builder.id("layerprompt", "preview-prompt"),
        )
        step = gr.Slider(
            minimum=1,
            maximum=150,
            step=1,
            value=1,
            label="Step to try",
            info="The sampling step to show, for texts that act only in some steps.",
            elem_id=builder.id("layerprompt", "preview-step"),
        )
        table = gr.HTML("", elem_id=builder.id("layerprompt", "preview-table"))
    watch_prompt(prompt, step, table, builder.info)


def _pages(builder: _Builder, pages: Callable[[], str]) -> None:
    """Lay out a button that shows links to explorer pages."""
    button = gr.Button("Explorer pages", elem_id=builder.id("explorer", "pages"))
    place = gr.HTML("", elem_id=builder.id("explorer", "links"))
    button.click(pages, inputs=[], outputs=[place], queue=False)


def _looking(builder: _Builder, section: str, switch: Field, after_steps: Any = None) -> None:
    """Lay out the controls that features, attention and differences share."""
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
        size = [component.value for component in builder.size]
        rows = block_table(layers.entry.default, builder.info, size)
        table = gr.HTML(rows, elem_id=builder.id(section, "info-table"))
        # The page's script presses this when the table is opened, because the model may be loaded after the page.
        again = gr.Button("Refresh", elem_classes=["dumpunet-again"])
    watch_blocks(switch, layers, again, table, builder.info, builder.size)


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
        place = builder.message(section, "clamp")
    with gr.Row(visible=what == TRANSFORMS["sigmoid"]) as sigmoid:
        builder.add(section, "color", "gain")
        builder.add(section, "color", "offset")
    channels = formula_labels(key_of(METHODS, how))
    looks = [{"label": label, "placeholder": formula} for label, formula in channels] or [{}, {}, {}]
    with gr.Column(visible=bool(channels)) as boxes:
        gr.HTML(f'<p class="dumpunet-notation">{COLOR_SPACE}</p>')
        with gr.Row():
            formulas = [
                builder.add(section, "color", "formula", str(i), **look) for i, look in enumerate(looks)
            ]
    watch_colors(method, transform, (linear, sigmoid, boxes), formulas)
    watch_clamp(low, high, place)


def _tooltips(builder: _Builder) -> None:
    """Write the tooltips into the page; a script attaches them to the controls."""
    texts = {
        element_id(builder.tab, entry): tooltip(entry) for entry in builder.entries.values() if tooltip(entry)
    }
    gr.HTML(fill("tooltips", texts=json.dumps(texts, ensure_ascii=False)))
