"""The blocks of a live U-Net and their shapes, from its modules alone, because it may be sampling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from lib_dumpunet.blocks import SD1
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.hooks.shapes import BlockInfo
from lib_dumpunet.hosts.webui import compat
from lib_dumpunet.hosts.webui.family import live_unet
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Block, Model
from lib_dumpunet.models.unet import is_transformer

SCALE = 8
"""Image pixels per latent pixel, along one side."""


class _Block(NamedTuple):
    """A block: ``channels`` of its output, and heads of its attention layers."""

    name: str
    kind: str
    channels: int
    heads: tuple[int, ...]


_WITH_TEXT = "res+attn"
_SD1 = (
    *(
        ("conv", 320),
        (_WITH_TEXT, 320),
        (_WITH_TEXT, 320),
        ("down", 320),
        (_WITH_TEXT, 640),
        (_WITH_TEXT, 640),
    ),
    *(("down", 640), (_WITH_TEXT, 1280), (_WITH_TEXT, 1280), ("down", 1280), ("res", 1280), ("res", 1280)),
    ("res+attn+res", 1280),
    *(("res", 1280), ("res", 1280), ("res+up", 1280)),
    *((_WITH_TEXT, 1280), (_WITH_TEXT, 1280), ("res+attn+up", 1280)),
    *((_WITH_TEXT, 640), (_WITH_TEXT, 640), ("res+attn+up", 640)),
    *((_WITH_TEXT, 320), (_WITH_TEXT, 320), (_WITH_TEXT, 320)),
)
"""The blocks of SD 1.x, shown if no model is loaded."""


def blocks_of_model(width: int, height: int) -> list[BlockInfo]:
    """List the blocks of the loaded model, or those of SD 1.x if none is loaded or it has no U-Net."""
    model = compat.loaded_model()
    try:
        if model is not None:
            return block_table(describe(live_unet(model)), width, height)
    except (DumpUNetError, AttributeError):
        pass
    return sd1_table(width, height)


def block_table(model: Model, width: int, height: int) -> list[BlockInfo]:
    """List the blocks of a U-Net in ldm's layout, for images of ``width`` x ``height`` pixels."""
    channels = int(model.module.in_channels)  # type: ignore[arg-type]
    blocks = []
    for block in model.blocks:
        heads = tuple(int(layer.cross_attention.heads) for layer in block.layers)  # type: ignore[arg-type]
        channels = _put_out(block, channels)
        blocks.append(_Block(block.name, block.kind, channels, heads))
    return _table(blocks, int(model.module.in_channels), width, height)  # type: ignore[arg-type]


def sd1_table(width: int, height: int) -> list[BlockInfo]:
    """List the blocks of SD 1.x."""
    blocks = [
        _Block(name, kind, channels, (8,) * kind.count("attn"))
        for name, (kind, channels) in zip(SD1, _SD1, strict=True)
    ]
    return _table(blocks, 4, width, height)


def _table(blocks: Iterable[_Block], channels: int, width: int, height: int) -> list[BlockInfo]:
    """Propagate the shapes through the blocks.

    The input of an OUT block is the output of the block before it concatenated with that of its IN block (the skip
    connection), at the IN block's size.
    """
    shape = (channels, height // SCALE, width // SCALE)
    rows: list[BlockInfo] = []
    waiting: list[tuple[int, int, int]] = []
    for block in blocks:
        if block.name.startswith("OUT"):
            more, *size = waiting.pop()
            shape = (shape[0] + more, size[0], size[1])
        after = _scaled(block, shape)
        rows.append(BlockInfo(block.name, block.kind, shape, after, block.heads))
        shape = after
        if block.name.startswith("IN"):
            waiting.append(after)
    return rows


def _scaled(block: _Block, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    _, height, width = shape
    kinds = block.kind.split("+")
    if "down" in kinds:
        height, width = -(-height // 2), -(-width // 2)
    if "up" in kinds:
        height, width = 2 * height, 2 * width
    return block.channels, height, width


def _put_out(block: Block, channels: int) -> int:
    for child in block.modules:
        channels = _channels(child, channels)
    return channels


def _channels(child: nn.Module, channels: int) -> int:
    """Return a child's number of output channels; a spatial transformer keeps its input's."""
    known: Any = None if is_transformer(child) else getattr(child, "out_channels", None)
    return int(known or channels)
