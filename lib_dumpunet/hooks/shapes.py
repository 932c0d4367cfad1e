"""Measure the input and output shapes of each block during one forward call."""

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
    """A row of the block table: shapes "c h w", and the number of heads of each cross-attention layer."""

    block: str
    kind: str
    input: Shape
    output: Shape
    heads: tuple[int, ...]


def measure_blocks(model: Model, forward: Callable[[], object]) -> list[BlockInfo]:
    """Measure the blocks while ``forward`` calls the model once; tensors on the meta device are enough.

    Raises:
        UnsupportedModelError: if a port is not reached or has no image, so the adapter does not fit this model.
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
        for which, shapes in (("input", inputs), ("output", outputs)):
            if len(shapes.get(block.name, ())) != 3:
                raise UnsupportedModelError(
                    f"the {which} of block {block.name} of this {type(model.module).__name__} cannot be read",
                    remedy="Its layout is unknown; please report which model it is.",
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
        except Exception:  # counts as not read
            log.debug("a port of block %s does not fit", block.name, exc_info=True)

    def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        note(inputs, lambda: block.input.read(args, kwargs, streams.now))

    def leave(_args: tuple[Any, ...], _kwargs: dict[str, Any], output: Any) -> None:
        note(outputs, lambda: block.output.read(output, streams.now))

    hooks.before(block.input.module, enter)
    hooks.around(block.output.module, leave)


def _heads(layers: tuple[AttentionLayer, ...]) -> tuple[int, ...]:
    return tuple(int(layer.cross_attention.heads) for layer in layers)  # type: ignore[arg-type]
