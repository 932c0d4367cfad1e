"""Draw what attention layers do: keys, maps of tokens and heads, what they get out of the text, and self-attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.image.average import average
from lib_dumpunet.image.draw import draw_features
from lib_dumpunet.image.expression import compile_channels
from lib_dumpunet.image.numbers import numbers_of
from lib_dumpunet.image.sheet import draw_components, draw_lattice, draw_sheet
from lib_dumpunet.ports import Picture
from lib_dumpunet.settings import AttentionSettings
from lib_dumpunet.sinks.picture import Show

KEY_SIDE = 4  # pixels of a key's number
SHADES = 2.0  # standard deviations that the components' colours span on either side of their mean


class AttentionSink:
    """Draw each attention layer's captures.

    ``labels`` gives the text of each of the tokens that a layer has read, whose number it is told, and nothing if they
    are not known: they are numbered then.
    ``ratio`` is width / height of the generated image.

    Raises:
        FormulaError: at once, for a colour formula that cannot be read.
    """

    def __init__(
        self,
        settings: AttentionSettings,
        labels: Callable[[Tag, int], Sequence[str]],
        ratio: float,
        show: Show,
    ) -> None:
        compile_channels(settings.color)
        self._settings, self._labels, self._ratio, self._show = settings, labels, ratio, show

    def accept(self, capture: Capture) -> None:
        """Draw one capture; pictures are independent of each other, so no state is kept."""
        draw = {
            "k": self._keys,
            "qk": self._maps,
            "vqk": self._values,
            "self": self._looks,
            "pca": self._components,
        }.get(capture.tag.kind)
        if draw is not None:
            numbers = numbers_of(capture.tensor)
            for title, image in draw(capture):
                self._show(Picture(image, capture.tag, title, _info(capture.tag), numbers))

    def close(self) -> None:
        """Do nothing: all pictures are out already."""

    def _keys(self, capture: Capture) -> Iterator[tuple[str, Image.Image]]:
        """Draw "token dim" for each head, each number as a square that can be seen."""
        for title, keys in self._with_average(capture.tensor):
            large = keys.repeat_interleave(KEY_SIDE, 1).repeat_interleave(KEY_SIDE, 2)
            yield title, draw_sheet(large[None], self._settings.color, _heads(keys, title), [""])

    def _maps(self, capture: Capture) -> Iterator[tuple[str, Image.Image]]:
        """Draw a column for each token, a row for each head."""
        tokens = capture.tensor.shape[1]
        columns: Sequence[str] = self._labels(capture.tag, tokens)
        if len(columns) != tokens:
            columns = [str(number) for number in range(tokens)]
        for title, maps in self._with_average(capture.tensor):
            yield title, draw_sheet(maps, self._settings.color, columns, _heads(maps, title))

    def _values(self, capture: Capture) -> Iterator[tuple[str, Image.Image]]:
        """Draw all channels, as of a block's features."""
        for title, channels in self._with_average(capture.tensor):
            yield title, draw_features(channels, self._settings.color, self._ratio)

    def _looks(self, capture: Capture) -> Iterator[tuple[str, Image.Image]]:
        """Draw where each point of the lattice looks; of many heads the mean is what one can read."""
        kind = "sum" if self._settings.average == "disable" else self._settings.average
        mean = average(capture.tensor, kind)
        assert mean is not None
        yield "", draw_lattice(mean[0], self._settings.color)

    def _components(self, capture: Capture) -> Iterator[tuple[str, Image.Image]]:
        """Draw three components as red, green and blue."""
        yield "", draw_components(torch.clamp(0.5 + capture.tensor / (2 * SHADES), 0, 1))

    def _with_average(self, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        mean = average(tensor, self._settings.average)
        if mean is not None:
            yield "average", mean
        yield "", tensor


def _heads(tensor: Tensor, title: str) -> list[str]:
    return [title] if title else [f"head {number}" for number in range(1, len(tensor) + 1)]


def _info(tag: Tag) -> dict[str, str]:
    info = {"Layer Name": tag.block, "Feature Steps": tag.when, "Attention": tag.kind}
    return {**info, "Attention Layer": str(tag.site + 1)} if tag.site else info
