"""U-Nets in diffusers' layout: ``conv_in``, ``down_blocks``, ``mid_block``, ``up_blocks``.

A diffusers block contains several blocks of the original layout: each resnet with its attention is one, and so is each
downsampler; an upsampler belongs to the last resnet before it. Block numbers are the same as in ldm.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count

from torch import nn

from lib_dumpunet.models.model import Block, Model
from lib_dumpunet.models.unet import unet_block


def matches(module: nn.Module) -> bool:
    """Recognise the layout by its attributes; diffusers' other models have down blocks without ``resnets``."""
    if not all(hasattr(module, name) for name in ("conv_in", "down_blocks", "mid_block", "up_blocks")):
        return False
    return all(hasattr(b, "resnets") for b in chain(module.down_blocks, module.up_blocks))  # type: ignore[arg-type]


def describe(module: nn.Module) -> Model:
    """Return the blocks in forward order."""
    return Model(module, tuple(_blocks(module)))


def _blocks(module: nn.Module) -> Iterator[Block]:
    number = count()
    yield unet_block(f"IN{next(number):02}", (module.conv_in,), "")  # type: ignore[arg-type]
    for block in module.down_blocks:  # type: ignore[union-attr]
        for children in _resnets(block):
            yield unet_block(f"IN{next(number):02}", children, "")
        for downsampler in block.downsamplers or ():
            yield unet_block(f"IN{next(number):02}", (downsampler,), "down")
    if module.mid_block is not None:  # a distilled model may lack it
        yield unet_block("M00", tuple(_middle(module.mid_block)), "")  # type: ignore[arg-type]
    number = count()
    for block in module.up_blocks:  # type: ignore[union-attr]
        *others, last = _resnets(block)
        for children in (*others, (*last, *(block.upsamplers or ()))):
            yield unet_block(f"OUT{next(number):02}", children, "up")


def _resnets(block: nn.Module) -> Iterator[tuple[nn.Module, ...]]:
    """Pair each resnet with its attention, if it has one."""
    resnets = list(block.resnets)  # type: ignore[arg-type]
    attentions = list(getattr(block, "attentions", None) or [None] * len(resnets))
    for resnet, attention in zip(resnets, attentions, strict=True):
        yield (resnet,) if attention is None else (resnet, attention)


def _middle(block: nn.Module) -> Iterator[nn.Module]:
    """Yield resnet, attention, resnet, ... in the order in which the middle block calls them."""
    first, *resnets = block.resnets  # type: ignore[misc]
    yield first
    for attention, resnet in zip(
        getattr(block, "attentions", None) or [None] * len(resnets), resnets, strict=True
    ):
        if attention is not None:
            yield attention
        yield resnet
