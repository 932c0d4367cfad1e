"""A U-Net as a list of named sites, whatever library it comes from.

Blocks are seen through their children. Some hosts loop over a block's children and never call the block itself, so a
hook on the block would be silently dead there, while the children are called as modules everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from lib_dumpunet.blocks import BlockOrder, ModelFacts
from lib_dumpunet.errors import UnsupportedModelError


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One layer of a spatial transformer: ``number`` counts the layers of a block from 0.

    ``transformer`` is the child of the block that holds it; its input has the height and width of the maps.
    """

    block: str
    number: int
    transformer: nn.Module
    self_attention: nn.Module
    cross_attention: nn.Module


@dataclass(frozen=True, eq=False)
class Site:
    """One block: ``children`` in the order in which they are called, ``kind`` as people write it (``res+attn``)."""

    block: str
    kind: str
    children: tuple[nn.Module, ...]

    @property
    def entry(self) -> nn.Module:
        """Module whose first input is the block's input."""
        return self.children[0]

    @property
    def output(self) -> nn.Module:
        """Module whose output is the block's output."""
        return self.children[-1]

    @property
    def transformers(self) -> tuple[nn.Module, ...]:
        """Children that take the text, as their second positional argument or as ``encoder_hidden_states``."""
        return tuple(child for child in self.children if is_transformer(child))

    @property
    def cross_attentions(self) -> tuple[nn.Module, ...]:
        """Attention layers that look at the text, in the order of the forward pass."""
        return tuple(layer.cross_attention for layer in self.layers)

    @property
    def layers(self) -> tuple[AttentionLayer, ...]:
        """Layers of all transformers, in the order of the forward pass."""
        found = ((t, layer) for t in self.transformers for layer in t.transformer_blocks)  # type: ignore[union-attr]
        return tuple(
            AttentionLayer(self.block, number, t, layer.attn1, layer.attn2)
            for number, (t, layer) in enumerate(found)
        )


@dataclass(frozen=True, eq=False)
class Unet:
    """A live U-Net and its blocks in forward order."""

    module: nn.Module
    sites: tuple[Site, ...]

    @property
    def order(self) -> BlockOrder:
        """Names of the blocks in forward order."""
        return BlockOrder(tuple(site.block for site in self.sites))

    @property
    def facts(self) -> ModelFacts:
        """What settings are resolved against."""
        return ModelFacts(self.order, {site.block: len(site.layers) for site in self.sites})


def describe(module: nn.Module) -> Unet:
    """Find the blocks of a U-Net by its structure.

    Raises:
        UnsupportedModelError: if the model is compiled, or is no U-Net of the ldm or diffusers layout.
    """
    from lib_dumpunet.unet import layout_diffusers, layout_ldm

    if hasattr(module, "_orig_mod"):
        raise UnsupportedModelError(
            "the U-Net is compiled by torch.compile, which leaves out hooks",
            remedy="Load the model without compiling it.",
        )
    for layout in (layout_ldm, layout_diffusers):
        if layout.matches(module):
            return Unet(module, tuple(layout.sites(module)))
    raise UnsupportedModelError(
        f"{type(module).__name__} is not a U-Net of Stable Diffusion 1.x, 2.x or XL",
        remedy="Models such as SD3, Flux or PixArt have no U-Net blocks; choose one of SD 1.x, 2.x or SDXL.",
    )


def is_transformer(module: nn.Module) -> bool:
    """Tell a spatial transformer from a block's other children."""
    return hasattr(module, "transformer_blocks")


def kinds(children: tuple[nn.Module, ...], resampler: str) -> Iterator[str]:
    """Name the children of a block; ``resampler`` is what a child that is nothing else does ("down" or "up")."""
    for child in children:
        if is_transformer(child) or hasattr(child, "qkv"):
            yield "attn"
        elif hasattr(child, "emb_layers") or hasattr(child, "time_emb_proj"):
            yield "res"
        elif isinstance(getattr(child, "weight", None), nn.Parameter) and not list(child.children()):
            yield "conv"
        else:
            yield resampler


def site(block: str, children: tuple[nn.Module, ...], resampler: str) -> Site:
    """Make the site of a block from its children."""
    return Site(block, "+".join(kinds(children, resampler)), children)
