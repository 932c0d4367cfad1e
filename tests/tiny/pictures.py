"""Scenes drawn one by one, as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lib_dumpunet.tiny.scenes import Scene, render


def rendered(scenes: Sequence[Scene]) -> Tensor:
    """Draw scenes as "scene 3 h w" from -1 to 1."""
    pixels = np.stack([np.asarray(render(scene, oversampling=4), np.float32) for scene in scenes])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
