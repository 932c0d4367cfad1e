"""Render a run in HTML: its progress, the preview, and all results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from markupsafe import Markup

from lib_dumpunet.app.studio.results import ORDER, Item
from lib_dumpunet.app.studio.run import Run
from lib_dumpunet.kinds import KINDS
from lib_dumpunet.ui.markup import message, templates

ADDRESS = "studio-results"
PREVIEW = "preview.jpg"
MADE = ("image", "plain")

_fill = templates(Path(__file__).parent / "templates")


class Shown(NamedTuple):
    """What the page needs of a result: addresses, and texts."""

    full: str
    small: str
    text: str
    numbers: str
    step: str
    short: str


def address(run: Run, path: str) -> str:
    """Return the URL of a run's file."""
    return f"{ADDRESS}/{run.key}/{quote(path)}"


def status(run: Run | None, ahead: int) -> str:
    """Render the progress of a run, and errors."""
    if run is None:
        return _fill("status", sentence="Ready.", bar=None, error="", notes=())
    return _fill(
        "status",
        sentence=sentence(run, ahead),
        bar=run.progress if run.state == "sampling" and run.progress.total else None,
        error=Markup(message(str(run.error))) if run.error else "",
        notes=run.messages if run.is_over else (),
    )


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
        return _fill("preview", source=f"{address(run, PREVIEW)}?{run.preview_number}")
    note = ", unfinished" * (run.state == "stopped")
    return _fill("stage", note=note, thumbs=[_large(item, run) for item in images])


def gallery(run: Run | None) -> str:
    """Render all pictures, grouped by image, kind and block, and links to explorer pages."""
    if run is None or run.folder is None:
        return ""
    items = [item for item in run.items if item.kind not in MADE]
    if not items:
        return ""
    groups = groupby(items, key=lambda item: item.image)
    images = [_of_image(image, list(of_image), run) for image, of_image in groups]
    return _fill("gallery", filters=list(_filters(items)), images=images)


def _filters(items: Sequence[Item]) -> Iterator[tuple[str, str, Iterable[str]]]:
    """Yield menus that filter the pictures, a script hides the others: name, label and values."""
    blocks = dict.fromkeys(item.block for item in items if item.kind in ORDER)
    steps = dict.fromkeys(item.step for item in items if item.step)
    images = dict.fromkeys(str(item.image) for item in items)
    menus = (("image", "Image", images), ("block", "Block or word", blocks), ("step", "Step", steps))
    return (menu for menu in menus if len(menu[2]) > 1)


def _of_image(image: int, items: Sequence[Item], run: Run) -> tuple[object, ...]:
    seed = run.seeds[image] if image < len(run.seeds) else None
    pages = [_shown(item, run) for item in items if item.kind == "page"]
    kinds = [
        _of_kind(kind, list(of_kind), run)
        for kind, of_kind in groupby((item for item in items if item.kind in ORDER), key=lambda i: i.kind)
    ]
    return image, seed, pages, kinds


def _of_kind(kind: str, items: Sequence[Item], run: Run) -> tuple[str, list[tuple[str, list[Shown]]]]:
    blocks = [
        (block, [_shown(item, run) for item in of_block])
        for block, of_block in groupby(items, key=lambda item: item.block)
    ]
    return f"{KINDS[kind].heading} ({len(items)})", blocks


def _shown(item: Item, run: Run) -> Shown:
    numbers = json.dumps(item.numbers, ensure_ascii=False)
    more = [f"step {item.step}"] if item.step else [item.block]  # the text of a word or point
    short = ", ".join(more if item.role == "whole" else [*more, item.role])
    return Shown(address(run, item.path), address(run, item.small), item.text, numbers, item.step, short)


def _large(item: Item, run: Run) -> Shown:
    shown = _shown(item, run)
    return shown._replace(small=shown.full, short="")
