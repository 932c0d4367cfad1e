"""Measurements of speed and memory, each comparing two things measured side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lib_dumpunet.errors import SettingsError

if TYPE_CHECKING:
    from lib_dumpunet.app.bench.rows import Row

PARTS = ("colour", "dump", "memory", "capture", "attention", "words", "steering", "explorer", "command")
OTHERS = ("daam",)
"""Parts that run only if named: daam must be downloaded."""


def measure(parts: Sequence[str], say: Callable[[str], None]) -> list[Row]:
    """Run the named parts of the benchmark, by default ``PARTS``.

    Raises:
        SettingsError: for an unknown part.
    """
    names = (*PARTS, *OTHERS)
    unknown = [part for part in parts if part not in names]
    if unknown:
        raise SettingsError(
            f"there is no part {unknown[0]!r}", remedy=f"Use {', '.join(names)}.", field="PART"
        )
    from lib_dumpunet.app.bench.attention import measure_attention
    from lib_dumpunet.app.bench.beside_daam import measure_daam
    from lib_dumpunet.app.bench.capture import measure_capture
    from lib_dumpunet.app.bench.colour import measure_colour
    from lib_dumpunet.app.bench.command import measure_command
    from lib_dumpunet.app.bench.dump import measure_dump
    from lib_dumpunet.app.bench.explorer import measure_explorer
    from lib_dumpunet.app.bench.memory import measure_memory
    from lib_dumpunet.app.bench.steering import measure_steering
    from lib_dumpunet.app.bench.words import measure_words

    measures: tuple[Callable[[], list[Row]], ...] = (
        measure_colour,
        measure_dump,
        measure_memory,
        measure_capture,
        measure_attention,
        measure_words,
        measure_steering,
        measure_explorer,
        measure_command,
        measure_daam,
    )
    functions = dict(zip(names, measures, strict=True))
    rows = []
    for part in parts or PARTS:
        say(f"Measuring {part} ...")
        rows += functions[part]()
    return rows
