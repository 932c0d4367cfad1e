"""Measure what goes into each block and what comes out, by watching one forward call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lib_dumpunet.errors import UnsupportedModelError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.streams import CallStreams
from lib_dumpunet.models.model import Block, Model
from lib_dumpunet.models.ports import AttentionLayer

log = logging.getLogger("dumpunet")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class BlockInfo:
    """A row of the block table: shapes are "c h w", ``heads`` has one number for each cross-attention layer."""

    block: str
    kind: str
    input: Shape
    output: Shape
    heads: tuple[int, ...]


def measure_blocks(model: Model, forward: Callable[[], object]) -> list[BlockInfo]:
    """Watch ``forward``, which must call the model once; tensors on the meta device serve, as they have shapes.

    Raises:
        UnsupportedModelError: if a port is not reached, or no image comes out of it: the adapter is wrong about this
            model.
    """
    inputs: dict[str, Shape] = {}
    outputs: dict[str, Shape] = {}
    with HookSet() as hooks:
        streams = CallStreams(model)
        streams.install(hooks)
        for block in model.blocks:
            _watch(hooks, block, streams, inputs, outputs)
        forward()
    for block in model.blocks:
        for where, shapes in (("goes into", inputs), ("comes out of", outputs)):
            if len(shapes.get(block.name, ())) != 3:
                raise UnsupportedModelError(
                    f"what {where} block {block.name} of this {type(model.module).__name__} cannot be read",
                    remedy="It is laid out as no model that is known; please report which one it is.",
                )
    return [
        BlockInfo(block.name, block.kind, inputs[block.name], outputs[block.name], _heads(block.layers))
        for block in model.blocks
    ]


def _watch(
    hooks: HookSet, block: Block, streams: CallStreams, inputs: dict[str, Shape], outputs: dict[str, Shape]
) -> None:
    def note(shapes: dict[str, Shape], read: Callable[[], Tensor]) -> None:
        try:
            shapes[block.name] = tuple(read().shape[1:])
        except Exception:  # whatever is there instead; it counts as not read
            log.debug("a port of block %s does not fit", block.name, exc_info=True)

    def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        note(inputs, lambda: block.input.read(args, kwargs, streams.now))

    def leave(_args: tuple[Any, ...], _kwargs: dict[str, Any], output: Any) -> None:
        note(outputs, lambda: block.output.read(output, streams.now))

    hooks.before(block.input.module, enter)
    hooks.around(block.output.module, leave)


def _heads(layers: tuple[AttentionLayer, ...]) -> tuple[int, ...]:
    return tuple(int(layer.cross_attention.heads) for layer in layers)  # type: ignore[arg-type]
