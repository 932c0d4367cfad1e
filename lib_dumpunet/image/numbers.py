"""Statistics of a tensor, to show with its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def numbers_of(tensor: Tensor) -> dict[str, str]:
    """Return shape, minimum, maximum, mean and standard deviation, by name, formatted for display."""
    import torch

    values = tensor.detach().float()
    told = {"shape": "×".join(map(str, tensor.shape))}
    if not values.numel():
        return told
    deviation, mean = torch.std_mean(values, correction=0)
    ends = {"min": values.min(), "max": values.max(), "mean": mean, "standard deviation": deviation}
    return told | {name: f"{number.item():.4g}" for name, number in ends.items()}
