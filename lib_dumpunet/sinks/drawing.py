"""Draw each kind of tensor; the table of kinds refers to the drawings by name.

A drawing yields the average map first, if one is wanted, then the whole picture, each with the values it shows.
``channels`` and ``difference`` also take NumPy arrays, so that files can be drawn without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from lib_dumpunet.captures import Tag
from lib_dumpunet.image.average import average
from lib_dumpunet.image.draw import draw_features
from lib_dumpunet.kinds import Role
from lib_dumpunet.settings import ColorSettings

KEY_SIDE = 4  # pixels per side of one value of a key
SHADES = 2.0  # standard deviations from the mean that the colours of components span

Labels = Callable[[Tag, int], Sequence[str]]
"""Returns the labels of the tokens that a layer reads, given their count; empty if they are not known."""


class Appearance(Protocol):
    """Settings that say how a kind is drawn."""

    @property
    def average(self) -> str: ...

    @property
    def color(self) -> ColorSettings: ...


def _unknown(tag: Tag, count: int) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Style:
    """How to draw: colours and average, aspect ratio (width by height) of the generated image, and token labels."""

    settings: Appearance
    ratio: float
    labels: Labels = _unknown


Drawn = Iterator[tuple[Role, Any, Image.Image]]
Draw = Callable[[Tag, Any, Style], Drawn]


def _with_average(tensor: Any, style: Style) -> Iterator[tuple[Role, Any]]:
    mean = average(tensor, style.settings.average)
    if mean is not None:
        yield "average", mean
    yield "whole", tensor


def draw_channels(tag: Tag, tensor: Any, style: Style) -> Drawn:
    """Draw all channels of "c h w" as a grid, with an aspect ratio near the image's."""
    for role, channels in _with_average(tensor, style):
        yield role, channels, draw_features(channels, style.settings.color, style.ratio)


def draw_difference(tag: Tag, tensor: Any, style: Style) -> Drawn:
    """Draw as ``draw_channels``, but White/Black shows absolute values."""
    absolute = style.settings.color.method == "white-black"
    for role, channels in _with_average(tensor, style):
        shown = abs(channels) if absolute else channels
        yield role, channels, draw_features(shown, style.settings.color, style.ratio)


def draw_keys(tag: Tag, tensor: Any, style: Style) -> Drawn:
    """Draw a map "token dim" for each head, each value as a small square."""
    from lib_dumpunet.image.sheet import draw_sheet

    for role, keys in _with_average(tensor, style):
        large = keys.repeat_interleave(KEY_SIDE, 1).repeat_interleave(KEY_SIDE, 2)
        yield role, keys, draw_sheet(large[None], style.settings.color, _heads(keys, role), [""])


def draw_tokens(tag: Tag, tensor: Any, style: Style) -> Drawn:
    """Draw a column for each token, a row for each head."""
    from lib_dumpunet.image.sheet import draw_sheet

    tokens = tensor.shape[1]
    columns: Sequence[str] = style.labels(tag, tokens)
    if len(columns) != tokens:
        columns = [str(number) for number in range(tokens)]
    for role, maps in _with_average(tensor, style):
        yield role, maps, draw_sheet(maps, style.settings.color, columns, _heads(maps, role))


def draw_lattice(tag: Tag, tensor: Any, style: Style) -> Drawn:
    """Draw the self-attention map of each query point, averaged over heads, because single heads would be too many."""
    from lib_dumpunet.image.sheet import draw_lattice as lay_out

    kind = style.settings.average
    mean = average(tensor, "sum" if kind == "disable" else kind)
    assert mean is not None
    yield "whole", mean[0], lay_out(mean[0], style.settings.color)


def draw_components(tag: Tag, tensor: Any, style: Style) -> Drawn:
    """Draw three components as red, green and blue."""
    from lib_dumpunet.image.sheet import draw_components as mix

    yield "whole", tensor, mix((0.5 + tensor / (2 * SHADES)).clamp(0, 1))


def _heads(tensor: Any, role: Role) -> list[str]:
    return ["average"] if role == "average" else [f"head {number}" for number in range(1, len(tensor) + 1)]


DRAWINGS: dict[str, Draw] = {
    "channels": draw_channels,
    "difference": draw_difference,
    "keys": draw_keys,
    "tokens": draw_tokens,
    "lattice": draw_lattice,
    "components": draw_components,
}
"""The drawings by the names in the table of kinds."""
OF_ARRAYS = ("channels", "difference")
"""Those that take NumPy's arrays."""
