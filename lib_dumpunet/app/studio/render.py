"""Render a run in HTML: its progress, the preview, and all results."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from urllib.parse import quote

from lib_dumpunet.app.studio.results import ORDER, Item
from lib_dumpunet.app.studio.run import Run
from lib_dumpunet.kinds import KINDS
from lib_dumpunet.ui.events import message

ADDRESS = "studio-results"
PREVIEW = "preview.jpg"
MADE = ("image", "plain")
IDLE = '<p class="studio-status" role="status">Ready.</p>'


def address(run: Run, path: str) -> str:
    """Return the URL of a run's file."""
    return f"{ADDRESS}/{run.key}/{quote(path)}"


def status(run: Run | None, ahead: int) -> str:
    """Render the progress of a run, and errors."""
    if run is None:
        return IDLE
    bar = ""
    if run.state == "sampling" and run.progress.total:
        done, total = run.progress.done, run.progress.total
        bar = f'<progress max="{total}" value="{done}" aria-label="Sampling steps"></progress>'
    notes = "".join(f"<li>{html.escape(text)}</li>" for text in run.messages)
    parts = [
        f'<p class="studio-status" role="status">{html.escape(sentence(run, ahead))}</p>',
        bar,
        message(str(run.error)) if run.error else "",
        f'<ul class="studio-notes">{notes}</ul>' if notes and run.is_over else "",
    ]
    return "".join(parts)


def sentence(run: Run, ahead: int) -> str:
    """Describe the progress of a run in words."""
    if run.is_stopping:
        return "Stopping ..."
    if run.state == "waiting":
        others = f"{ahead} runs are" if ahead > 1 else "one run is"
        return f"Waiting: {others} ahead." if ahead else "Waiting ..."
    if run.state == "loading":
        return "Loading the model ..."
    if run.state == "sampling":
        progress = run.progress
        if not progress.total:
            return "Sampling ..."
        left = "" if progress.left is None else f", {duration(progress.left)} left"
        return f"Step {progress.done} of {progress.total}{left}"
    if run.state == "finishing":
        return "Finishing images, pictures and files ..."
    if run.state == "failed":
        return (
            "The run failed without results."
            if not run.items
            else "The run failed; the results so far are below."
        )
    made = sum(item.kind == "image" for item in run.items)
    pictures = sum(item.kind in ORDER for item in run.items)
    counts = [f"{n} {name}{'s' * (n != 1)}" for n, name in ((made, "image"), (pictures, "picture")) if n]
    said = "Stopped; the results so far are below" if run.state == "stopped" else "Done"
    where = f", in {run.folder}" if run.folder is not None and run.request.panel.output.save else ""
    return f"{said}: {' and '.join(counts) or 'nothing'}{where}."


def duration(seconds: float) -> str:
    """Format a duration: 45 s, 2 min 5 s, 1 h 3 min."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def stage(run: Run | None) -> str:
    """Render the preview, and later all finished images."""
    if run is None or run.folder is None:
        return ""
    images = [item for item in run.items if item.kind in MADE]
    if not images:
        if not run.preview_number:
            return ""
        source = f"{address(run, PREVIEW)}?{run.preview_number}"
        return f'<div class="studio-stage"><img src="{source}" alt="Preview of the image"></div>'
    unfinished = ", unfinished" * (run.state == "stopped")
    shown = "".join(_thumb(item, run, is_large=True) for item in images)
    return f'<div class="studio-stage" data-note="{unfinished}">{shown}</div>'


def gallery(run: Run | None) -> str:
    """Render all pictures, grouped by image, kind and block, and links to explorer pages."""
    if run is None or run.folder is None:
        return ""
    items = [item for item in run.items if item.kind not in MADE]
    if not items:
        return ""
    groups = groupby(items, key=lambda item: item.image)
    sections = "".join(_of_image(image, list(of_image), run) for image, of_image in groups)
    return f'<div class="studio-gallery">{_filters(items)}{sections}</div>'


def _filters(items: Sequence[Item]) -> str:
    """Render menus that filter the pictures; a script hides the others."""
    blocks = dict.fromkeys(item.block for item in items if item.kind in ORDER)
    steps = dict.fromkeys(item.step for item in items if item.step)
    images = dict.fromkeys(str(item.image) for item in items)
    menus = (("image", "Image", images), ("block", "Block or word", blocks), ("step", "Step", steps))
    return "".join(
        [
            '<div class="studio-filters">',
            *(_menu(name, label, list(values)) for name, label, values in menus if len(values) > 1),
            "</div>",
        ]
    )


def _menu(name: str, label: str, values: Iterable[str]) -> str:
    options = "".join(f"<option>{html.escape(value)}</option>" for value in values)
    return (
        f'<label>{label} <select data-filter="{name}"><option value="">all</option>{options}</select></label>'
    )


def _of_image(image: int, items: Sequence[Item], run: Run) -> str:
    seed = f", seed {run.seeds[image]}" if image < len(run.seeds) else ""
    links = "".join(
        f'<a class="studio-page" href="{address(run, item.path)}" target="_blank" rel="noopener" '
        f'title="{html.escape(item.text)}">Open the explorer page</a>'
        for item in items
        if item.kind == "page"
    )
    seen = [item for item in items if item.kind in ORDER]
    kinds = "".join(
        _of_kind(kind, list(of_kind), run) for kind, of_kind in groupby(seen, key=lambda i: i.kind)
    )
    return f'<section data-image="{image}"><h2>Image {image}{seed} {links}</h2>{kinds}</section>'


def _of_kind(kind: str, items: Sequence[Item], run: Run) -> str:
    blocks = "".join(
        f'<div class="studio-block" data-block="{html.escape(block)}"><h3>{html.escape(block)}</h3>'
        f'<div class="studio-thumbs">{"".join(_thumb(item, run) for item in of_block)}</div></div>'
        for block, of_block in groupby(items, key=lambda item: item.block)
    )
    return f"<details open><summary>{KINDS[kind].heading} ({len(items)})</summary>{blocks}</details>"


def _thumb(item: Item, run: Run, *, is_large: bool = False) -> str:
    """Render a picture that a click enlarges."""
    numbers = html.escape(json.dumps(item.numbers, ensure_ascii=False), quote=True)
    small, whole = address(run, item.path if is_large else item.small), address(run, item.path)
    text = html.escape(item.text, quote=True)
    short = "" if is_large else f"<span>{html.escape(_short(item))}</span>"
    return (
        f'<button type="button" class="studio-thumb" data-full="{whole}" data-text="{text}" data-numbers="{numbers}" '
        f'data-step="{html.escape(item.step)}"><img src="{small}" alt="{text}" loading="lazy">{short}</button>'
    )


def _short(item: Item) -> str:
    more = [f"step {item.step}"] if item.step else [item.block]  # the text of a word or point
    return ", ".join(more if item.role == "whole" else [*more, item.role])
