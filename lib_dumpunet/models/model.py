"""A model as a list of named blocks, independent of the library it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from lib_dumpunet.blocks import BlockOrder, ModelFacts
from lib_dumpunet.models.ports import AttentionLayer, InputPort, OutputPort, Streams, TextPort, UpdatePort


@dataclass(frozen=True, eq=False)
class Block:
    """One block, described by its ports.

    Attributes:
        name: such as IN00.
        kind: its layers, for display, such as res+attn.
        modules: the modules it consists of, in call order.
        input, output: the image before and after it.
        texts: where it receives the text.
        updates: its transformers, which add to the residual stream.
        layers: attention layers, in forward order.
    """

    name: str
    kind: str
    modules: tuple[nn.Module, ...]
    input: InputPort
    output: OutputPort
    texts: tuple[TextPort, ...] = ()
    updates: tuple[UpdatePort, ...] = ()
    layers: tuple[AttentionLayer, ...] = ()


@dataclass(frozen=True, eq=False)
class Model:
    """A live model and its blocks in forward order.

    Attributes:
        streams: derives the map size and text length from the arguments of the model's call; None if blocks work on
            tensors "b c h w", which have their own height and width.
    """

    module: nn.Module
    blocks: tuple[Block, ...]
    streams: Callable[[tuple[Any, ...], dict[str, Any]], Streams] | None = None

    @property
    def order(self) -> BlockOrder:
        """Names of the blocks in forward order."""
        return BlockOrder(tuple(block.name for block in self.blocks))

    @property
    def facts(self) -> ModelFacts:
        """The model's facts, which settings are resolved against."""
        return ModelFacts(self.order, {block.name: len(block.layers) for block in self.blocks})

    @property
    def attending(self) -> tuple[str, ...]:
        """Names of the blocks with attention layers."""
        return tuple(block.name for block in self.blocks if block.layers)

    def block(self, name: str) -> Block:
        """Return a block by its name."""
        return self.blocks[self.order.index(name)]
