"""The vocabulary of the stream that flows from the hooks to the sinks.

Axes of a capture's tensor, by kind (einops notation; one image, so there is no batch axis):

    feature   "c h w"   output of a block
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Kind = Literal["feature"]


@dataclass(frozen=True, order=True)
class Tag:
    """What a tensor is: ``image`` counts from 0 over a whole request, ``step`` from 1 as the sampler's own.

    ``site`` is the n-th attention layer inside the block, 0 for what a block has only one of.
    """

    image: int
    step: int
    block: str
    kind: Kind = "feature"
    site: int = 0


def _nothing() -> None:
    return None


@dataclass(frozen=True, eq=False)
class Capture:
    """One tensor of one image, on the CPU, in the model's dtype, with the axes of its kind.

    A copy from an accelerator may still be under way: ``ready`` waits for it and must be called before ``tensor``
    is read. The queue between hooks and sinks does so, hence a sink may read at once.
    """

    tag: Tag
    tensor: Tensor
    ready: Callable[[], None] = field(default=_nothing, repr=False)
