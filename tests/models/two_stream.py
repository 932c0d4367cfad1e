"""A small hand-made diffusion transformer with two streams: what ports must support besides U-Nets.

Its first blocks keep text and image apart and return (text, image); its last ones work on one joined sequence, text
first. All attention is joint.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lib_dumpunet.models.describe import Adapter
from lib_dumpunet.models.model import Block, Model
from lib_dumpunet.models.ports import (
    Argument,
    AttentionLayer,
    InputPort,
    OutputPort,
    Streams,
    TextPort,
    Tokens,
    UpdatePort,
)

WIDTH, HEADS, PATCH, CHANNELS = 16, 2, 2, 4
TEXT, IMAGE, JOINED = Argument(("text",), 0), Argument(("image",), 1), Argument(("joined",), 0)


class JointAttention(nn.Module):
    """Attention over one whole sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])

    def forward(self, joined: Tensor) -> Tensor:
        q, k, v = (
            layer(joined).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.to_out[0](attended.transpose(1, 2).flatten(2))


class Apart(nn.Module):
    """A block with two separate streams."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = JointAttention()

    def forward(self, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        added = self.attention(torch.cat([text, image], 1))
        return text + added[:, : text.shape[1]], image + added[:, text.shape[1] :]


class Together(nn.Module):
    """A block that works on one sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = JointAttention()

    def forward(self, joined: Tensor) -> Tensor:
        return joined + self.attention(joined)


class TwoStream(nn.Module):
    """The whole model: patches of latents become tokens, and a head makes latents of them again."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Conv2d(CHANNELS, WIDTH, PATCH, PATCH)
        self.apart = nn.ModuleList([Apart(), Apart()])
        self.together = nn.ModuleList([Together(), Together()])
        self.head = nn.Linear(WIDTH, CHANNELS * PATCH**2)
        self.eval()

    def forward(self, latents: Tensor, text: Tensor) -> Tensor:
        image = self.embed(latents).flatten(2).transpose(1, 2)
        for block in self.apart:
            text, image = block(text=text, image=image)
        joined = torch.cat([text, image], 1)
        for block in self.together:
            joined = block(joined)
        patches = self.head(joined[:, text.shape[1] :])
        height, width = (side // PATCH for side in latents.shape[2:])
        return nn.functional.pixel_shuffle(patches.transpose(1, 2).unflatten(2, (height, width)), PATCH)


def streams(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Streams:
    """Return the sizes of a call of the model."""
    latents, text = args
    return Streams(latents.shape[2] // PATCH, latents.shape[3] // PATCH, text.shape[1])


def describe_two_stream(module: nn.Module) -> Model:
    """Find the blocks: D for separate streams, S for one stream."""
    blocks = [_apart(f"D{i:02}", block) for i, block in enumerate(module.apart)]
    blocks += [_together(f"S{i:02}", block) for i, block in enumerate(module.together)]
    return Model(module, tuple(blocks), streams)


def _apart(name: str, module: nn.Module) -> Block:
    image = InputPort(module, IMAGE, Tokens())
    output = OutputPort(module, Tokens(index=1))
    return _block(name, module, image, output, (TextPort(module, TEXT),))


def _together(name: str, module: nn.Module) -> Block:
    layout = Tokens(joined=True)
    return _block(name, module, InputPort(module, JOINED, layout), OutputPort(module, layout), ())


def _block(
    name: str, module: nn.Module, image: InputPort, output: OutputPort, texts: tuple[TextPort, ...]
) -> Block:
    layer = AttentionLayer(name, 0, image, module.attention, module.attention, joined=True)
    return Block(name, "attn", (module,), image, output, texts, (UpdatePort(image, output),), (layer,))


ADAPTER = Adapter(lambda module: isinstance(module, TwoStream), describe_two_stream)
