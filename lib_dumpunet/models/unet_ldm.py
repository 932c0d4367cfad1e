"""U-Nets in ldm's layout: ``input_blocks``, ``middle_block``, ``output_blocks`` (ldm, sgm, Forge, ComfyUI)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from lib_dumpunet.models.model import Block, Model
from lib_dumpunet.models.unet import unet_block


def matches(module: nn.Module) -> bool:
    """Recognise the layout by its attributes, because each library has its own class for it."""
    return all(hasattr(module, name) for name in ("input_blocks", "middle_block", "output_blocks"))


def describe(module: nn.Module) -> Model:
    """Return the blocks in forward order."""
    return Model(module, tuple(_blocks(module)))


def _blocks(module: nn.Module) -> Iterator[Block]:
    for i, block in enumerate(module.input_blocks):  # type: ignore[arg-type]
        yield unet_block(f"IN{i:02}", tuple(block.children()), "down")
    if module.middle_block is not None:  # a distilled model may lack it
        yield unet_block("M00", tuple(module.middle_block.children()), "")  # type: ignore[union-attr]
    for i, block in enumerate(module.output_blocks):  # type: ignore[arg-type]
        yield unet_block(f"OUT{i:02}", tuple(block.children()), "up")
