"""What a training stage is told, and the few rules that all stages share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .scenes import PLAIN, Kind
from .workers import Worker

WARM_UP = 100  # steps
FALL = 0.5  # the last part of a stage, over which the rate falls to nothing


@dataclass(frozen=True)
class Options:
    """The settings of every stage; a stage leaves alone what does not concern it."""

    work: Path
    seed: int = 1
    steps: int = 1000
    until: int = 0
    batch: int = 32
    rate: float = 0.01
    size: int = 128
    pictures: int = 40_000
    kind: Kind = PLAIN
    tokens: int = 77
    begin: int = 0
    focus: float = 0.0
    widths: tuple[int, ...] = (16, 48, 96, 96)
    hold: bool = False
    resume: bool = False
    decoder_only: bool = False
    device: str = "cpu"
    every: int = 50


def rate_at(step: int, options: Options) -> float:
    """Return the learning rate: up over the first steps, level, then straight down to the end (or no fall).

    Until the fall it does not depend on how many steps were planned, so a stage can be made longer or shorter
    while it runs and is still what a run planned so would have been.
    """
    left = 1.0 if options.hold else (options.steps - step) / (FALL * options.steps)
    return options.rate * min(1.0, (step + 1) / WARM_UP, left)


def step_generator(step: int, options: Options, worker: Worker) -> torch.Generator:
    """Return the chance of one step of one worker; made anew, so that a resumed run goes on as it would have."""
    return torch.Generator().manual_seed((options.seed * 1_000_003 + step) * 64 + worker.rank)


def to_tensor(image: Image.Image) -> Tensor:
    """Turn an RGB picture into "3 h w" from -1 to 1."""
    pixels = np.array(image, np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
