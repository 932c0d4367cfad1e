"""Random prompts to measure the bundled model with."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .scenes import FIGURE_COLORS, SHAPES, article, held_out


@dataclass(frozen=True)
class Prompt:
    """What an image should show."""

    colors: tuple[str, ...]
    shapes: tuple[str, ...]
    background: str
    relation: str = ""

    @property
    def text(self) -> str:
        """The prompt, worded like a caption."""
        objects = [article(f"{color} {shape}") for color, shape in zip(self.colors, self.shapes, strict=True)]
        return f" {self.relation} ".join(objects) + f" on {article(self.background)} background"


def draw_prompts(count: int, objects: int, seed: int, *, new: bool = False) -> list[Prompt]:
    """Sample random prompts, on the two background colours that no object has.

    All pairs of colour and shape are from training or, if ``new``, not from training.
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
