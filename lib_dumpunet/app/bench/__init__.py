"""Measurements of speed and memory, each a ratio of two things measured side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lib_dumpunet.errors import SettingsError

if TYPE_CHECKING:
    from lib_dumpunet.app.bench.rows import Row

PARTS = ("colour", "dump", "memory", "capture")


def measure(parts: Sequence[str], say: Callable[[str], None]) -> list[Row]:
    """Run the named parts of the benchmark, or all.

    Raises:
        SettingsError: for a part that does not exist.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise SettingsError(
            f"there is no part {unknown[0]!r}", remedy=f"Use {', '.join(PARTS)}.", field="PART"
        )
    from lib_dumpunet.app.bench.capture import measure_capture
    from lib_dumpunet.app.bench.colour import measure_colour
    from lib_dumpunet.app.bench.dump import measure_dump
    from lib_dumpunet.app.bench.memory import measure_memory

    measures: tuple[Callable[[], list[Row]], ...] = (
        measure_colour,
        measure_dump,
        measure_memory,
        measure_capture,
    )
    functions = dict(zip(PARTS, measures, strict=True))
    rows = []
    for part in parts or PARTS:
        say(f"Measuring {part} ...")
        rows += functions[part]()
    return rows
