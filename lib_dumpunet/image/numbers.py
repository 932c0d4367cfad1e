"""What a tensor's numbers are like, to be told beside its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def numbers_of(tensor: Tensor) -> dict[str, str]:
    """Tell shape, lowest, highest and mean number, and standard deviation, in the order and words for people."""
    import torch

    values = tensor.detach().float()
    told = {"shape": "×".join(map(str, tensor.shape))}
    if not values.numel():
        return told
    deviation, mean = torch.std_mean(values, correction=0)
    ends = {"min": values.min(), "max": values.max(), "mean": mean, "standard deviation": deviation}
    return told | {name: f"{number.item():.4g}" for name, number in ends.items()}
