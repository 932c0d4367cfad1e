"""Make the page of one image: its facts, the maps that fit, and the files of ``page/``."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_dumpunet.captures import Tag
from lib_dumpunet.explorer.about import About, Frame, told_blocks, told_color, told_prompt
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
from lib_dumpunet.explorer.file import encoded, put_together, read_code
from lib_dumpunet.explorer.maps import Quantised, quantise, shrink, size_at
from lib_dumpunet.image.palette import heat
from lib_dumpunet.kinds import modes
from lib_dumpunet.ports import Page
from lib_dumpunet.settings import FORMULAS, METHODS, TRANSFORMS

MEGABYTE = 1_000_000
ROOM_FOR_MAPS = 0.94
"""Fraction of a page's bytes for maps; the rest is for their names and other data."""
SHARE_OF_SUMMARIES = 0.3
"""Fraction of the remaining bytes that the summaries of a mode may take."""
TRIALS = 5
WORD_SIDE = 128  # pixels


def make_page(
    image: int, picture: Image.Image | None, collection: Collection, about: About, limit: float
) -> Page:
    """Make the page of an image, of at most ``limit`` megabytes; ``picture`` is None if the image was not finished.

    Raises:
        HostError: if maps cannot be read back from disk.
    """
    room = limit * MEGABYTE * ROOM_FOR_MAPS
    page = _try_page(image, picture, collection, about, room)
    for _ in range(TRIALS):
        if len(page.html) <= limit * MEGABYTE:
            break
        # The compression ratio was only an estimate.
        room *= 0.9 * limit * MEGABYTE / len(page.html)
        page = _try_page(image, picture, collection, about, room)
    return page


def _try_page(
    image: int, picture: Image.Image | None, collection: Collection, about: About, room: float
) -> Page:
    """Make a page of about ``room`` bytes, possibly more."""
    collected = collection.of(image)
    frames = sorted({(layer.hires, step) for layer, part in _parts(collected) for step in part.frames})
    shown = encoded(picture, room / 10)
    code = read_code()
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
        "prompt": told_prompt(about, image),
        "frames": [{"step": step, "hires": hires} for hires, step in frames],
        **told_blocks(about, image, collected, frames),
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
        "colors": {mode: told_color(color) for mode, color in about.colors.items()},
        "average": about.average,
        "palette": base64.b64encode(heat(np.linspace(0, 1, 256)).tobytes()).decode("ascii"),
        "menus": {"methods": METHODS, "transforms": TRANSFORMS, "formulas": FORMULAS},
    }
    whole = put_together(code, data, store.blobs).encode("utf-8", "replace")
    return Page(image, whole, _sentence(image, len(whole), layers, frames))


# --- what fits -----------------------------------------------------------------------------------------------------


def _parts(collected: Collected) -> list[tuple[Layer, Part]]:
    return [(layer, part) for layer, parts in collected.layers.items() for part in parts.values()]


def _choose(collected: Collected, room: float) -> dict[tuple[Layer, str], Share]:
    """Divide ``room`` bytes: summaries first, mode by mode, then single maps."""
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
    """Compressed data that the page decompresses on demand."""

    def __init__(self) -> None:
        self.blobs: list[str] = []
        self.size = 0

    def add(self, data: bytes) -> int:
        """Add data and return its number."""
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
    frames: Sequence[Frame],
) -> dict[str, Any]:
    """Pack the maps of a layer and describe them."""
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
    """Reorder the maps of a record to ``kept``; the range of missing maps is NaN."""
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
    """Serialise maps as the page reads them: ranges of the downscaled maps, ranges of the original maps, levels."""
    small = shrink(maps, share.size)
    ranges = (small.low, small.high, maps.low, maps.high)
    return b"".join([*(values.astype("<f4").tobytes() for values in ranges), small.levels.tobytes()])


def _words(collected: Collected, store: _Store, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
    """Pack the maps of words, in prompt order, and of points."""
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


# --- the page's contents -------------------------------------------------------------------------------------------


def _place(order: Sequence[str], layer: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        list(modes()).index(layer["mode"]),
        layer["hires"],
        list(order).index(layer["block"]),
        layer["site"],
    )


def _sentence(image: int, size: int, layers: Sequence[Mapping[str, Any]], frames: Sequence[Frame]) -> str:
    """Describe the size of a page, and what was left out."""
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
        said += f", the {kept} most varied of {total} single maps"
    if any(tuple(part["size"]) != tuple(part["source"]) for layer in layers for part in _told_parts(layer)):
        said += ", some at a lower resolution"
    if any(part["every"] > 1 for layer in layers for part in _told_parts(layer)):
        said += ", not all steps"
    return f"{said}."


def _told_parts(layer: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [layer[name] for name in (SUMMARY, DETAILS) if name in layer]
