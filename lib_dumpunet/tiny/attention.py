"""Measure whether a prompt's words attend to their own objects.

Attention is averaged over heads, steps and the layers with at least 16 x 16 positions, then compared inside and
outside the pixels of the word's own object.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .judge import Reading
from .prompts import Prompt

CELLS = 32  # side of the attention maps that are compared
FEWEST_CELLS = 6  # an object smaller than this counts as missing


class MapAverage:
    """An attention processor that also sums the prompt's attention probabilities."""

    def __init__(self) -> None:
        """Begin with no maps."""
        self._sum = torch.zeros(())
        self._count = 0

    @property
    def maps(self) -> NDArray[np.float32]:
        """The mean map of each token, "token height width"."""
        return (self._sum / self._count).cpu().numpy()

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **unused: Any
    ) -> Tensor:
        """Compute attention for a batch of negative prompt and prompt, and keep the prompt's maps."""
        inputs = (hidden_states, encoder_hidden_states, encoder_hidden_states)
        projected = (layer(x) for layer, x in zip((attn.to_q, attn.to_k, attn.to_v), inputs, strict=True))
        query, key, value = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in projected)
        weights = (query @ key.transpose(-1, -2) * attn.scale).softmax(-1)
        side = int(weights.shape[2] ** 0.5)
        if side >= 16:
            maps = weights[1:].mean(1).unflatten(1, (side, side)).permute(0, 3, 1, 2)
            self._sum = self._sum + F.interpolate(maps, (CELLS, CELLS), mode="bilinear")[0]
            self._count += 1
        output: Tensor = attn.to_out[0]((weights @ value).transpose(1, 2).flatten(2))
        return output


def attention_ratios(prompt: Prompt, reading: Reading, maps: NDArray[np.float32]) -> dict[str, list[float]]:
    """Divide each word's mean attention inside its object by that outside; empty if an object is missing."""
    insides = [_cells(reading, color) for color in prompt.colors]
    if any(inside.sum() < FEWEST_CELLS for inside in insides):
        return {}
    words = prompt.text.split()
    ratios: dict[str, list[float]] = {"colour": [], "shape": []}
    for color, inside in zip(prompt.colors, insides, strict=True):
        place = words.index(color)
        for kind, word in (("colour", place), ("shape", place + 1)):
            attended = maps[word + 1]  # token 0 is the start token
            ratios[kind].append(float(attended[inside].mean() / attended[~inside].mean()))
    return ratios


def _cells(reading: Reading, color: str) -> NDArray[np.bool_]:
    """Return the cells "height width" of which more than half has a colour."""
    mask = reading.where(color).astype(np.float32)
    step = mask.shape[0] // CELLS
    mean: NDArray[np.float32] = mask.reshape(CELLS, step, CELLS, step).mean((1, 3))
    return mean > 0.5
