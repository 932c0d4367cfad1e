"""The common part of both U-Net layouts: describe a block by its children.

Some hosts loop over a block's children and never call the block itself, so a hook on the block would never run. The
children are called as modules everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from lib_dumpunet.models.model import Block
from lib_dumpunet.models.ports import (
    Argument,
    AttentionLayer,
    InputPort,
    Maps,
    OutputPort,
    TextPort,
    UpdatePort,
)

TEXT = Argument(("encoder_hidden_states", "context"), 1)
"""The text argument of spatial transformers and attention layers, in diffusers and in ldm."""
IMAGE = Argument(("x", "hidden_states", "sample", "input"), 0)
"""The image argument of any child of a block."""


def is_transformer(module: nn.Module) -> bool:
    """Whether a child of a block is a spatial transformer."""
    return hasattr(module, "transformer_blocks")


def unet_block(name: str, children: tuple[nn.Module, ...], resampler: str) -> Block:
    """Describe a block by its children, given in call order.

    ``resampler`` names children that are neither conv, res nor attn: "down" or "up".
    """
    transformers = [child for child in children if is_transformer(child)]
    inputs = {child: InputPort(child, IMAGE, Maps()) for child in children}
    return Block(
        name,
        "+".join(_kinds(children, resampler)),
        children,
        inputs[children[0]],
        OutputPort(children[-1], Maps()),
        tuple(TextPort(child, TEXT) for child in transformers),
        tuple(UpdatePort(inputs[child], OutputPort(child, Maps())) for child in transformers),
        tuple(_layers(name, [inputs[child] for child in transformers])),
    )


def _layers(block: str, transformers: list[InputPort]) -> Iterator[AttentionLayer]:
    pairs = ((port, layer) for port in transformers for layer in port.module.transformer_blocks)  # type: ignore[union-attr]
    for number, (entry, layer) in enumerate(pairs):
        yield AttentionLayer(block, number, entry, layer.attn1, layer.attn2)


def _kinds(children: tuple[nn.Module, ...], resampler: str) -> Iterator[str]:
    for child in children:
        if is_transformer(child) or hasattr(child, "qkv"):
            yield "attn"
        elif hasattr(child, "emb_layers") or hasattr(child, "time_emb_proj"):
            yield "res"
        elif isinstance(getattr(child, "weight", None), nn.Parameter) and not list(child.children()):
            yield "conv"
        else:
            yield resampler
