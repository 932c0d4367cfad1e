"""Measure whether memory grows with the number of steps."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.errors import HostError

PROGRAM = """
import sys
from lib_dumpunet.app.bench.memory import own_peak
from lib_dumpunet.app.cli import main
code = main(sys.argv[1:])
print(own_peak())
sys.exit(code)
"""
STATUS = Path("/proc/self/status")
TIDY = {"MALLOC_MMAP_THRESHOLD_": "1048576"}
"""Makes glibc return the memory of large tensors at once; otherwise peaks of equal runs differ by over 100 MiB."""


FEW, MANY = 10, 50  # steps
SIZE = 384


def measure_memory() -> list[Row]:
    """Compare peak memory of whole runs with few and many steps: two images with every block drawn and dumped in every
    step, or with explorer pages instead.
    """
    pages = ("a red circle", "--html-only", "--html-limit", "2")
    return [
        growth("peak memory", "a red circle", "--dump", "npy"),
        growth("peak memory of explorer pages", *pages),
    ]


def growth(name: str, *arguments: str) -> Row:
    """Compare peak memory of two whole runs of ``generate`` with the given ``arguments``.

    Captures of all blocks in the additional steps are about a fifth of the peak, so keeping them would be visible.
    """
    few, many = (_peak(steps, arguments) for steps in (FEW, MANY))
    return Row(f"{name} with {MANY} steps, above {FEW} steps", 100 * (many / few - 1), "%", 5, at_least=False)


def _peak(steps: int, asked: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["generate", *asked, "--seed", "1", "--batch", "2", "--guidance", "4", "-q"]
        arguments += ["--steps", str(steps), "--width", str(SIZE), "--height", str(SIZE), "-o", folder]
        return peak_of(PROGRAM, arguments)


def own_peak() -> float:
    """Return this process's peak memory, in MiB.

    On Linux ``getrusage`` would include the memory of the parent process at the time of the start.
    """
    if STATUS.exists():
        return int(STATUS.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def peak_of(program: str, arguments: Sequence[str]) -> float:
    """Run a program in its own process and return the last number it prints, its peak memory.

    Raises:
        HostError: if it fails.
    """
    command = [sys.executable, "-c", program, *arguments]
    environment = {**os.environ, **TIDY}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        reason = result.stderr.strip().rpartition("\n")[2]
        raise HostError(f"the measured run failed ({reason})", remedy="Memory cannot be measured on Windows.")
    return float(result.stdout.split()[-1])
