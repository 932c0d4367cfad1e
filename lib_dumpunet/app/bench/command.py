"""Measure how much slower a whole command is while other programs use the same cores."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lib_dumpunet.app.bench.rows import Row

COMMAND = ("generate", "a red circle", "--steps", "20", "--blocks", "M00")
BUSY = "while True: pass"
SLOWER = 3.0  # two programs on a core get half of it each
DEARER = 1.5


def measure_command(*, rounds: int = 3, command: Sequence[str] = COMMAND) -> list[Row]:
    """Run a command by turns alone and together with a busy program for each core.

    If threads spun while they wait, both ratios would be three or more.
    """
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(_run(command))
        with busy_programs(os.cpu_count() or 1):
            beside.append(_run(command))
    rows = []
    for number, (what, bound) in enumerate((("time", SLOWER), ("CPU time", DEARER))):
        ratios = [b[number] / a[number] for a, b in zip(alone, beside, strict=True) if a[number]]
        if ratios:  # Windows does not report the CPU time of ended programs
            name = f"generate beside busy programs, {what} of it alone"
            rows.append(Row(name, statistics.median(ratios), "x", bound, at_least=False))
    return rows


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """Run ``count`` programs that do nothing but compute."""
    programs = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _run(command: Sequence[str]) -> tuple[float, float]:
    """Run a command of ours in its own process; return elapsed seconds and CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        # As from a shell, without the variables that this process set for itself.
        own = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
        before, begin = _cpu_of_children(), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "lib_dumpunet", *command, "--quiet", "--out", folder],
            env=own,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.perf_counter() - begin, _cpu_of_children() - before


def _cpu_of_children() -> float:
    used = os.times()
    return used.children_user + used.children_system
