"""Attention maps from the queries and keys of one layer and one image: softmax(q·kᵀ·scale), in float32.

Layers compute their output without storing the probabilities, so this module computes them again, but only those that
are wanted. A self-attention matrix has queries × queries entries per head, over a gigabyte for large images, so it is
computed in slices, one in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lib_dumpunet.errors import HostError

# Bytes of probabilities per slice; softmax needs the same again. On a CPU a slice should fit in the cache: words of a
# 64x64 layer took a quarter of the time they took in one piece. A GPU is faster with few kernel launches.
CPU_SLICE, DEVICE_SLICE = 2 << 20, 64 << 20
LARGEST = 256 << 20  # bytes of a result
PARTS = 16  # most rows and columns of pooled self-attention


def split_heads(projected: Tensor, heads: int) -> Tensor:
    """View the output "token (head dim)" of ``to_q`` or ``to_k`` as "head token dim"."""
    return projected.unflatten(-1, (heads, -1)).transpose(0, 1)


def cross_map(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Compute cross-attention probabilities: "head query dim", "head token dim" -> "head token query".

    Raises:
        HostError: if the result would be larger than ``LARGEST``.
    """
    result = _room((k.shape[0], k.shape[1], q.shape[1]), q.device)
    start = 0
    for part in _cross_slices(q, k, scale):
        result[:, :, start : start + part.shape[2]] = part
        start += part.shape[2]
    return result


def cross_mean(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Compute ``cross_map`` averaged over heads: "token query"."""
    return torch.cat([part.mean(0) for part in _cross_slices(q, k, scale)], dim=1)


def self_map(q: Tensor, k: Tensor, scale: float, queries: Tensor) -> Tensor:
    """Compute the self-attention probabilities of some queries, given by their indices "n": "head n key".

    Raises:
        HostError: if the result would be larger than ``LARGEST``.
    """
    result = _room((q.shape[0], len(queries), k.shape[1]), q.device)
    step = _slice(k)
    for start in range(0, len(queries), step):
        asked = queries[start : start + step]
        result[:, start : start + step] = torch.softmax(_logits(q[:, asked], k, scale), dim=-1)
    return result


def pooled_self_attention(
    q: Tensor, k: Tensor, scale: float, shape: tuple[int, int], image: slice = slice(None)
) -> Tensor:
    """Compute each query's self-attention, averaged over heads and summed over parts of the map.

    The map is divided into at most ``PARTS`` × ``PARTS`` parts, so a query has a bounded number of values however large
    the map is; they still add up to 1.

    Args:
        shape: height and width of the map; there are height × width queries, and as many keys.
        image: slice of the image's keys, if the softmax includes other keys; the values then add up to less than 1.
    Returns:
        "query row column".
    """
    into_rows, into_columns = (_membership(length, q.device) for length in shape)
    step = _slice(k)
    parts = []
    for start in range(0, q.shape[1], step):
        logits = _logits(q[:, start : start + step], k, scale)
        seen = torch.softmax(logits, dim=-1)[..., image].mean(0).unflatten(-1, shape)
        parts.append(into_rows.T @ (seen @ into_columns))
    return torch.cat(parts)


def _cross_slices(q: Tensor, k: Tensor, scale: float) -> Iterator[Tensor]:
    step = _slice(k)
    for start in range(0, q.shape[1], step):
        yield torch.softmax(_logits(k, q[:, start : start + step], scale), dim=1)


def _room(shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Allocate a result, unless it would take too much memory from the sampler."""
    size = 4 * shape[0] * shape[1] * shape[2]
    if size > LARGEST:
        raise HostError(
            f"its attention takes {size >> 20} MiB, more than the limit of {LARGEST >> 20} MiB",
            remedy="Choose blocks of lower resolution, or fewer points.",
        )
    return torch.empty(shape, device=device)


def _slice(k: Tensor) -> int:
    """Return how many queries fill a slice, for the keys "head key dim"."""
    size = CPU_SLICE if k.device.type == "cpu" else DEVICE_SLICE
    return max(1, size // (4 * k.shape[0] * k.shape[1]))


def _logits(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Multiply "head n dim" by "head m dim" into "head n m", in float32, because 16 bits overflow in some models.

    The scale is applied last: 16-bit operands are exact in TF32, which some hosts enable, but scaled ones are not.
    """
    return (a.float() @ b.float().transpose(1, 2)).mul_(scale)


def _membership(length: int, device: torch.device) -> Tensor:
    """Return which part each of ``length`` rows belongs to, one-hot: "row part"."""
    count = min(length, PARTS)
    part = torch.arange(length, device=device) * count // length
    return torch.nn.functional.one_hot(part, count).float()
