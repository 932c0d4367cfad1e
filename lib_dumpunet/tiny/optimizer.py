"""Muon for the matrices and Adam for the rest: here it needs several times fewer steps than Adam alone.

torch's Muon takes matrices only and works on all of them. `Optimizer` shows it a convolution as the matrix
"out (height width in)" and deals the matrices out among the workers, since orthogonalising them costs a good
part of a step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .workers import Worker

ADAM_RATE = 0.05  # Adam's rate as a part of Muon's


class Optimizer:
    """Muon and Adam under one rate, on one of several workers."""

    def __init__(self, weights: Iterable[nn.Parameter], worker: Worker) -> None:
        """Take the weights to train; convolutions must be channels-last, as `_as_matrix` says."""
        self._weights = [weight for weight in weights if weight.requires_grad]
        self._worker = worker
        self._sources = [weight for weight in self._weights if weight.dim() > 1]
        self._matrices = [_as_matrix(weight) for weight in self._sources]
        self._owners = worker.share_out([matrix.numel() * min(matrix.shape) for matrix in self._matrices])
        mine = [
            matrix for matrix, owner in zip(self._matrices, self._owners, strict=True) if owner == worker.rank
        ]
        vectors = [weight for weight in self._weights if weight.dim() <= 1]
        self._muon = torch.optim.Muon(mine, lr=0.0, weight_decay=0.01, momentum=0.95)
        self._adam = torch.optim.Adam(vectors, lr=0.0, betas=(0.95, 0.98))

    def step(self, rate: float) -> None:
        """Average the gradients of all workers, clip them, change the weights, and forget the gradients."""
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        self._worker.average(gradients)
        nn.utils.clip_grad_norm_(self._weights, 1.0)
        for source, matrix in zip(self._sources, self._matrices, strict=True):
            matrix.grad = None if source.grad is None else source.grad.movedim(1, -1).flatten(1)
        for optimizer, factor in ((self._muon, 1.0), (self._adam, ADAM_RATE)):
            for group in optimizer.param_groups:
                group["lr"] = factor * rate
            optimizer.step()
        self._worker.spread([matrix.detach() for matrix in self._matrices], self._owners)
        for weight in self._weights:
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return this worker's part of the momenta."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take this worker's part of the momenta back."""
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])


def _as_matrix(weight: nn.Parameter) -> nn.Parameter:
    """Show a weight "out in ..." as "out (... in)" in the same memory, so that changing one changes both."""
    matrix = weight.detach().movedim(1, -1).flatten(1)
    if matrix.data_ptr() != weight.data_ptr():
        raise ValueError("convolutions must be in torch.channels_last, or Muon would change copies of them")
    return nn.Parameter(matrix)
