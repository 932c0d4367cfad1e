"""Estimate how much a plan captures, in tensors, memory and files, from the shapes of a model's blocks alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lib_dumpunet.assemble import Generation, dump_targets, planned_tags
from lib_dumpunet.captures import Tag
from lib_dumpunet.kinds import KINDS, Kind
from lib_dumpunet.plan import Plan
from lib_dumpunet.sinks.components import COMPONENTS
from lib_dumpunet.sinks.request import DumpRequest, entry_of
from lib_dumpunet.sinks.writers import WRITERS, Planned


@dataclass(frozen=True)
class BlockShape:
    """Shapes "c h w" of a block's input and output, and the number of heads of each attention layer."""

    input: tuple[int, int, int]
    output: tuple[int, int, int]
    heads: tuple[int, ...] = ()


@dataclass(frozen=True)
class KindEstimate:
    """Captures of one kind over all images: number of tensors and their bytes in memory."""

    kind: Kind
    tensors: int
    bytes: int


@dataclass(frozen=True)
class Estimate:
    """What a plan captures, and the bytes of its dump files, including manifests."""

    kinds: tuple[KindEstimate, ...]
    disk: int


def estimate(
    plan: Plan,
    blocks: Mapping[str, BlockShape],
    generation: Generation,
    images: int,
    dtype: torch.dtype,
) -> Estimate:
    """Estimate what a plan captures.

    Args:
        blocks: shapes at the generation's image size.
        images: number of images.
        dtype: the model's dtype.
    """
    captured = [one for image in range(images) for one in _of_image(plan, blocks, generation, image, dtype)]
    kinds = tuple(
        KindEstimate(kind, len(same), sum(one.bytes for one in same))
        for kind in KINDS
        if (same := [one for one in captured if one.tag.kind == kind])
    )
    disk = 0
    for (_, file_format), (request, wanted) in dump_targets(plan, generation).items():
        written = [one for one in captured if one.tag.kind in wanted]
        disk += _on_disk(written, file_format, request)
    return Estimate(kinds, disk)


def _of_image(
    plan: Plan, blocks: Mapping[str, BlockShape], generation: Generation, image: int, dtype: torch.dtype
) -> list[Planned]:
    steps = range(1, generation.request.steps + 1)
    tokens = max(map(len, generation.texts.tokens.values()), default=0)
    planned = planned_tags(plan)
    # Principal components are computed at the end, and come with the lattice.
    planned += [(replace(tag, kind="pca"), own) for tag, own in planned if tag.kind == "self"]
    captured = []
    for tag, own in planned:
        shape = _shape(tag, blocks[tag.block], plan, tokens)
        kept = dtype if KINDS[tag.kind].keeps_dtype else torch.float32
        captured += [
            Planned(replace(tag, image=image, step=step), shape, kept) for step in steps if step in own
        ]
    return captured + _of_words(plan, blocks, generation, image)


def _shape(tag: Tag, block: BlockShape, plan: Plan, tokens: int) -> tuple[int, ...]:
    """Return the shape of a tensor from its axes; attention has the height and width of the block's input."""
    row = KINDS[tag.kind]
    channels = block.output[0]
    height, width = (block.input if row.section == "attention" else block.output)[1:]
    heads = block.heads[tag.layer] if row.scope == "layer" else 1
    lattice = plan.attention.lattice if plan.attention is not None else 0
    sizes = {
        "channel": channels,
        "height": height,
        "width": width,
        "head": heads,
        "token": tokens,
        "dim": channels // heads,
        "row": lattice,
        "column": lattice,
        "component": COMPONENTS,
    }
    return tuple(sizes[axis] for axis in row.axes)


def _of_words(
    plan: Plan, blocks: Mapping[str, BlockShape], generation: Generation, image: int
) -> list[Planned]:
    """List the maps of words and points of an image, which have the size of the highest-resolution layer."""
    if plan.attention is None:
        return []
    shape = max((blocks[block].input[1:] for block in plan.attention.blocks), key=math.prod)
    tags = [Tag(image, 0, "", "point", 0, point.name) for point in plan.points]
    for branch, choice in plan.words.items():
        words = dict.fromkeys(
            word.text for tokens in generation.texts.of_image(image, branch) for word in choice.find(tokens)
        )
        tags += [Tag(image, 0, "", "word", 0, word, branch) for word in words]
    return [Planned(tag, shape, torch.float32) for tag in tags]


def _on_disk(written: Sequence[Planned], file_format: str, request: DumpRequest) -> int:
    """Return the bytes of one dump's files, including the manifest."""
    writer, started = WRITERS[file_format], 10**9
    total = writer.overhead(written, request)
    about: dict[str, Any] = {"run": 1, "started": started, "format": file_format, **request.about_run()}
    entries: list[dict[str, Any]] = [about]
    for one in written:
        stored, name = writer.stored(one.dtype), writer.name(one.tag, 1, started)
        total += math.prod(one.shape) * stored.itemsize
        entries.append({**entry_of(request, one.tag, name, one.shape, stored, one.dtype), "run": 1})
    return total + sum(len(json.dumps(entry, ensure_ascii=False).encode()) + 2 for entry in entries)
