"""Where blocks stand in the U: those of one resolution are a level, from the finest at the top down to the middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_dumpunet.explorer.maps import Size

USUAL = 3
"""Blocks of a level on either side in Stable Diffusion, for where no sizes are known."""


def levels_of(order: Sequence[str], sizes: Mapping[str, Size]) -> dict[str, int]:
    """Return the level of each block, from 0; ``sizes`` are those of what blocks put out, as far as known.

    A block of the upward path stands beside that of the downward path whose output it takes in, since both work at the
    same resolution: the last takes that of the first, and so on.
    """
    down = [name for name in order if name.startswith("IN")]
    up = [name for name in order if name.startswith("OUT")]
    levels: dict[str, int] = {}
    for number, name in enumerate(down):
        if all(block in sizes for block in down):
            finer = number > 0 and sizes[name] != sizes[down[number - 1]]
            levels[name] = levels[down[number - 1]] + finer if number else 0
        else:
            levels[name] = number // USUAL
    deepest = max(levels.values(), default=0)
    for number, name in enumerate(reversed(up)):
        levels[name] = levels[down[number]] if number < len(down) else deepest
    return {name: levels.get(name, deepest + 1) for name in order}
