"""Recognise background, colours and shapes of a picture from its pixels alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from .scenes import COLORS, SHAPES, Figure, silhouette

SIDE = 128  # pictures are judged at this size
NEAR = 70.0  # largest RGB distance at which a pixel counts as a colour
BORDER = 6  # pixels along the edges that determine the background
SEEN = 0.008  # least fraction of the picture at which a colour counts as present
SMALLEST = 30  # least pixels of a shape
FITTING = (4.0, 2.0, 1.0, 0.5, 0.25)  # step sizes in pixels for fitting position and radius, coarse to fine

NAMES = tuple(COLORS)
_PALETTE = np.array(list(COLORS.values()), np.float32)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Reading:
    """The index in NAMES of each pixel's colour, "h w"; -1 if none is near enough."""

    labels: NDArray[np.int64]

    @cached_property
    def background(self) -> str:
        """The most common colour of the border."""
        rows, columns = self.labels, self.labels.T
        border = np.concatenate([part.ravel() for x in (rows, columns) for part in (x[:BORDER], x[-BORDER:])])
        return NAMES[int(np.bincount(border + 1, minlength=len(NAMES) + 1)[1:].argmax())]

    @cached_property
    def shares(self) -> dict[str, float]:
        """The fraction of the picture that each colour covers, except the background."""
        return {name: float(self.where(name).mean()) for name in NAMES if name != self.background}

    @property
    def main_color(self) -> str:
        """The most common colour after the background."""
        return max(self.shares, key=self.shares.__getitem__)

    def has(self, color: str) -> bool:
        """Whether a colour is present."""
        return self.shares.get(color, 0.0) > SEEN

    def where(self, color: str) -> Mask:
        """The pixels of one colour."""
        return self.labels == NAMES.index(color)

    @property
    def foreground(self) -> Mask:
        """All pixels except the background's."""
        return ~self.where(self.background)

    @cached_property
    def objects(self) -> tuple[Mask, ...]:
        """The connected components of the foreground that are large enough, largest first."""
        parts, count = ndimage.label(self.foreground)
        masks = [parts == i + 1 for i in range(count)]
        return tuple(sorted((m for m in masks if m.mean() > SEEN), key=np.sum, reverse=True))

    def color_of(self, mask: Mask) -> str | None:
        """The most common colour under a mask; None if most pixels have no named colour."""
        named = np.bincount(self.labels[mask] + 1, minlength=len(NAMES) + 1)
        return None if named.argmax() == 0 else NAMES[int(named.argmax()) - 1]


def read_picture(image: Image.Image, side: int = SIDE) -> Reading:
    """Assign the nearest palette colour to each of side x side pixels."""
    pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BOX), np.float32)
    distance = np.linalg.norm(pixels[:, :, None] - _PALETTE, axis=-1)
    return Reading(np.where(distance.min(-1) < NEAR, distance.argmin(-1), -1))


def closest_shape(mask: Mask) -> str | None:
    """Return the shape whose silhouette, with the mask's centre and area, overlaps the mask best."""
    if mask.sum() < SMALLEST:
        return None
    return max(SHAPES, key=lambda shape: _overlap(mask, shape))


def best_overlap(mask: Mask, shape: str) -> float:
    """Return the intersection over union of a mask and the ideal shape, at its best position and size."""
    if mask.sum() < SMALLEST:
        return 0.0
    figure = _roughly(mask, shape)
    best = _union_share(mask, figure)
    for step in (pixels / len(mask) for pixels in FITTING):
        better = True
        while better:
            better = False
            for name, sign in itertools.product(("x", "y", "radius"), (-1, 1)):
                moved = replace(figure, **{name: getattr(figure, name) + sign * step})
                share = _union_share(mask, moved) if moved.radius > 0 else 0.0
                if share > best:
                    best, figure, better = share, moved, True
    return best


def _overlap(mask: Mask, shape: str) -> float:
    """Return the intersection over union of a mask and a shape with the same centre and area."""
    return _union_share(mask, _roughly(mask, shape))


def _union_share(mask: Mask, figure: Figure) -> float:
    fitted = _drawn(figure, len(mask))
    return float((fitted & mask).sum() / (fitted | mask).sum())


def _roughly(mask: Mask, shape: str) -> Figure:
    """Return a shape with the centre and the area of a mask."""
    trial = Figure(shape, "black", 0.5, 0.5, 0.3)
    reference = _drawn(trial, len(mask))
    radius = trial.radius * float(mask.sum() / reference.sum()) ** 0.5
    (x, y), (cx, cy) = _centre(mask), _centre(reference)
    grown = radius / trial.radius
    return Figure(shape, "black", x - (cx - 0.5) * grown, y - (cy - 0.5) * grown, radius)


def _drawn(figure: Figure, side: int) -> Mask:
    return np.asarray(silhouette(figure, side)) > 127


def _centre(mask: Mask) -> tuple[float, float]:
    """Return the mean position (x, y) of a mask's pixels, as fractions of the side."""
    rows, columns = np.nonzero(mask)
    return float(columns.mean()) / len(mask), float(rows.mean()) / len(mask)


def relation_holds(relation: str, first: Mask, second: Mask, margin: float = 10 / SIDE) -> bool:
    """Return whether one mask is left of, right of, above or below another, by their centres."""
    (x1, y1), (x2, y2) = _centre(first), _centre(second)
    distance = {"left of": x2 - x1, "right of": x1 - x2, "above": y2 - y1, "below": y1 - y2}[relation]
    return distance > margin
