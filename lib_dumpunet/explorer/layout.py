"""Lay out blocks as a U: blocks of the same resolution form a level, from the highest at the top to the middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_dumpunet.explorer.maps import Size

USUAL = 3
"""Blocks per level on each side in Stable Diffusion, used if sizes are not known."""


def levels_of(order: Sequence[str], sizes: Mapping[str, Size]) -> dict[str, int]:
    """Return the level of each block, from 0; ``sizes`` are the known output sizes of blocks.

    An OUT block has the level of the IN block whose output it takes through its skip connection, because both work at
    the same resolution: the last OUT block takes the first IN block's output, and so on.
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
