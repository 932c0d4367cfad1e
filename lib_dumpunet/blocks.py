"""Block names and their order: IN00 ... M00 ... OUTnn.

The order is that of the forward pass, and ranges follow it. It depends on the model, so functions take it as an
argument; ``SD1`` and ``SDXL`` are for use without a loaded model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class BlockOrder:
    """The blocks of one U-Net, in forward order."""

    names: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def index(self, name: str) -> int:
        """Return the index of a block in the forward pass, from 0."""
        return self.names.index(name)

    def __str__(self) -> str:
        return spans(self.names)


def block_order(inputs: int, outputs: int, *, middle: bool = True) -> BlockOrder:
    """Name ``inputs`` IN blocks, the middle block and ``outputs`` OUT blocks."""
    return BlockOrder(
        tuple(f"IN{i:02}" for i in range(inputs))
        + (("M00",) if middle else ())
        + tuple(f"OUT{i:02}" for i in range(outputs))
    )


SD1 = block_order(12, 12)
SDXL = block_order(9, 9)


def spans(names: tuple[str, ...]) -> str:
    """Abbreviate block names, consecutive ones as a range: ``IN00-IN11, M00, OUT00-OUT11``."""
    numbered = [
        (name.rstrip("0123456789"), int(name[len(name.rstrip("0123456789")) :]), name) for name in names
    ]
    parts = []
    for _, group in groupby(enumerate(numbered), key=lambda item: (item[1][0], item[1][1] - item[0])):
        run = [name for _, (_, _, name) in group]
        parts.append(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ", ".join(parts)


@dataclass(frozen=True)
class ModelFacts:
    """What must be known of a model to resolve settings.

    Attributes:
        order: the model's blocks; before the model is known, all possible ones.
        layers: number of attention layers by block; None before the model is known.
    """

    order: BlockOrder
    layers: Mapping[str, int] | None = None

    @property
    def attending(self) -> tuple[str, ...]:
        """Blocks with attention layers, in forward order."""
        return tuple(block for block in self.order if (self.layers or {}).get(block))
