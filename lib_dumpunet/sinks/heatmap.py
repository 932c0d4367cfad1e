"""Draw the heatmaps of words and points over the generated image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.image.numbers import numbers_of
from lib_dumpunet.image.overlay import draw_overlay, layer_of
from lib_dumpunet.kinds import of_image
from lib_dumpunet.ports import Picture
from lib_dumpunet.prompt.points import Point
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.picture import Show


class HeatmapSink(Sink):
    """Draw each word and point over its image, and as a transparent layer of the image's size.

    ``about`` is added to the captions: the blocks and steps that the maps are averaged over. ``points`` are the points
    to expect.
    """

    def __init__(self, about: Mapping[str, str], show: Show, points: Sequence[Point] = ()) -> None:
        self._about, self._show = dict(about), show
        self._points = {point.name: point for point in points}
        self._images: dict[int, Image.Image | None] = {}

    def see_image(self, image: int, picture: Image.Image | None) -> None:
        """Take the image to draw its words and points over."""
        self._images[image] = picture

    def accept(self, capture: Capture) -> None:
        """Draw one word or point."""
        if not of_image(capture.tag.kind):
            return
        picture = self._images[capture.tag.image]
        info = {caption(capture.tag): capture.tag.name, **self._about}
        point = self._points[capture.tag.name] if capture.tag.kind == "point" else None
        place = None if point is None or picture is None else point.place
        overlay = draw_overlay(picture, capture.tensor, _title(capture.tag, point), point=place)
        numbers = numbers_of(capture.tensor)
        self._show(Picture(overlay, capture.tag, "whole", info, numbers))
        if picture is not None:
            layer = layer_of(capture.tensor, picture.size)
            self._show(Picture(layer, capture.tag, "layer", info, numbers))

    def finish_image(self, image: int) -> None:
        """Release an image."""
        self._images.pop(image, None)


def caption(tag: Tag) -> str:
    """Return the name of the caption that has the word or point."""
    if tag.kind == "point":
        return "Point"
    return "Negative Word" if tag.branch == "uncond" else "Word"


def _title(tag: Tag, point: Point | None) -> str:
    if point is not None:
        return f"from {point.x}, {point.y}"
    return f"negative: {tag.name}" if tag.branch == "uncond" else tag.name
