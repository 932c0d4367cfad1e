"""Parse points of the image: ``120,80 200,200``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lib_dumpunet.errors import SettingsError, SourcePosition

FIELD = "Points"
MOST = 64
_POINT = re.compile(r"(\d{1,5})\s*,\s*(\d{1,5})(?=\s|$)")
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Point:
    """A pixel of the image, counted from the upper left corner, and its centre as fractions of width and height."""

    x: int
    y: int
    place: tuple[float, float]

    @property
    def name(self) -> str:
        """The point's name in files and captions: ``120x80``."""
        return f"{self.x}x{self.y}"


def parse_points(text: str, size: tuple[int, int] | None = None, *, field: str = FIELD) -> tuple[Point, ...]:
    """Parse points in an image of ``size`` (width, height); None skips the check that they are inside.

    Returns:
        the distinct points, in order.
    Raises:
        SettingsError: with the position, if something is not a point or is outside the image.
    """
    width, height = size or (10**5, 10**5)
    points: dict[str, Point] = {}
    position = _end_of_space(text, 0)
    while position < len(text):
        match = _POINT.match(text, position)
        if match is None:
            raise SettingsError(
                "a point is expected here",
                remedy="Write X,Y in pixels, separated by spaces, such as 120,80 200,200.",
                field=field,
                source=SourcePosition(text, position),
            )
        x, y = int(match[1]), int(match[2])
        if x >= width or y >= height:
            raise SettingsError(
                f"{x},{y} is outside the image of {width}x{height} pixels",
                remedy=f"Use 0 to {width - 1} and 0 to {height - 1}.",
                field=field,
                source=SourcePosition(text, position),
            )
        point = Point(x, y, ((x + 0.5) / width, (y + 0.5) / height))
        points.setdefault(point.name, point)
        if len(points) > MOST:
            raise SettingsError(
                f"there are more than {MOST} points",
                remedy="Leave some out.",
                field=field,
                source=SourcePosition(text, position),
            )
        position = _end_of_space(text, match.end())
    return tuple(points.values())


def _end_of_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()
