"""What fits into a page: how many maps of each layer, of which size, and of how many steps.

Summaries come first, since a page without them is no use: their maps get smaller until they fit, then every second,
third, ... step is left out. What is left of the room goes to single channels, the same number of bytes for each layer;
a layer that needs less leaves the rest to the others. They get smaller too, if else only a few of a layer would fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lib_dumpunet.explorer.maps import Size, size_at

SIDES = (1 << 20, 64, 32, 16)
"""Longest sides that are tried, in places; the first stands for the map's own."""
HEAD = 16  # bytes of a map's ranges
ENOUGH = 16
"""Channels of a layer below which smaller maps are better than fewer."""


@dataclass(frozen=True)
class Need:
    """What a layer has: ``maps`` of ``size`` in each of ``frames`` steps, of which compression leaves ``ratio``."""

    maps: int
    frames: int
    size: Size
    ratio: float = 1.0

    def bytes_of(self, size: Size) -> float:
        """Estimate the bytes of one map, brought to a size."""
        return (size[0] * size[1] + HEAD) * self.ratio


@dataclass(frozen=True)
class Share:
    """What a layer gets: ``maps`` of ``size``, in every ``every``-th step."""

    maps: int
    size: Size
    every: int = 1


def cost(need: Need, share: Share) -> float:
    """Estimate the bytes that a share takes."""
    return -(-need.frames // share.every) * share.maps * need.bytes_of(share.size)


def fit_all(needs: Sequence[Need], room: float) -> list[Share]:
    """Let each layer have all of its maps, as large and of as many steps as fit into ``room`` bytes together."""
    shares: list[Share] = []
    for side in SIDES:
        shares = [Share(need.maps, size_at(need.size, side)) for need in needs]
        if _total(needs, shares) <= room:
            return shares
    most = max((need.frames for need in needs), default=1)
    every = next((n for n in range(1, most) if _total(needs, _thinned(shares, n)) <= room), most)
    return _thinned(shares, every)


def fit_some(needs: Sequence[Need], room: float) -> list[Share]:
    """Let each layer have as many of its maps as fit into ``room`` bytes together."""
    shares: list[Share] = []
    for side in SIDES:
        shares = _level(needs, [size_at(need.size, side) for need in needs], room)
        if all(s.maps >= min(n.maps, ENOUGH) for n, s in zip(needs, shares, strict=True)):
            break
    return shares


def _level(needs: Sequence[Need], sizes: Sequence[Size], room: float) -> list[Share]:
    """Divide the room so that no layer gets more bytes than one that wants for some."""
    each = [need.frames * need.bytes_of(size) for need, size in zip(needs, sizes, strict=True)]
    whole = [need.maps * one for need, one in zip(needs, each, strict=True)]
    left, level = room, 0.0
    for waiting, wanted in zip(range(len(whole), 0, -1), sorted(whole), strict=True):
        level = left / waiting
        if wanted > level:
            break
        left, level = left - wanted, wanted
    return [
        Share(min(need.maps, int(max(level, 0) // one)) if wanted > level else need.maps, size)
        for need, size, one, wanted in zip(needs, sizes, each, whole, strict=True)
    ]


def _thinned(shares: Sequence[Share], every: int) -> list[Share]:
    return [Share(share.maps, share.size, every) for share in shares]


def _total(needs: Sequence[Need], shares: Sequence[Share]) -> float:
    return sum(cost(need, share) for need, share in zip(needs, shares, strict=True))
