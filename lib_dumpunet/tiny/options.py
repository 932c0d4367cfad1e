"""The options of the training stages, and functions that stages share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

WARM_UP = 100  # steps


@dataclass(frozen=True)
class Options:
    """The options of all stages; each stage uses only some of them."""

    work: Path
    seed: int = 1
    steps: int = 1000
    batch: int = 32
    rate: float = 0.01
    scenes: int = 40_000
    widths: tuple[int, ...] = (32, 80, 128, 96)
    resume: bool = False
    device: str = "cpu"
    compile: bool = False
    every: int = 50

    def precision(self) -> AbstractContextManager[None]:
        """Return a context in which networks compute in bfloat16, except on a CPU."""
        enabled = self.device != "cpu"
        return torch.autocast("cuda" if enabled else "cpu", torch.bfloat16, enabled=enabled)

    def generator(self, step: int) -> torch.Generator:
        """Return the random generator of one step, seeded per step so that a resumed run continues identically."""
        return torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + step)


def rate_at(step: int, steps: int, highest: float, fall: float) -> float:
    """Return the learning rate: warm-up, constant, then linear decay over the last fraction `fall` of the steps."""
    return highest * min(1.0, (step + 1) / WARM_UP, (steps - step) / (fall * steps))
