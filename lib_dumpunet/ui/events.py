"""The panel's events: messages while the user types, controls that depend on choices, the table of chosen blocks."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import gradio as gr

from lib_dumpunet.blocks import BlockOrder
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.prompt.selection import select_blocks
from lib_dumpunet.prompt.template import Share
from lib_dumpunet.settings import METHODS, TRANSFORMS
from lib_dumpunet.ui import checks
from lib_dumpunet.ui.fields import Field


class BlockRow(Protocol):
    """A row of the block table; shapes are "c h w", ``heads`` has a number for each attention layer."""

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
"""Returns the blocks of the loaded model for a width and height in pixels."""
DEFAULT_SIZE = 512


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


def text_table(prompt: str | None, info: Info, step: float | None) -> str:
    """Return an HTML table of what each block reads, or the error in the prompt; empty for an empty prompt."""
    if not prompt:
        return ""
    try:
        groups = checks.texts_of_blocks(prompt, order_of(info), int(step or 1))
    except DumpUNetError as error:
        return message(str(error))
    rows = ((blocks, "<br>".join(_shares(shares))) for blocks, shares in groups)
    body = "".join(f"<tr><td>{html.escape(blocks)}</td><td>{texts}</td></tr>" for blocks, texts in rows)
    return _table("dumpunet-texts", ("Blocks", "Text"), body)


def _shares(shares: Sequence[Share]) -> Iterable[str]:
    for share in shares:
        part = f"{100 * share.weight:.4g} % " if len(shares) > 1 else ""
        yield f"{part}<code>{html.escape(share.text)}</code>"


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


def block_table(text: str | None, info: Info, size: Sequence[Any] = ()) -> str:
    """Return the table of chosen blocks in HTML; empty if the choice has an error."""
    width, height = (int(value or DEFAULT_SIZE) for value in (*size, *(DEFAULT_SIZE,) * (2 - len(size))))
    rows = info(width, height)
    try:
        chosen = select_blocks(text or "", BlockOrder(tuple(row.block for row in rows)))
    except DumpUNetError:
        return ""
    body = "".join(f"<tr>{''.join(_cells(row))}</tr>" for row in rows if row.block in chosen)
    table = _table("dumpunet-blocks", ("Block", "Layers", "Input", "Output", "Attention"), body)
    return f"<p>{width}x{height} pixels, shapes as channels x height x width.</p>{table}"


def _table(name: str, columns: Sequence[str], body: str) -> str:
    head = "".join(f"<th>{column}</th>" for column in columns)
    return (
        f'<div class="dumpunet-table-box"><table class="dumpunet-table {name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(row: BlockRow) -> Iterable[str]:
    heads = sorted(set(row.heads))
    attention = f"{len(row.heads)} x {'/'.join(map(str, heads))} heads" if row.heads else ""
    shapes = (" x ".join(map(str, shape)) for shape in (row.input, row.output))
    for value in (row.block, row.kind, *shapes, attention):
        yield f"<td>{html.escape(value)}</td>"


def order_of(info: Info) -> BlockOrder:
    """Return the blocks of the loaded model."""
    return BlockOrder(tuple(row.block for row in info(DEFAULT_SIZE, DEFAULT_SIZE)))


def message(text: str) -> str:
    """Return an error message in HTML; empty for an empty text.

    The sentence may wrap, but the quoted line below it may not, so that the caret stays under its character.
    """
    if not text:
        return ""
    sentence, _, spot = html.escape(text).partition("\n")
    quoted = f'<span class="dumpunet-spot">{spot[:-1]}<b>{spot[-1]}</b></span>' if spot else ""
    return f'<pre class="dumpunet-error" role="alert">{sentence}{quoted}</pre>'


def on_change(component: Any, call: Callable[..., Any], inputs: Sequence[Any], outputs: Any) -> None:
    """Call a function when a control changes, outside the queue and without a progress indicator.

    Old Gradio drops changes that come faster than responses, so a text box is checked again when it loses focus.
    """
    how = {"inputs": list(inputs), "outputs": outputs, "queue": False, "show_progress": "hidden"}
    component.change(call, **how)
    # With several inputs, this response could arrive after that of another control clicked in the meantime.
    if isinstance(component, gr.Textbox) and len(inputs) == 1:
        component.blur(call, **how)
