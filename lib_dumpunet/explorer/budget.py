"""Decide what fits into a page: how many maps of each layer, at which size, and for which steps.

Summaries come first, because a page is useless without them: their maps are downscaled until they fit, then only every
second, third, ... step is kept. The remaining bytes go to single channels, the same number of bytes for each layer; a
layer that needs less leaves the rest to the others. Channels are downscaled too, if otherwise too few would fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lib_dumpunet.explorer.maps import Size, size_at

SIDES = (1 << 20, 64, 32, 16)
"""Longest sides of maps to try, in pixels; the first means the map's own size."""
HEAD = 16  # bytes of a map's ranges
ENOUGH = 16
"""With fewer channels of a layer than this, downscaling is better than leaving out more."""


@dataclass(frozen=True)
class Need:
    """What a layer has: ``maps`` of ``size`` in each of ``frames`` steps, and its compression ``ratio``."""

    maps: int
    frames: int
    size: Size
    ratio: float = 1.0

    def bytes_of(self, size: Size) -> float:
        """Estimate the bytes of one map at a size."""
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
    """Give each layer all of its maps, at the largest size and for the most steps that fit into ``room`` bytes."""
    shares: list[Share] = []
    for side in SIDES:
        shares = [Share(need.maps, size_at(need.size, side)) for need in needs]
        if _total(needs, shares) <= room:
            return shares
    most = max((need.frames for need in needs), default=1)
    every = next((n for n in range(1, most) if _total(needs, _thinned(shares, n)) <= room), most)
    return _thinned(shares, every)


def fit_some(needs: Sequence[Need], room: float) -> list[Share]:
    """Give each layer as many of its maps as fit into ``room`` bytes."""
    shares: list[Share] = []
    for side in SIDES:
        shares = _level(needs, [size_at(need.size, side) for need in needs], room)
        if all(s.maps >= min(n.maps, ENOUGH) for n, s in zip(needs, shares, strict=True)):
            break
    return shares


def _level(needs: Sequence[Need], sizes: Sequence[Size], room: float) -> list[Share]:
    """Divide ``room`` bytes so that no layer gets more than another that still lacks maps."""
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
