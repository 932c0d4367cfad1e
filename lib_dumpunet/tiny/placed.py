"""Scenes whose captions say where things are, to learn relations from: the easy ones first.

From "a red star left of a blue ring" alone a model does not learn what "left of" means: that its first object is on the
left, that its second is on the right, and which object is the first, are three things that only help together. Each of
the kinds below adds one of them to the kind before.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .draw import Figures, as_tensors
from .options import Options
from .scenes import (
    COLORS,
    FIGURE_COLORS,
    RADII_PAIRED,
    SHAPES,
    Figure,
    Scene,
    article,
    sample_figure,
    sample_scene,
)
from .tokenizer import encode_caption, read_vocabulary

OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
SIDES = tuple(OPPOSITE)
SINGLE, LISTED, RELATED, FREE = range(4)
"""One figure at a side; two, each with its side; two with a relation; any scene."""
TURNS = (SINGLE, LISTED, RELATED, RELATED, FREE)
FREE_ALONE = 0.4  # fraction of free scenes with one figure
NOT_SAID = -1


@dataclass
class PlacedScenes:
    """What is drawn and said, the kind of each scene, and the facts that its caption states."""

    figures: Figures
    ids: Tensor  # "scene token"
    kinds: Tensor  # "scene"
    facts: Tensor  # "scene figure fact": indices into SIDES, FIGURE_COLORS, SHAPES; len(SIDES) where no side is said


def sample_placed(options: Options) -> None:
    """Sample scenes of all kinds, and write them to work/placed.pt."""
    vocabulary = read_vocabulary(options.work / "tokenizer")
    kinds = [TURNS[number % len(TURNS)] for number in range(options.scenes)]
    scenes = [
        SAMPLERS[kind](random.Random(options.seed * 10_000_000 + number)) for number, kind in enumerate(kinds)
    ]
    contents = {
        "figures": vars(as_tensors(scenes)),
        "ids": torch.tensor([encode_caption(s.caption, vocabulary) for s in scenes], dtype=torch.int16),
        "kinds": torch.tensor(kinds),
        "facts": torch.tensor([facts_of(scene) for scene in scenes]),
    }
    torch.save(contents, options.work / "placed.pt")


def load_placed(options: Options) -> PlacedScenes:
    """Read what `sample_placed` wrote onto the device."""
    saved = torch.load(options.work / "placed.pt", map_location=options.device)
    return PlacedScenes(Figures(**saved["figures"]), saved["ids"].long(), saved["kinds"], saved["facts"])


def opposite_captions(ids: Tensor, vocabulary: dict[str, int]) -> Tensor:
    """Exchange left and right, above and below in captions "scene token"."""
    exchanged = torch.arange(len(vocabulary))
    for word, other in OPPOSITE.items():
        exchanged[vocabulary[f"{word}</w>"]] = vocabulary[f"{other}</w>"]
    return exchanged.to(ids.device)[ids]


def facts_of(scene: Scene) -> list[list[int]]:
    """Return side, colour and shape of the first and the second figure, as far as the caption says them.

    A figure alone is both the first and the second.
    """
    words = scene.caption.split()
    is_placed = any(side in words for side in SIDES)
    is_named = "shape" not in words and sum(word in FIGURE_COLORS for word in _objects(words)) == len(
        scene.figures
    )
    facts = [
        [
            SIDES.index(_side(figure)) if is_placed else len(SIDES),
            FIGURE_COLORS.index(figure.color) if is_named else NOT_SAID,
            SHAPES.index(figure.shape) if is_named else NOT_SAID,
        ]
        for figure in scene.figures
    ]
    return [facts[0], facts[-1]]


def _objects(words: list[str]) -> list[str]:
    """Leave out what is said of the background."""
    return words[: words.index("background") - 1] if "background" in words else words


def _side(figure: Figure) -> str:
    x, y = figure.x - 0.5, figure.y - 0.5
    if abs(x) > abs(y):
        return "right" if x > 0 else "left"
    return "below" if y > 0 else "above"


def _single(rng: random.Random) -> Scene:
    background, (color, _), tail = _frame(rng)
    side = rng.choice(SIDES)
    figure, text = _place(rng, color, side)
    return Scene(background, (figure,), f"{text} {_at(side)}{tail}")


def _listed(rng: random.Random) -> Scene:
    background, colors, tail = _frame(rng)
    side = rng.choice(SIDES)
    first, text = _place(rng, colors[0], side)
    second, other = _place(rng, colors[1], OPPOSITE[side])
    return Scene(background, (first, second), f"{text} {_at(side)} and {other} {_at(OPPOSITE[side])}{tail}")


def _related(rng: random.Random) -> Scene:
    background, colors, tail = _frame(rng)
    side = rng.choice(SIDES)
    first, text = _place(rng, colors[0], side)
    second, other = _place(rng, colors[1], OPPOSITE[side])
    relation = side
    if side in ("left", "right"):
        relation = f"{'to the ' if rng.random() < 0.3 else ''}{side} of"
    return Scene(background, (first, second), f"{text} {relation} {other}{tail}")


SAMPLERS: dict[int, Callable[[random.Random], Scene]] = {
    SINGLE: _single,
    LISTED: _listed,
    RELATED: _related,
    FREE: lambda rng: sample_scene(rng, FREE_ALONE),
}


def _frame(rng: random.Random) -> tuple[str, list[str], str]:
    """Choose a background, two colours, and what the caption says of the background."""
    background = "white" if rng.random() < 0.4 else rng.choice(list(COLORS))
    colors = rng.sample([color for color in FIGURE_COLORS if color != background], 2)
    is_said = background != "white" or rng.random() < 0.5
    return background, colors, f" on {article(background)} background" if is_said else ""


def _place(rng: random.Random, color: str, side: str) -> tuple[Figure, str]:
    shape, radius, text = sample_figure(rng, color, RADII_PAIRED)
    near = 0.5 + (-1 if side in ("left", "above") else 1) * rng.uniform(0.23, 0.255)
    off = 0.5 + rng.uniform(-0.06, 0.06)
    x, y = (near, off) if side in ("left", "right") else (off, near)
    return Figure(shape, color, x, y, radius), text


def _at(side: str) -> str:
    return f"on the {side}" if side in ("left", "right") else side
