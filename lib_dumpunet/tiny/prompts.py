"""Prompts that the bundled model is measured with, drawn by lot."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .scenes import FIGURE_COLORS, SHAPES, article, held_out


@dataclass(frozen=True)
class Prompt:
    """What a picture is asked to show."""

    colors: tuple[str, ...]
    shapes: tuple[str, ...]
    background: str
    relation: str = ""

    @property
    def text(self) -> str:
        """The prompt in the captions' words."""
        objects = [article(f"{color} {shape}") for color, shape in zip(self.colors, self.shapes, strict=True)]
        return f" {self.relation} ".join(objects) + f" on {article(self.background)} background"


def draw_prompts(count: int, objects: int, seed: int, *, new: bool = False) -> list[Prompt]:
    """Draw prompts by lot, on the two backgrounds that no object has the colour of.

    All pairs of colour and shape are such as were trained, or, where `new`, such as were not.
    """
    rng = random.Random(seed)
    prompts = []
    for _ in range(count):
        colors = tuple(rng.sample(FIGURE_COLORS, objects))
        shapes = tuple(
            rng.choice([shape for shape in SHAPES if held_out(color, shape) == new]) for color in colors
        )
        relation = rng.choice(["left of", "right of", "above", "below", "and"]) if objects > 1 else ""
        prompts.append(Prompt(colors, shapes, rng.choice(["white", "gray"]), relation))
    return prompts
