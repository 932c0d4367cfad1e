"""A model as a list of named blocks, whatever library it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from lib_dumpunet.blocks import BlockOrder, ModelFacts
from lib_dumpunet.models.ports import AttentionLayer, InputPort, OutputPort, Streams, TextPort, UpdatePort


@dataclass(frozen=True, eq=False)
class Block:
    """One block, by its ports.

    Attributes:
        name: such as IN00.
        kind: as people write it, such as res+attn.
        modules: that it consists of, in the order in which they are called.
        input, output: the image before and after it.
        texts: what reads the text.
        updates: what adds to the image under the eyes of the text.
        layers: attention layers, in the order of the forward pass.
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
        streams: tells from the arguments of the model's call what its blocks work on; None where they work on maps,
            which have their height and width with them.
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
        """What settings are resolved against."""
        return ModelFacts(self.order, {block.name: len(block.layers) for block in self.blocks})

    @property
    def attending(self) -> tuple[str, ...]:
        """Names of the blocks that read the text."""
        return tuple(block.name for block in self.blocks if block.layers)

    def block(self, name: str) -> Block:
        """Return a block by its name."""
        return self.blocks[self.order.index(name)]
