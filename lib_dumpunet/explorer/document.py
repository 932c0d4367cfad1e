"""Put together the page of one image: what is told, the maps that fit, and the files of ``page/`` around them."""

from __future__ import annotations

import base64
import html
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_dumpunet.captures import Branch, Tag
from lib_dumpunet.explorer.budget import Need, Share, cost, fit_all, fit_some
from lib_dumpunet.explorer.collect import (
    DETAILS,
    LEVEL,
    SUMMARY,
    Collected,
    Collection,
    Layer,
    Name,
    Part,
)
from lib_dumpunet.explorer.layout import levels_of
from lib_dumpunet.explorer.maps import Quantised, quantise, shrink, size_at
from lib_dumpunet.image.draw import png_bytes
from lib_dumpunet.image.grammar import as_data
from lib_dumpunet.image.palette import heat
from lib_dumpunet.kinds import modes
from lib_dumpunet.ports import BatchRow, Page
from lib_dumpunet.prompt.layer_prompt import CLOSE, Template
from lib_dumpunet.prompt.plan import PromptPlan
from lib_dumpunet.settings import FORMULAS, METHODS, TRANSFORMS, ColorSettings

MEGABYTE = 1_000_000
GENERATOR = "Dump U-Net"
ROOM_FOR_MAPS = 0.94
"""Part of a page for maps; the rest is for their names and what else is told."""
SHARE_OF_SUMMARIES = 0.3
"""Part of the room that the summaries of a mode may take, of what those before it have left."""
BRANCHES: Sequence[Branch] = ("cond", "uncond")
TRIALS = 5
WORD_SIDE = 128  # places
PICTURES: Sequence[tuple[int, int]] = ((1 << 20, 95), (1024, 90), (512, 80))
"""Longest side in pixels and quality of JPEG, tried in this order where an image is too large as PNG."""
SCRIPTS = ("numbers.js", "syntax.js", "formula.js", "color.js", "data.js")
"""Scripts of their own, each after those that it uses."""
VIEWS = (
    *("state.js", "paint.js", "maps.js", "blocks.js", "detail.js", "image.js", "words.js", "prompt.js"),
    *("controls.js", "colors.js", "start.js"),
)
"""What is seen, in files that share one scope."""
_Frame = tuple[bool, int]
"""Whether it is of a hires pass, and the step."""


@dataclass(frozen=True)
class About:
    """What a page tells beside its maps.

    Attributes:
        order: names of the blocks, in forward order.
        attending: those with cross-attention.
        table: by block, its kind and shapes as the block table has them; may lack any.
        colors: how maps are coloured at first, by mode.
        average: which of the averages blocks show at first.
        parameters: what an image was made of, by label.
        plan: what blocks read, for a pass: of the hires pass if True; None where it is not known.
        no_picture: what is said where the image would be.
    """

    order: Sequence[str]
    attending: Sequence[str]
    table: Mapping[str, Mapping[str, Any]]
    colors: Mapping[str, ColorSettings]
    average: str
    parameters: Callable[[int], Mapping[str, str]]
    plan: Callable[[bool], PromptPlan | None]
    no_picture: str = "The image did not come out."


def make_page(
    image: int, picture: Image.Image | None, collection: Collection, about: About, limit: float
) -> Page:
    """Make the page of an image, of ``limit`` megabytes at most; ``picture`` is None for one that never came out.

    Raises:
        HostError: what waits on disk cannot be read.
    """
    room = limit * MEGABYTE * ROOM_FOR_MAPS
    page = _try_page(image, picture, collection, about, room)
    for _ in range(TRIALS):
        if len(page.html) <= limit * MEGABYTE:
            break
        # How far data can be compressed is an estimate.
        room *= 0.9 * limit * MEGABYTE / len(page.html)
        page = _try_page(image, picture, collection, about, room)
    return page


def _try_page(
    image: int, picture: Image.Image | None, collection: Collection, about: About, room: float
) -> Page:
    """Make a page of ``room`` bytes or somewhat more."""
    collected = collection.of(image)
    frames = sorted({(layer.hires, step) for layer, part in _parts(collected) for step in part.frames})
    shown = _encoded(picture, room / 10)
    code = {name: _read(name) for name in ("page.html", "page.css", *SCRIPTS, *VIEWS)}
    room -= sum(map(len, code.values())) + len(shown)
    store = _Store()
    words = _words(collected, store, about.parameters(image))
    chosen = _choose(collected, room * 3 / 4 - store.size)
    layers = [
        _layer(image, layer, collected, chosen, collection, store, frames)
        for layer in sorted(collected.layers)
    ]
    data = {
        "version": 1,
        "number": image,
        "size": None if picture is None else picture.size,
        "picture": shown,
        "noPicture": about.no_picture,
        "parameters": about.parameters(image),
        "prompt": _prompt(about, image),
        "frames": [{"step": step, "hires": hires} for hires, step in frames],
        **_blocks(about, image, collected, frames),
        "modes": [
            {
                "name": mode,
                "label": row.mode_label,
                "isAveraged": row.page_parts == "channels",
                "isSigned": row.drawing == "difference",
            }
            for mode, row in modes().items()
        ],
        "layers": sorted(layers, key=lambda layer: _place(about.order, layer)),
        "words": words,
        "colors": {mode: _color(color) for mode, color in about.colors.items()},
        "average": about.average,
        "palette": base64.b64encode(heat(np.linspace(0, 1, 256)).tobytes()).decode("ascii"),
        "menus": {"methods": METHODS, "transforms": TRANSFORMS, "formulas": FORMULAS},
    }
    whole = _assemble(code, data, store).encode("utf-8", "replace")
    return Page(image, whole, _sentence(image, len(whole), layers, frames))


# --- what fits -----------------------------------------------------------------------------------------------------


def _parts(collected: Collected) -> list[tuple[Layer, Part]]:
    return [(layer, part) for layer, parts in collected.layers.items() for part in parts.values()]


def _choose(collected: Collected, room: float) -> dict[tuple[Layer, str], Share]:
    """Divide the room: summaries first, mode by mode, then single channels."""
    chosen: dict[tuple[Layer, str], Share] = {}
    for mode in modes():
        keys = [(layer, SUMMARY) for layer in collected.layers if layer.mode == mode]
        needs = [_need(collected, key) for key in keys]
        shares = fit_all(needs, room * SHARE_OF_SUMMARIES)
        room -= sum(cost(need, share) for need, share in zip(needs, shares, strict=True))
        chosen |= dict(zip(keys, shares, strict=True))
    keys = [(layer, DETAILS) for layer, parts in collected.layers.items() if DETAILS in parts]
    return chosen | dict(zip(keys, fit_some([_need(collected, key) for key in keys], room), strict=True))


def _need(collected: Collected, key: tuple[Layer, str]) -> Need:
    layer, part = key
    wanted = collected.layers[layer][part]
    return Need(len(wanted.names), len(wanted.frames), wanted.size, wanted.ratio)


# --- maps ----------------------------------------------------------------------------------------------------------


class _Store:
    """Compressed data that the page unpacks when it is needed."""

    def __init__(self) -> None:
        self.blobs: list[str] = []
        self.size = 0

    def add(self, data: bytes) -> int:
        """Keep data, and give its number."""
        packed = base64.b64encode(zlib.compress(data, LEVEL)).decode("ascii")
        self.size += len(packed) * 3 // 4
        self.blobs.append(packed)
        return len(self.blobs) - 1


def _layer(
    image: int,
    layer: Layer,
    collected: Collected,
    chosen: Mapping[tuple[Layer, str], Share],
    collection: Collection,
    store: _Store,
    frames: Sequence[_Frame],
) -> dict[str, Any]:
    """Pack the maps of a layer, and tell what they are."""
    told: dict[str, Any] = {
        "mode": layer.mode,
        "hires": layer.hires,
        "block": layer.block,
        "site": layer.site,
    }
    for name, part in collected.layers[layer].items():
        share = chosen[layer, name]
        kept = np.sort(np.argsort(-part.variance, kind="stable")[: share.maps])
        steps = sorted(part.frames)[:: share.every]
        packed: list[bytes] = []
        for step in steps:
            maps = collection.read(image, layer, name, step, part.size)
            packed.append(_pack(_pick(maps, part.frames[step], kept), share))
        names = list(part.names)
        told[name] = {
            "blob": store.add(b"".join(packed)),
            **_names([names[i] for i in kept]),
            "variance": [float(f"{value:.4g}") for value in part.variance[kept]],
            "total": len(names),
            "every": share.every,
            "frames": [frames.index((layer.hires, step)) for step in steps],
            "size": share.size,
            "source": part.size,
        }
    return told


def _names(names: Sequence[Name]) -> dict[str, Any]:
    heads = [name.head for name in names]
    return {"names": [name.text for name in names], **({"heads": heads} if any(heads) else {})}


def _pick(maps: Quantised, places: NDArray[np.int64], kept: NDArray[np.int64]) -> Quantised:
    """Bring the maps of a record into the order of ``kept``; those that it lacks have no range."""
    row_of = {int(place): row for row, place in enumerate(places)}
    rows = np.array([row_of.get(int(name), -1) for name in kept], np.int64)
    there = rows >= 0
    none = np.float32(np.nan)
    return Quantised(
        np.where(there[:, None, None], maps.levels[rows], np.uint8(0)),
        np.where(there, maps.low[rows], none),
        np.where(there, maps.high[rows], none),
    )


def _pack(maps: Quantised, share: Share) -> bytes:
    """Lay maps out as the page reads them: ranges of the maps as they are here, ranges of the whole maps, levels."""
    small = shrink(maps, share.size)
    ranges = (small.low, small.high, maps.low, maps.high)
    return b"".join([*(values.astype("<f4").tobytes() for values in ranges), small.levels.tobytes()])


def _words(collected: Collected, store: _Store, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
    """Pack the maps of words, in the order of the prompts, and of points."""
    prompts = {"cond": parameters.get("Prompt", ""), "uncond": parameters.get("Negative prompt", "")}

    def place(tag: Tag) -> tuple[Any, ...]:
        return tag.kind == "point", tag.branch, prompts[tag.branch].casefold().find(tag.name), tag.name

    told = []
    for tag in sorted(collected.words, key=place):
        values = collected.words[tag]
        size = size_at((values.shape[0], values.shape[1]), WORD_SIDE)
        maps = quantise(values[None])
        blob = store.add(_pack(maps, Share(1, size)))
        told.append({"kind": tag.kind, "branch": tag.branch, "name": tag.name, "blob": blob, "size": size})
    return told


def _encoded(picture: Image.Image | None, most: float) -> str:
    """Return the image as a data address, of ``most`` bytes if that can be done: as PNG, or else as JPEG."""
    if picture is None:
        return ""
    data, kind = png_bytes(picture, {}), "png"
    for side, quality in PICTURES:
        if len(data) <= most:
            break
        small = picture.convert("RGB")
        small.thumbnail((side, side))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=quality)
        data, kind = file.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


# --- what is told --------------------------------------------------------------------------------------------------


def _blocks(about: About, image: int, collected: Collected, frames: Sequence[_Frame]) -> dict[str, Any]:
    """Describe each block: its place in the U, its layers, and what it reads in each step."""
    sizes = {layer.block: parts[SUMMARY].size for layer, parts in collected.layers.items() if not layer.hires}
    levels = levels_of(about.order, {**sizes, **_output_sizes(about.table)})
    plans = {hires: about.plan(hires) for hires in (False, True)}
    reader = _Reader(image)
    blocks = [
        {
            "name": name,
            "level": levels[name],
            "kind": about.table.get(name, {}).get("kind", ""),
            "input": about.table.get(name, {}).get("input"),
            "output": about.table.get(name, {}).get("output"),
            "heads": about.table.get(name, {}).get("heads", []),
            "attends": name in about.attending,
            "steered": [
                branch
                for branch in BRANCHES
                if any(_is_steered(p, image, branch, name) for p in plans.values())
            ],
            "reads": {
                branch: [reader.number(plans[hires], branch, name, step) for hires, step in frames]
                for branch in BRANCHES
            },
        }
        for name in about.order
    ]
    return {"blocks": blocks, "texts": list(reader.texts)}


def _is_steered(plan: PromptPlan | None, image: int, branch: Branch, block: str) -> bool:
    """Return whether a block reads something else than the main text, in some step, for this image."""
    if not _is_known(plan, branch) or block not in plan.attending:
        return False
    row, steps = BatchRow(image, branch), range(1, plan.steps + 1)
    return any(plan.own(row, block, step) is not None for step in steps)


def _is_known(plan: PromptPlan | None, branch: Branch) -> TypeGuard[PromptPlan]:
    """Return whether it is known what blocks read of the prompt, or of the negative prompt."""
    return plan is not None and bool(plan.cond if branch == "cond" else plan.uncond)


class _Reader:
    """Numbers the texts that blocks read, so that each is told once."""

    def __init__(self, image: int) -> None:
        self.texts: dict[str, int] = {}
        self._image = image

    def number(self, plan: PromptPlan | None, branch: Branch, block: str, step: int) -> int:
        """Return the number of what a block reads in a step; -1 where it reads nothing, or that is not known."""
        if not _is_known(plan, branch) or block not in plan.attending:
            return -1
        shares = plan.shares(BatchRow(self._image, branch), block, step)
        parts = [f"{100 * share.weight:.4g}% {share.text}" for share in shares]
        text = shares[0].text if len(shares) == 1 else " + ".join(parts)
        return self.texts.setdefault(text, len(self.texts))


def _output_sizes(table: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    return {name: (row["output"][1], row["output"][2]) for name, row in table.items() if row.get("output")}


def _prompt(about: About, image: int) -> list[dict[str, Any]]:
    """Cut both prompts into what is common to all blocks and what is in brackets."""
    plan = about.plan(False)
    if plan is None:
        return []
    told = []
    for branch, templates in (("cond", plan.cond), ("uncond", plan.uncond)):
        if templates:
            template = templates[0 if len(templates) == 1 else image]
            told.append({"branch": branch, "parts": pieces_of(template)})
    return told


def pieces_of(template: Template) -> list[tuple[str, bool]]:
    """Cut a prompt into its texts and brackets as they were written; True for a bracket."""
    pieces: list[tuple[str, bool]] = []
    at = 0
    for part in template.parts:
        end = at + len(part) if isinstance(part, str) else template.source.index(CLOSE, at) + len(CLOSE)
        pieces.append((template.source[at:end], not isinstance(part, str)))
        at = end
    return pieces


def _color(color: ColorSettings) -> dict[str, Any]:
    return {**asdict(color), "formula": list(color.formula) if color.formula else None}


def _place(order: Sequence[str], layer: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        list(modes()).index(layer["mode"]),
        layer["hires"],
        list(order).index(layer["block"]),
        layer["site"],
    )


def _sentence(image: int, size: int, layers: Sequence[Mapping[str, Any]], frames: Sequence[_Frame]) -> str:
    """Say how large a page is, and what it lacks."""
    details = [layer[DETAILS] for layer in layers if DETAILS in layer]
    kept, total = (
        sum(counts) for counts in ([len(d["names"]) for d in details], [d["total"] for d in details])
    )
    blocks = len({layer["block"] for layer in layers})
    counts = ", ".join(
        f"{count} {name}{'s' * (count != 1)}" for count, name in ((blocks, "block"), (len(frames), "step"))
    )
    said = f"Explorer page of image {image}: {size / MEGABYTE:.1f} MB, {counts}"
    if kept < total:
        said += f", {kept} of {total} single maps, those that vary most"
    if any(tuple(part["size"]) != tuple(part["source"]) for layer in layers for part in _told_parts(layer)):
        said += ", some at a lower resolution"
    if any(part["every"] > 1 for layer in layers for part in _told_parts(layer)):
        said += ", not all steps"
    return f"{said}."


def _told_parts(layer: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [layer[name] for name in (SUMMARY, DETAILS) if name in layer]


# --- the file ------------------------------------------------------------------------------------------------------


def _read(name: str) -> str:
    return (resources.files("lib_dumpunet.explorer") / "page" / name).read_text(encoding="utf-8")


def grammar_script() -> str:
    """Return what tells the page's scripts of formulas: the same that Python's reader goes by."""
    data = json.dumps(as_data(), separators=(",", ":")).replace("<", "\\u003c")
    return f"globalThis.DumpUNetGrammar = {data};\n"


def _assemble(code: Mapping[str, str], data: Mapping[str, Any], store: _Store) -> str:
    """Put everything into one file; nothing in the data can end the element that it is in."""
    prompt = " ".join(str(data["parameters"].get("Prompt", "")).split())
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    blobs = "\n".join(
        f'<script type="text/plain" id="blob-{number}">{blob}</script>'
        for number, blob in enumerate(store.blobs)
    )
    views = "\n".join(code[name] for name in VIEWS)
    own_scope = f'(function () {{\n"use strict";\n{views}}})();\n'
    sources = (grammar_script(), *(code[name] for name in SCRIPTS), own_scope)
    scripts = "\n".join(f"<script>\n{source}</script>" for source in sources)
    parts = {
        "title": html.escape(f"{prompt[:80]} - {GENERATOR}"),
        "style": f"<style>\n{code['page.css']}</style>",
        "data": f'<script type="application/json" id="data">{text}</script>\n{blobs}',
        "scripts": scripts,
    }
    page = code["page.html"]
    pieces: list[str] = []
    for name, part in parts.items():
        before, page = page.split(f"<!-- {name} -->")
        pieces += [before, part]
    return "".join([*pieces, page])
