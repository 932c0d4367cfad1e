"""How much a plan captures: tensors, memory and files, from the shapes of a model's blocks alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lib_dumpunet.assemble import Generation, dump_targets, planned_tags
from lib_dumpunet.captures import Tag
from lib_dumpunet.kinds import KINDS, Kind
from lib_dumpunet.plan import Plan
from lib_dumpunet.sinks.components import COMPONENTS
from lib_dumpunet.sinks.dump import (
    DumpRequest,
    entry_of,
    metadata_of,
    npy_header,
    safetensors_header,
    stored_dtype,
)
from lib_dumpunet.sinks.names import bin_name, key_of, npy_name, safetensors_name


@dataclass(frozen=True)
class BlockShape:
    """What is known of a block: shapes "c h w" of its input and output, and heads by attention layer."""

    input: tuple[int, int, int]
    output: tuple[int, int, int]
    heads: tuple[int, ...] = ()


@dataclass(frozen=True)
class KindEstimate:
    """What is captured of a kind, over all images: tensors and their bytes in memory."""

    kind: Kind
    tensors: int
    bytes: int


@dataclass(frozen=True)
class Estimate:
    """What a plan captures, and the bytes of the files that dumps write, their manifests included."""

    kinds: tuple[KindEstimate, ...]
    disk: int


@dataclass(frozen=True)
class Captured:
    """A tensor to come: what it is, its shape and its dtype."""

    tag: Tag
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Size of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def estimate(
    plan: Plan,
    blocks: Mapping[str, BlockShape],
    generation: Generation,
    images: int,
    dtype: torch.dtype,
) -> Estimate:
    """Work out what a plan captures.

    Args:
        blocks: shapes, for images of the generation's size.
        images: how many are made.
        dtype: that of the model.
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
) -> list[Captured]:
    steps = range(1, generation.request.steps + 1)
    tokens = max(map(len, generation.texts.tokens.values()), default=0)
    planned = planned_tags(plan)
    # Components come with the lattice, and are made at the end.
    planned += [(replace(tag, kind="pca"), own) for tag, own in planned if tag.kind == "self"]
    captured = []
    for tag, own in planned:
        shape = _shape(tag, blocks[tag.block], plan, tokens)
        kept = dtype if KINDS[tag.kind].keeps_dtype else torch.float32
        captured += [
            Captured(replace(tag, image=image, step=step), shape, kept) for step in steps if step in own
        ]
    return captured + _of_words(plan, blocks, generation, image)


def _shape(tag: Tag, block: BlockShape, plan: Plan, tokens: int) -> tuple[int, ...]:
    """Return the shape of a tensor by its axes; attention works at the size of what goes into a block."""
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
) -> list[Captured]:
    """List the maps of words and points of an image, which have the size of the finest layer."""
    if plan.attention is None:
        return []
    shape = max((blocks[block].input[1:] for block in plan.attention.blocks), key=math.prod)
    tags = [Tag(image, 0, "", "point", 0, point.name) for point in plan.points]
    for branch, choice in plan.words.items():
        words = dict.fromkeys(
            word.text for tokens in generation.texts.of_image(image, branch) for word in choice.find(tokens)
        )
        tags += [Tag(image, 0, "", "word", 0, word, branch) for word in words]
    return [Captured(tag, shape, torch.float32) for tag in tags]


def _on_disk(written: Sequence[Captured], file_format: str, request: DumpRequest) -> int:
    """Count the bytes of the files of one dump, and of the manifest."""
    total, names = 0, []
    for one in written:
        stored = stored_dtype(one.dtype, file_format)
        total += math.prod(one.shape) * stored.itemsize
        if file_format == "npy":
            names.append(npy_name(one.tag, 1))
            total += len(npy_header(one.shape, np.dtype(str(stored).removeprefix("torch."))))
        elif file_format == "bin":
            names.append(bin_name(one.tag, 10**9))
        else:
            names.append(safetensors_name(one.tag.image, one.tag.step, 1))
    if file_format == "safetensors":
        total += _headers(written, request)
    about: dict[str, Any] = {"run": 1, "started": 10**9, "format": file_format, **request.about_run()}
    entries: list[dict[str, Any]] = [about]
    for one, name in zip(written, names, strict=True):
        stored = stored_dtype(one.dtype, file_format)
        entries.append({**entry_of(request, one.tag, name, one.shape, stored, one.dtype), "run": 1})
    return total + sum(len(json.dumps(entry, ensure_ascii=False).encode()) + 2 for entry in entries)


def _headers(written: Sequence[Captured], request: DumpRequest) -> int:
    files: dict[tuple[int, int], dict[str, tuple[tuple[int, ...], torch.dtype]]] = {}
    for one in written:
        stored = stored_dtype(one.dtype, "safetensors")
        files.setdefault((one.tag.image, one.tag.step), {})[key_of(one.tag)] = (one.shape, stored)
    return sum(
        len(safetensors_header(tensors, metadata_of(request, image, step, 1, hires=False)))
        for (image, step), tensors in files.items()
    )
