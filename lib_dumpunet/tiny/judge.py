"""Say what a picture shows, from its pixels alone: background, colours and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .scenes import COLORS, SHAPES, Figure, silhouette

SIDE = 128  # pictures are judged at this size
NEAR = 70.0  # farthest distance in RGB at which a pixel still has a colour's name
BORDER = 6  # pixels along the edges that tell the background
SEEN = 0.008  # part of the picture from which on a colour counts as there
SMALLEST = 30  # pixels; fewer have no shape

NAMES = tuple(COLORS)
_PALETTE = np.array(list(COLORS.values()), np.float32)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Reading:
    """The index in NAMES of each pixel's colour, "h w"; -1 where none is near."""

    labels: NDArray[np.int64]

    @cached_property
    def background(self) -> str:
        """The commonest colour of the border."""
        rows, columns = self.labels, self.labels.T
        border = np.concatenate([part.ravel() for x in (rows, columns) for part in (x[:BORDER], x[-BORDER:])])
        return NAMES[int(np.bincount(border + 1, minlength=len(NAMES) + 1)[1:].argmax())]

    @cached_property
    def shares(self) -> dict[str, float]:
        """The part of the picture that each colour but the background covers."""
        return {name: float(self.where(name).mean()) for name in NAMES if name != self.background}

    @property
    def main_color(self) -> str:
        """The colour that covers most, after the background."""
        return max(self.shares, key=self.shares.__getitem__)

    def has(self, color: str) -> bool:
        """Whether there is enough of a colour to be seen."""
        return self.shares.get(color, 0.0) > SEEN

    def where(self, color: str) -> Mask:
        """The pixels of one colour."""
        return self.labels == NAMES.index(color)

    @property
    def foreground(self) -> Mask:
        """All pixels but the background's."""
        return ~self.where(self.background)


def read_picture(image: Image.Image) -> Reading:
    """Name each pixel's colour by the nearest one of the palette."""
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    distance = np.linalg.norm(pixels[:, :, None] - _PALETTE, axis=-1)
    return Reading(np.where(distance.min(-1) < NEAR, distance.argmin(-1), -1))


def closest_shape(mask: Mask) -> str | None:
    """Return the shape whose silhouette overlaps a mask best when put at its centre with its area."""
    if mask.sum() < SMALLEST:
        return None
    return max(SHAPES, key=lambda shape: _overlap(mask, shape))


def _overlap(mask: Mask, shape: str) -> float:
    """Intersection over union of a mask and a shape of the same centre and area."""
    trial = Figure(shape, "black", 0.5, 0.5, 0.3)
    reference = _drawn(trial)
    radius = trial.radius * float(mask.sum() / reference.sum()) ** 0.5
    (x, y), (cx, cy) = _centre(mask), _centre(reference)
    grown = radius / trial.radius
    fitted = _drawn(Figure(shape, "black", x - (cx - 0.5) * grown, y - (cy - 0.5) * grown, radius))
    return float((fitted & mask).sum() / (fitted | mask).sum())


def _drawn(figure: Figure) -> Mask:
    return np.asarray(silhouette(figure, SIDE)) > 127


def _centre(mask: Mask) -> tuple[float, float]:
    """The mean position of a mask's pixels, x and y in parts of the side."""
    rows, columns = np.nonzero(mask)
    return float(columns.mean()) / SIDE, float(rows.mean()) / SIDE


def relation_holds(relation: str, first: Mask, second: Mask, margin: float = 10 / SIDE) -> bool:
    """Whether one mask lies left of, right of, above or below another, by their centres."""
    (x1, y1), (x2, y2) = _centre(first), _centre(second)
    distance = {"left of": x2 - x1, "right of": x1 - x2, "above": y2 - y1, "below": y1 - y2}[relation]
    return distance > margin
