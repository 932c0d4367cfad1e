"""Lay the heatmaps of words and points over the image that came out."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.image.numbers import numbers_of
from lib_dumpunet.image.overlay import draw_overlay, layer_of
from lib_dumpunet.kinds import of_image
from lib_dumpunet.ports import Picture
from lib_dumpunet.prompt.points import Point
from lib_dumpunet.sinks.picture import Show


@dataclass
class _Expected:
    picture: Image.Image | None
    left: int


class HeatmapSink:
    """Draw each word and point over its image, and as a transparent layer of the image's size.

    ``about`` is put into the captions: of which blocks and steps the maps are means. ``points`` are those whose maps
    come.
    """

    def __init__(self, about: Mapping[str, str], show: Show, points: Sequence[Point] = ()) -> None:
        self._about, self._show = dict(about), show
        self._points = {point.name: point for point in points}
        self._images: dict[int, _Expected] = {}
        self._lock = threading.Lock()

    def expect(self, image: int, picture: Image.Image | None, count: int) -> None:
        """Take the image that the next ``count`` captures of its number belong to; None if it never came out."""
        if count:
            with self._lock:
                self._images[image] = _Expected(picture, count)

    def accept(self, capture: Capture) -> None:
        """Draw one word or point."""
        if not of_image(capture.tag.kind):
            return
        picture = self._take(capture.tag.image)
        info = {caption(capture.tag): capture.tag.name, **self._about}
        point = self._points[capture.tag.name] if capture.tag.kind == "point" else None
        place = None if point is None or picture is None else point.place
        overlay = draw_overlay(picture, capture.tensor, _title(capture.tag, point), point=place)
        numbers = numbers_of(capture.tensor)
        self._show(Picture(overlay, capture.tag, "whole", info, numbers))
        if picture is not None:
            layer = layer_of(capture.tensor, picture.size)
            self._show(Picture(layer, capture.tag, "layer", info, numbers))

    def close(self) -> None:
        """Do nothing: all pictures are out already."""

    def _take(self, image: int) -> Image.Image | None:
        """Give an image, and let go of it with its last capture."""
        with self._lock:
            expected = self._images[image]
            expected.left -= 1
            if not expected.left:
                del self._images[image]
            return expected.picture


def caption(tag: Tag) -> str:
    """Name the caption that tells the word or point."""
    if tag.kind == "point":
        return "Point"
    return "Negative Word" if tag.branch == "uncond" else "Word"


def _title(tag: Tag, point: Point | None) -> str:
    if point is not None:
        return f"from {point.x}, {point.y}"
    return f"negative: {tag.name}" if tag.branch == "uncond" else tag.name
