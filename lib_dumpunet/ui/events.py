"""The panel's events: messages while the user types, controls that depend on choices, tables that follow them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gradio as gr

from lib_dumpunet.settings import METHODS, TRANSFORMS
from lib_dumpunet.ui import checks
from lib_dumpunet.ui.fields import Field
from lib_dumpunet.ui.markup import message
from lib_dumpunet.ui.tables import Info, block_table, order_of, text_table


def watch_field(field: Field, info: Info) -> None:
    """Show what is wrong with a text field below it, while the user types."""
    label, name = field.entry.label, field.entry.path[-1]
    known: dict[str, Callable[[str], str]] = {
        "layers": lambda text: checks.check_layers(text, order_of(info), field=label),
        "steps": partial(checks.check_steps, field=label),
        "points": checks.check_points,
        "formula": partial(checks.check_formula, field=label),
    }
    check = known.get("formula" if field.entry.path[-2] == "formula" else name)
    if check is not None:
        on_change(field.component, lambda text: message(check(text or "")), [field.component], field.message)


def watch_colors(method: Field, transform: Field, rows: Any, formulas: Sequence[Field]) -> None:
    """Show only the controls that the chosen method and transform need."""

    def show(chosen: str, changed: str) -> list[Any]:
        how = checks.key_of(TRANSFORMS, changed)
        channels = checks.formula_labels(checks.key_of(METHODS, chosen))
        boxes = [
            gr.update(label=channels[i][0], placeholder=channels[i][1]) if channels else gr.update()
            for i in range(len(formulas))
        ]
        visible = (how == "linear", how == "sigmoid", bool(channels))
        return [*(gr.update(visible=shown) for shown in visible), *boxes]

    inputs = [method.component, transform.component]
    outputs = [*rows, *(field.component for field in formulas)]
    for component in inputs:
        on_change(component, show, inputs, outputs)


def watch_clamp(low: Field, high: Field, place: Any) -> None:
    """Show what is wrong with the limits of the linear transform."""
    inputs = [low.component, high.component]
    for component in inputs:
        on_change(component, lambda a, b: message(checks.check_clamp(a, b)), inputs, place)


def watch_attention(fields: Sequence[Field], place: Any) -> None:
    """Show a message if attention is on but nothing is selected."""

    def check(on: bool, kinds: Sequence[str] | None, *texts: str | None) -> str:
        words, negative_words, points = (text or "" for text in texts)
        return message(checks.check_attention(on, kinds or (), words, negative_words, points))

    inputs = [field.component for field in fields]
    for component in inputs:
        on_change(component, check, inputs, place)


def watch_prompt(prompt: Any, step: Any, table: Any, info: Info) -> None:
    """Show what blocks read from a prompt in a step."""
    for component in (prompt, step):
        on_change(component, lambda text, at: text_table(text, info, at), [prompt, step], table)


def watch_blocks(
    switch: Field, layers: Field, again: Any, table: Any, info: Info, size: Sequence[Any]
) -> None:
    """Update the table of chosen blocks when the choice or the image size changes.

    The switch and the button ``again`` update it too, because the model may have changed since the page was loaded.
    """
    inputs = [layers.component, *size]

    def look(text: str | None, *at: Any) -> str:
        return block_table(text, info, at)

    for component in (switch.component, *inputs):
        on_change(component, look, inputs, table)
    again.click(look, inputs=inputs, outputs=[table], queue=False, show_progress="hidden")


def on_change(component: Any, call: Callable[..., Any], inputs: Sequence[Any], outputs: Any) -> None:
    """Call a function when a control changes, outside the queue and without a progress indicator.

    Old Gradio drops changes that come faster than responses, so a text box is checked again when it loses focus.
    """
    how = {"inputs": list(inputs), "outputs": outputs, "queue": False, "show_progress": "hidden"}
    component.change(call, **how)
    # With several inputs, this response could arrive after that of another control clicked in the meantime.
    if isinstance(component, gr.Textbox) and len(inputs) == 1:
        component.blur(call, **how)
