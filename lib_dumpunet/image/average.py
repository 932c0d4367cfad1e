"""The average map of all channels of a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from lib_dumpunet.image.colorize import Numbers


def average(tensor: Numbers, kind: str) -> Tensor | None:
    """Average a tensor "c h w" over its C channels, in float32, because a sum of 16-bit numbers may overflow.

    Args:
        tensor: of any float dtype.
        kind: ``sum`` Σv/C, ``1-norm`` Σ|v|/C, ``2-norm`` √(Σv²)/C, or ``disable``.

    Returns:
        a float32 tensor "1 h w", or None for ``disable``.
    """
    if kind == "disable":
        return None
    import torch

    tensor = torch.from_numpy(tensor) if isinstance(tensor, np.ndarray) else tensor
    values, count = tensor.detach(), tensor.shape[0]
    if kind == "sum":
        total = values.sum(dim=0, keepdim=True, dtype=torch.float32)
    else:
        order = {"1-norm": 1, "2-norm": 2}[kind]
        total = torch.linalg.vector_norm(values.float(), order, dim=0, keepdim=True)
    return total.div(count)
