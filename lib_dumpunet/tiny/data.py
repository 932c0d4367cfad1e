"""The training scenes, sampled once, as tensors for drawing, with the token ids of their captions."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .draw import Figures, as_tensors
from .options import Options
from .scenes import sample_scene
from .tokenizer import LENGTH, encode_caption, read_vocabulary

LONGEST = 24  # most tokens of a caption; the rest is padding
ALONE = 0.35  # fraction of scenes with one figure
PART = 1000  # scenes that share a seed


@dataclass
class Scenes:
    """Figures to draw, and the token ids of their captions."""

    figures: Figures
    ids: Tensor  # "scene token"


def sample_scenes(options: Options) -> None:
    """Sample scenes and write them to work/scenes.pt."""
    vocabulary = read_vocabulary(options.work / "tokenizer")
    scenes = [
        sample_scene(rng, ALONE)
        for part in range(options.scenes // PART)
        for rng in [random.Random(options.seed * 77_000 + part)]
        for _ in range(PART)
    ]
    ids = [encode_caption(scene.caption, vocabulary)[:LONGEST] for scene in scenes]
    contents = {"figures": vars(as_tensors(scenes)), "ids": torch.tensor(ids, dtype=torch.int16)}
    torch.save(contents, options.work / "scenes.pt")


def load_scenes(options: Options) -> Scenes:
    """Load the file of `sample_scenes` onto the device."""
    saved = torch.load(options.work / "scenes.pt", map_location=options.device)
    figures = Figures(**saved["figures"])
    ids = saved["ids"].long()
    end = ids[0, -1].item()
    return Scenes(figures, F.pad(ids, (0, LENGTH - LONGEST), value=end))
