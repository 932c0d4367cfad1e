"""The training pictures of the bundled model: one or two coloured shapes, with a caption.

Everything derives from a `random.Random`, so a seed reproduces the same pictures. Lengths are fractions of the
picture's side, with the origin at the upper left corner and y pointing down.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

Point = tuple[float, float]

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 40),
    "green": (40, 165, 65),
    "blue": (40, 80, 220),
    "yellow": (250, 215, 40),
    "orange": (248, 132, 25),
    "purple": (135, 55, 180),
    "pink": (250, 150, 195),
    "cyan": (60, 205, 225),
    "brown": (125, 75, 40),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
}
BACKGROUND_ONLY = ("white", "gray")
FIGURE_COLORS = tuple(color for color in COLORS if color not in BACKGROUND_ONLY)
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond")

# Radii by size word. Large on purpose: the networks see cells of 8 x 8 pixels, and shapes less than about six cells
# wide hardly differ.
RADII_ALONE = {"": (0.24, 0.30), "small": (0.15, 0.19), "large": (0.35, 0.41)}
RADII_PAIRED = {"": (0.16, 0.19), "small": (0.11, 0.13), "large": (0.20, 0.22)}
SIZE_ODDS = {"": 0.6, "small": 0.15, "large": 0.25}
REACH = 1.12  # largest distance of a vertex from its figure's centre, in radii

RELATIONS = ("left of", "right of", "above", "below", "and", "next to")  # in equal parts
OPENINGS = ("a picture of ", "a drawing of ")
FILLER = "a an the of on and to next left right above below background picture drawing small large big shape"
WORDS = tuple(sorted({*COLORS, *SHAPES, *FILLER.split()}))


@dataclass(frozen=True)
class Figure:
    """One shape: its kind, colour, centre and radius."""

    shape: str
    color: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn, with the caption that describes it."""

    background: str
    figures: tuple[Figure, ...]
    caption: str


def _polygon(corners: int, radius: Callable[[int], float]) -> list[Point]:
    """Return corners around the origin, starting at the top."""
    turns = [2 * math.pi * i / corners - math.pi / 2 for i in range(corners)]
    return [(radius(i) * math.cos(turn), radius(i) * math.sin(turn)) for i, turn in enumerate(turns)]


def _heart() -> list[Point]:
    turns = [2 * math.pi * i / 79 for i in range(80)]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
        )
        for t in turns
    ]


def _cross(arm: float) -> list[Point]:
    quarter = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    corners = []
    for _ in range(4):
        corners += quarter
        quarter = [(-y, x) for x, y in quarter]
    return corners


_DISC = _polygon(72, lambda i: 1.0)
OUTLINES: dict[str, list[Point]] = {
    "circle": _DISC,
    "ring": _DISC,
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0.0, -1.0), (1.05, 0.85), (-1.05, 0.85)],
    "star": _polygon(10, lambda i: 0.48 if i % 2 else 1.12),
    "heart": _heart(),
    "cross": _cross(0.34),
    "diamond": [(0.0, -1.1), (0.8, 0.0), (0.0, 1.1), (-0.8, 0.0)],
}
HOLE = 0.55  # fraction of a ring's radius


def silhouette(figure: Figure, side: int) -> Image.Image:
    """Draw a figure's mask on side x side pixels: 255 inside, 0 outside."""
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    x, y, radius = figure.x * side, figure.y * side, figure.radius * side
    draw.polygon([(x + px * radius, y + py * radius) for px, py in OUTLINES[figure.shape]], fill=255)
    if figure.shape == "ring":
        hole = HOLE * radius
        draw.ellipse([x - hole, y - hole, x + hole, y + hole], fill=0)
    return mask


def render(scene: Scene, side: int = 256, oversampling: int = 2) -> Image.Image:
    """Draw a scene at side x side pixels, oversampled for smooth edges."""
    canvas = side * oversampling
    image = Image.new("RGB", (canvas, canvas), COLORS[scene.background])
    for figure in scene.figures:
        image.paste(COLORS[figure.color], (0, 0), silhouette(figure, canvas))
    return image.reduce(oversampling)


def article(words: str) -> str:
    """Prepend "a" or "an"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def held_out(color: str, shape: str) -> bool:
    """Whether training pictures never have this colour and shape together: a fifth of all pairs, to test binding."""
    return (FIGURE_COLORS.index(color) + SHAPES.index(shape)) % 5 == 0


def sample_scene(rng: random.Random, alone: float = 0.5) -> Scene:
    """Sample a scene: a background, one figure (with probability `alone`) or two, and a caption."""
    background = "white" if rng.random() < 0.4 else rng.choice(list(COLORS))
    colors = rng.sample([color for color in FIGURE_COLORS if color != background], 2)
    figures, text = _alone(rng, colors[0]) if rng.random() < alone else _paired(rng, colors)
    if rng.random() < 0.2:
        text = rng.choice(OPENINGS) + text
    # Half of the captions with a white background do not mention it.
    if background != "white" or rng.random() < 0.5:
        text += f" on {article(background)} background"
    return Scene(background, figures, text)


def _alone(rng: random.Random, color: str) -> tuple[tuple[Figure, ...], str]:
    shape, radius, text = sample_figure(rng, color, RADII_ALONE)
    slack = min(0.12, 0.49 - REACH * radius)
    x, y = (0.5 + rng.uniform(-slack, slack) for _ in "xy")
    return (Figure(shape, color, x, y, radius),), text


def _paired(rng: random.Random, colors: list[str]) -> tuple[tuple[Figure, ...], str]:
    relation = rng.choice(RELATIONS)
    free = relation in ("and", "next to")
    across = relation in ("left of", "right of", "next to") or (relation == "and" and rng.random() < 0.7)
    first_is_low = rng.random() < 0.6 if free else relation in ("left of", "above")
    figures, texts = [], []
    for color, sign in zip(colors, (-1, 1) if first_is_low else (1, -1), strict=True):
        shape, radius, text = sample_figure(rng, color, RADII_PAIRED)
        near, off = 0.5 + sign * rng.uniform(0.23, 0.255), 0.5 + rng.uniform(-0.06, 0.06)
        x, y = (near, off) if across else (off, near)
        figures.append(Figure(shape, color, x, y, radius))
        texts.append(text)
    if relation in ("left of", "right of") and rng.random() < 0.5:
        relation = "to the " + relation
    return tuple(figures), f"{texts[0]} {relation} {texts[1]}"


def sample_figure(
    rng: random.Random, color: str, radii: dict[str, tuple[float, float]]
) -> tuple[str, float, str]:
    """Choose shape and size; also return the words for them, rarely without the colour or the shape."""
    shape = rng.choice([shape for shape in SHAPES if not held_out(color, shape)])
    size = rng.choices(list(SIZE_ODDS), list(SIZE_ODDS.values()))[0]
    radius = rng.uniform(*radii[size])
    size_word = "big" if size == "large" and rng.random() < 0.4 else size
    color_word = color if rng.random() > 0.02 else ""
    shape_word = shape if rng.random() > 0.02 else "shape"
    return shape, radius, article(" ".join(word for word in (size_word, color_word, shape_word) if word))
