"""Muon for matrices and Adam for the rest, which here needs several times fewer steps than Adam alone.

Muon (https://arxiv.org/abs/2502.16982) replaces a matrix's momentum by the nearest orthogonal matrix. torch's Muon
processes one matrix after the other, which leaves a GPU idle; here all matrices of one shape are processed together.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

ADAM_RATE = 0.1  # Adam's learning rate as a fraction of Muon's
MOMENTUM = 0.95
DECAY = 0.01
# Applying this quintic polynomial a few times pulls all singular values towards 1.
QUINTIC, TIMES = (3.4445, -4.7750, 2.0315), 5


class Optimizer:
    """Muon and Adam with a common learning rate."""

    def __init__(self, model: nn.Module) -> None:
        """Assign embedding tables and vectors to Adam, all other trainable weights to Muon."""
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        rest = [weight for weight in self._weights if weight.dim() <= 1 or id(weight) in tables]
        device = self._weights[0].device.type
        self._adam = torch.optim.Adam(rest, lr=0.0, betas=(0.95, 0.98), fused=device == "cuda")
        self._groups: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        for weight in self._weights:
            if weight.dim() > 1 and id(weight) not in tables:
                self._groups[len(weight), weight[0].numel()].append(weight)
        self._momenta = {
            shape: torch.zeros(len(group), *shape, device=device) for shape, group in self._groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Clip the gradients, update the weights, and reset the gradients."""
        nn.utils.clip_grad_norm_(self._weights, 1.0)
        for shape, group in self._groups.items():
            self._step_group(rate, group, self._momenta[shape])
        self._adam.param_groups[0]["lr"] = ADAM_RATE * rate
        self._adam.step()
        for weight in self._weights:
            weight.grad = None

    def _step_group(self, rate: float, group: list[nn.Parameter], momenta: Tensor) -> None:
        gradients = torch.stack([_gradient(weight).flatten(1) for weight in group])
        momenta.lerp_(gradients, 1 - MOMENTUM)
        ahead = gradients.lerp(momenta, MOMENTUM)  # Nesterov momentum
        rows, columns = momenta.shape[1:]
        scale = rate * max(1.0, rows / columns) ** 0.5
        changes = orthogonal(ahead).to(momenta.dtype).unbind()
        weights: list[Tensor] = list(group)
        torch._foreach_mul_(weights, 1 - rate * DECAY)
        torch._foreach_add_(
            weights,
            [change.view_as(weight) for change, weight in zip(changes, group, strict=True)],
            alpha=-scale,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the momenta."""
        return {"muon": self._momenta, "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the momenta."""
        for shape, momenta in self._momenta.items():
            momenta.copy_(state["muon"][shape])
        self._adam.load_state_dict(state["adam"])


def _gradient(weight: nn.Parameter) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def orthogonal(matrices: Tensor) -> Tensor:
    """Return nearly orthogonal matrices "n row column" with the singular vectors of the given ones, in bfloat16."""
    a, b, c = QUINTIC
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(TIMES):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.mT
