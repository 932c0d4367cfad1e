"""A loss that draws the attention of the words for an object onto that object.

Left to itself, so small a model attends to a shape's word all over the picture, and its maps show little. The
loss is the token loss of TokenCompose (https://arxiv.org/abs/2312.03626): the part of a word's attention that
falls outside its object, squared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .scenes import Scene, silhouette

SMALLEST_SIDE = 16  # cells; coarser layers cannot tell the objects apart
WORDS_PER_FIGURE = 2  # colour and shape
MOST_FIGURES = 2


def cells_of(scene: Scene, side: int) -> Tensor:
    """Return which cells "figure h w" of a picture each figure covers for the better part; none if it lacks."""
    cells = torch.zeros(MOST_FIGURES, side, side, dtype=torch.bool)
    for place, figure in zip(cells, scene.figures, strict=False):
        drawn = silhouette(figure, 8 * side).reduce(8)
        place.copy_(torch.from_numpy(np.array(drawn)) > 127)
    return cells


def places_of(scene: Scene) -> list[int]:
    """Return the token of each figure's colour and shape, in the figures' order; 0 where it goes unsaid."""
    words = scene.caption.split()
    places = [0] * (MOST_FIGURES * WORDS_PER_FIGURE)
    for i, figure in enumerate(scene.figures):
        if figure.color in words:
            color = words.index(figure.color)
            shape = color + 1 if words[color + 1] == figure.shape else -1
            places[2 * i : 2 * i + 2] = [color + 1, shape + 1]  # a token begins the text
    return places


class Watch:
    """An attention processor that works as usual and keeps the mean of the heads' probabilities, "b query token"."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.seen: list[Tensor] = []

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **unused: Any
    ) -> Tensor:
        """Attend, and keep what the finer layers attend to."""
        inputs = (hidden_states, encoder_hidden_states, encoder_hidden_states)
        layers = (attn.to_q, attn.to_k, attn.to_v)
        projected = (layer(x) for layer, x in zip(layers, inputs, strict=True))
        query, key, value = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in projected)
        weights = (query @ key.transpose(-1, -2) * attn.scale).softmax(-1)
        if weights.shape[2] >= SMALLEST_SIDE**2:
            self.seen.append(weights.mean(1))
        output: Tensor = attn.to_out[0]((weights @ value).transpose(1, 2).flatten(2))
        return output


def watch(unet: Any) -> Watch:
    """Let a U-Net's cross-attention be watched from now on."""
    processor = Watch()
    kept = unet.attn_processors.items()
    unet.set_attn_processor({name: processor if "attn2" in name else old for name, old in kept})
    return processor


def focus_loss(seen: list[Tensor], cells: Tensor, places: Tensor) -> Tensor:
    """Average the squared part of attention that misses its object, over words and layers.

    `seen` are probabilities "b query token" of several layers, `cells` are "b figure h w", `places` "b word".
    """
    said = (places > 0).float()
    inside = {cells.shape[-1]: cells.float()}
    losses = []
    for weights in seen:
        side = int(weights.shape[1] ** 0.5)
        if side not in inside:
            inside[side] = nn.functional.adaptive_max_pool2d(cells.float(), side)
        mask = inside[side].flatten(2).repeat_interleave(WORDS_PER_FIGURE, dim=1)
        attended = weights.transpose(1, 2).gather(1, places[:, :, None].expand(-1, -1, weights.shape[1]))
        share = (attended * mask).sum(-1) / attended.sum(-1).clamp_min(1e-6)
        losses.append(((1 - share).square() * said).sum() / said.sum().clamp_min(1))
    return torch.stack(losses).mean()
