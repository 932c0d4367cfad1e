"""One control for each field of the settings, in standard components that Gradio 3.41 and newer share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_dumpunet.settings.fields import Entry

IDS = {
    "enabled": "checkbox",
    "layers": "layer",
    "kinds": "output",
}
"""Names of fields in element ids, where they differ from the settings."""
SECTIONS = {"layer_prompt": "layerprompt", "difference": "layerprompt-diff", "output": "settings"}
RANGES: dict[str, tuple[float, float, float]] = {
    "clamp_min": (-10.0, -0.1, 0.1),
    "clamp_max": (0.1, 10.0, 0.1),
    "gain": (0.1, 10.0, 0.1),
    "offset": (-10.0, 10.0, 0.1),
    "limit": (1.0, 100.0, 1.0),
}
"""Minimum, maximum and step of sliders, narrower than the settings' limits."""
NOTATIONS = {
    "layers": "IN00 · IN00,IN01,M00 · IN00-OUT11 (both ends) · IN00-OUT11(+2) (every second) · empty: all",
    "steps": "5 · 1,5,10 · 5-20 · 5-20(+5) (every fifth) · empty: all",
    "points": "X,Y in pixels from the upper left corner, separated by spaces: 120,80 200,200",
    "words": "words or phrases of the prompt, separated by commas; empty: all except function words",
    "negative_words": "words of the negative prompt; *: all except function words; empty: none",
    "formula": "arithmetic on v: + - * / // % **, comparisons, where(), and NumPy's functions such as abs, sin, clip; "
    "pi and e",
    "path": "folder for the files; relative to the program's data folder; empty: its output folder",
}
"""Tooltips of text fields: how to write their values."""


@dataclass(frozen=True)
class Field:
    """A control, and the element below it for error messages; None if its value cannot be wrong."""

    entry: Entry
    component: Any
    message: Any = None


def element_id(tab: str, entry: Entry) -> str:
    """Return a control's element id: ``dumpunet-txt2img-features-layer``."""
    section = SECTIONS.get(entry.section, entry.section)
    names = [IDS.get(name, name).replace("_", "-") for name in entry.path[1:]]
    return "-".join(["dumpunet", tab, section, *names])


def tooltip(entry: Entry) -> str:
    """Return a text field's tooltip; empty for other controls."""
    name = "formula" if entry.path[-2] == "formula" else entry.path[-1]
    return NOTATIONS.get(name, "") if entry.control == "text" else ""


READS_MARKDOWN = int(gr.__version__.partition(".")[0]) > 4
"""Whether Gradio reads the text below a label as Markdown, in which * must be escaped."""


def make_field(tab: str, entry: Entry, **more: Any) -> Field:
    """Make the control of an entry inside the current layout; text fields get an element for messages below them.

    ``more`` overrides the component's options from the entry.
    """
    if entry.control != "text":
        return Field(entry, _component(tab, entry, more))
    with gr.Column(elem_classes=["dumpunet-field"], min_width=120):
        component = _component(tab, entry, more)
        message = gr.HTML("", elem_id=f"{element_id(tab, entry)}-message", elem_classes=["dumpunet-message"])
    return Field(entry, component, message)


def _component(tab: str, entry: Entry, more: dict[str, Any]) -> Any:
    common = {
        "label": entry.label,
        "value": entry.default,
        "elem_id": element_id(tab, entry),
        "interactive": True,
    }
    if entry.path[-2] != "formula":
        common["info"] = entry.help[:1].upper() + entry.help[1:] + "."
    common |= more
    if "info" in common and READS_MARKDOWN:
        common["info"] = str(common["info"]).replace("*", r"\*")
    if entry.control == "checkbox":
        return gr.Checkbox(**common)
    if entry.control == "choice":
        return gr.Radio(choices=list(entry.choices.values()), **common)
    if entry.control == "choices":
        return gr.CheckboxGroup(choices=list(entry.choices.values()), **common)
    if entry.control == "number":
        low, high, step = RANGES.get(entry.path[-1], (*entry.field.metadata["limits"], 1))
        return gr.Slider(minimum=low, maximum=high, step=step, **common)
    if entry.path[-2] == "formula":
        return gr.Textbox(lines=1, max_lines=1, **common)
    return gr.Textbox(lines=1, max_lines=1, placeholder=entry.field.metadata["placeholder"] or None, **common)
