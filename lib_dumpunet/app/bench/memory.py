"""Whether memory grows with the number of steps."""

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
"""Lets glibc give memory of large tensors back at once: else peaks of equal runs differ by more than 100 MiB."""


FEW, MANY = 10, 50  # steps
SIZE = 384


def measure_memory() -> list[Row]:
    """Compare peak memory of whole runs that differ in steps: all blocks, each step drawn and dumped, two images; and
    those that write an explorer page of each image instead.
    """
    pages = ("a red circle", "--html-only", "--html-limit", "2")
    return [
        growth("peak memory", "a red circle", "--dump", "npy"),
        growth("peak memory of explorer pages", *pages),
    ]


def growth(name: str, *arguments: str) -> Row:
    """Compare peak memory of two whole runs of ``generate``; ``arguments`` say what they are to do.

    What is captured of all blocks in the additional steps is about a fifth of the peak, so that keeping it would show.
    """
    few, many = (_peak(steps, arguments) for steps in (FEW, MANY))
    return Row(f"{name} with {MANY} steps, above {FEW} steps", 100 * (many / few - 1), "%", 5, at_least=False)


def _peak(steps: int, asked: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["generate", *asked, "--seed", "1", "--batch", "2", "--guidance", "4", "-q"]
        arguments += ["--steps", str(steps), "--width", str(SIZE), "--height", str(SIZE), "-o", folder]
        return peak_of(PROGRAM, arguments)


def own_peak() -> float:
    """Return the most memory that this process has held, in MiB.

    On Linux not by ``getrusage``, which counts what the process that started this one held at that moment, too.
    """
    if STATUS.exists():
        return int(STATUS.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def peak_of(program: str, arguments: Sequence[str]) -> float:
    """Run a program in a process of its own and give the last thing it prints, its peak memory.

    Raises:
        HostError: if it fails.
    """
    command = [sys.executable, "-c", program, *arguments]
    environment = {**os.environ, **TIDY}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        reason = result.stderr.strip().rpartition("\n")[2]
        raise HostError(
            f"the run to be measured failed ({reason})", remedy="On Windows memory is not measured."
        )
    return float(result.stdout.split()[-1])
