"""What a training stage is told, and the few rules that all stages share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

WARM_UP = 100  # steps


@dataclass(frozen=True)
class Options:
    """The settings of every stage; a stage leaves alone what does not concern it."""

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
        """Return a context in which networks compute in bfloat16, unless on a CPU."""
        enabled = self.device != "cpu"
        return torch.autocast("cuda" if enabled else "cpu", torch.bfloat16, enabled=enabled)

    def generator(self, step: int) -> torch.Generator:
        """Return the random numbers of one step; made anew, so that a resumed run goes on as it would have."""
        return torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + step)


def rate_at(step: int, steps: int, highest: float, fall: float) -> float:
    """Return the learning rate: up over the first steps, level, then straight down over the last fraction `fall`."""
    return highest * min(1.0, (step + 1) / WARM_UP, (steps - step) / (fall * steps))
