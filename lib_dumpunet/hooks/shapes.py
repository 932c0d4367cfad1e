"""Measure what goes into each block and what comes out, by watching one forward call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.unet.sites import Site, Unet

Shape = tuple[int, ...]


@dataclass(frozen=True)
class BlockInfo:
    """A row of the block table: shapes are "c h w", ``heads`` has one number for each cross-attention layer."""

    block: str
    kind: str
    input: Shape
    output: Shape
    heads: tuple[int, ...]


def measure_blocks(unet: Unet, forward: Callable[[], object]) -> list[BlockInfo]:
    """Watch ``forward``, which must call the U-Net once; tensors on the meta device serve, as they have shapes."""
    inputs: dict[str, Shape] = {}
    outputs: dict[str, Shape] = {}
    with HookSet() as hooks:
        for site in unet.sites:
            _watch(hooks, site, inputs, outputs)
        forward()
    return [
        BlockInfo(
            site.block, site.kind, inputs[site.block], outputs[site.block], _heads(site.cross_attentions)
        )
        for site in unet.sites
    ]


def _watch(hooks: HookSet, site: Site, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> None:
    def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[site.block] = tuple((args[0] if args else next(iter(kwargs.values()))).shape[1:])

    def leave(output: Tensor) -> None:
        outputs[site.block] = tuple(output.shape[1:])

    hooks.before(site.entry, enter)
    hooks.after(site.output, leave)


def _heads(layers: tuple[nn.Module, ...]) -> tuple[int, ...]:
    return tuple(int(layer.heads) for layer in layers)  # type: ignore[arg-type]
