"""Draw many scenes at once, on any device: the pictures of `scenes.render`, with antialiased edges.

The coverage of a pixel comes from its signed distance to an outline. Lengths are fractions of the picture's side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .scenes import COLORS, HOLE, OUTLINES, SHAPES, Scene

MOST_FIGURES = 2
PALETTE = torch.tensor(list(COLORS.values())) / 127.5 - 1
_COLOR = {name: index for index, name in enumerate(COLORS)}
_SHAPE = {name: index for index, name in enumerate(SHAPES)}
_ROUND = ("circle", "ring")


@dataclass
class Figures:
    """Scenes as tensors; a missing figure has radius 0."""

    background: Tensor  # "scene", index into COLORS
    color: Tensor  # "scene figure"
    shape: Tensor  # "scene figure", index into SHAPES
    place: Tensor  # "scene figure 3": x, y, radius

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.background)

    def __getitem__(self, chosen: slice | Tensor) -> Figures:
        """Return some of the scenes."""
        return Figures(self.background[chosen], self.color[chosen], self.shape[chosen], self.place[chosen])


def as_tensors(scenes: Sequence[Scene]) -> Figures:
    """Convert scenes to tensors."""
    color, shape, place = [], [], []
    for scene in scenes:
        lacking = MOST_FIGURES - len(scene.figures)
        color.append([_COLOR[figure.color] for figure in scene.figures] + [0] * lacking)
        shape.append([_SHAPE[figure.shape] for figure in scene.figures] + [0] * lacking)
        place.append(
            [(figure.x, figure.y, figure.radius) for figure in scene.figures] + [(0.5, 0.5, 0.0)] * lacking
        )
    background = torch.tensor([_COLOR[scene.background] for scene in scenes], dtype=torch.uint8)
    colors, shapes = (torch.tensor(index, dtype=torch.uint8) for index in (color, shape))
    return Figures(background, colors, shapes, torch.tensor(place))


def draw(figures: Figures, window: Tensor, side: int) -> Tensor:
    """Draw a square window "scene 3" (left, top, width) of each scene as "scene 3 side side" from -1 to 1."""
    palette = PALETTE.to(window.device)
    picture = palette[figures.background.long()][:, :, None, None].expand(-1, -1, side, side)
    grid = (torch.arange(side, device=window.device) + 0.5) / side
    x = (window[:, 0, None] + window[:, 2, None] * grid)[:, None, :]
    y = (window[:, 1, None] + window[:, 2, None] * grid)[:, :, None]
    for i in range(MOST_FIGURES):
        place, shape = figures.place[:, i], figures.shape[:, i]
        covered = _coverage(x, y, place, shape, window[:, 2] / side)[:, None]
        picture = torch.lerp(picture, palette[figures.color[:, i].long()][:, :, None, None], covered)
    return picture


def _coverage(x: Tensor, y: Tensor, place: Tensor, shape: Tensor, pixel: Tensor) -> Tensor:
    """Return how much of each pixel "scene h w" the figures cover."""
    covered = torch.zeros(torch.broadcast_shapes(x.shape, y.shape), device=x.device)
    for index, name in enumerate(SHAPES):
        chosen = ((shape == index) & (place[:, 2] > 0)).nonzero().flatten()
        if len(chosen) == 0:
            continue
        left, top, radius = place[chosen].T[:, :, None, None]
        # In units of the radius, around the figure's centre.
        distance = _distance(name, (x[chosen] - left) / radius, (y[chosen] - top) / radius)
        covered[chosen] = (0.5 - distance * radius / pixel[chosen, None, None]).clamp(0, 1)
    return covered


def _distance(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Return the distance to a shape's outline, negative inside."""
    if shape not in _ROUND:
        return _polygon_distance(OUTLINES[shape], x, y)
    away = (x.square() + y.square()).sqrt()
    return (away - 1).maximum(HOLE - away) if shape == "ring" else away - 1


def _polygon_distance(corners: Sequence[tuple[float, float]], x: Tensor, y: Tensor) -> Tensor:
    """Return the distance to a polygon's edges, negative where a ray to the right crosses them an odd
    number of times.
    """
    nearest, inside = torch.tensor(float("inf"), device=x.device), torch.tensor(False, device=x.device)
    for (x1, y1), (x2, y2) in zip(corners, [*corners[1:], corners[0]], strict=True):
        along, down = x2 - x1, y2 - y1
        if math.hypot(along, down) < 1e-9:  # an outline may end where it began
            continue
        right, below = x - x1, y - y1
        part = ((right * along + below * down) / (along**2 + down**2)).clamp(0, 1)
        nearest = nearest.minimum((right - part * along).square() + (below - part * down).square())
        if down:
            inside = inside ^ ((y1 <= y) != (y2 <= y)) & (right < below * (along / down))
    return torch.where(inside, -nearest.sqrt(), nearest.sqrt())
