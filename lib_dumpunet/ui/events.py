"""What happens on the page: messages as one types, controls that a choice needs, the table of chosen blocks."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import gradio as gr

from lib_dumpunet.blocks import BlockOrder
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.prompt.selection import select_blocks
from lib_dumpunet.settings import METHODS, TRANSFORMS
from lib_dumpunet.ui import checks
from lib_dumpunet.ui.fields import Field


class BlockRow(Protocol):
    """What the table says of a block; shapes are "c h w", ``heads`` by attention layer."""

    @property
    def block(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def input(self) -> tuple[int, ...]: ...
    @property
    def output(self) -> tuple[int, ...]: ...
    @property
    def heads(self) -> tuple[int, ...]: ...


Info = Callable[[int, int], Sequence[BlockRow]]
"""Gives the blocks of the loaded model for a width and height in pixels."""
DEFAULT_SIZE = 512


def watch_field(field: Field, info: Info) -> None:
    """Say below a text field what is wrong with it, as one types."""
    label, name = field.entry.label, field.entry.path[-1]
    check: Callable[[str], str]
    if name == "layers":
        check = lambda text: checks.check_layers(text, order_of(info), field=label)  # noqa: E731
    elif name == "steps":
        check = lambda text: checks.check_steps(text, field=label)  # noqa: E731
    elif name == "points":
        check = checks.check_points
    elif field.entry.path[-2] == "formula":
        check = lambda text: checks.check_formula(text, field=label)  # noqa: E731
    else:
        return
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
    """Say what is wrong with the limits of the linear transform."""
    inputs = [low.component, high.component]
    for component in inputs:
        on_change(component, lambda a, b: message(checks.check_clamp(a, b)), inputs, place)


def watch_blocks(layers: Field, table: Any, info: Info, size: Sequence[Any]) -> None:
    """Keep the table of the chosen blocks that of the model, the size and the text."""
    inputs = [layers.component, *size]
    for component in inputs:
        on_change(component, lambda text, *at: block_table(text, info, at), inputs, table)


def block_table(text: str | None, info: Info, size: Sequence[Any] = ()) -> str:
    """Write the table of the chosen blocks in HTML; nothing while the choice is wrong."""
    width, height = (int(value or DEFAULT_SIZE) for value in (*size, *(DEFAULT_SIZE,) * (2 - len(size))))
    rows = info(width, height)
    try:
        chosen = select_blocks(text or "", BlockOrder(tuple(row.block for row in rows)))
    except DumpUNetError:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("Block", "Layers", "Input", "Output", "Attention"))
    body = "".join(f"<tr>{''.join(_cells(row))}</tr>" for row in rows if row.block in chosen)
    return (
        f"<p>{width}x{height} pixels, shapes as channels x height x width.</p>"
        f'<div class="dumpunet-blocks-box"><table class="dumpunet-blocks"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(row: BlockRow) -> Iterable[str]:
    heads = sorted(set(row.heads))
    attention = f"{len(row.heads)} x {'/'.join(map(str, heads))} heads" if row.heads else ""
    shapes = (" x ".join(map(str, shape)) for shape in (row.input, row.output))
    for value in (row.block, row.kind, *shapes, attention):
        yield f"<td>{html.escape(value)}</td>"


def order_of(info: Info) -> BlockOrder:
    """Give the blocks of the loaded model."""
    return BlockOrder(tuple(row.block for row in info(DEFAULT_SIZE, DEFAULT_SIZE)))


def message(text: str) -> str:
    """Write what is wrong in HTML, its caret under the character it means; nothing for nothing."""
    return f'<pre class="dumpunet-error" role="alert">{html.escape(text)}</pre>' if text else ""


def on_change(component: Any, call: Callable[..., Any], inputs: Sequence[Any], outputs: Any) -> None:
    """Call a function whenever a control changes, out of turn and without a sign of progress.

    Old Gradio drops changes that come faster than answers do, so a text is looked at once more when it is left.
    """
    how = {"inputs": list(inputs), "outputs": outputs, "queue": False, "show_progress": "hidden"}
    component.change(call, **how)
    if isinstance(component, gr.Textbox):
        component.blur(call, **how)
