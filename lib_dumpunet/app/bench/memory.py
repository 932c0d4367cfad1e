"""Whether memory grows with the number of steps."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence

from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.errors import HostError

# The process tells its own peak, in KiB on Linux; on macOS in bytes, which a ratio does not care about.
PROGRAM = """
import resource, sys
from lib_dumpunet.app.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


FEW, MANY = 10, 50  # steps
SIZE = 384


def measure_memory() -> list[Row]:
    """Compare peak memory of whole runs that differ in steps: all blocks, each step drawn and dumped, two images."""
    return [growth("peak memory", "a red circle", "--dump", "npy")]


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


def peak_of(program: str, arguments: Sequence[str]) -> float:
    """Run a program in a process of its own and give the last thing it prints, its peak memory.

    Raises:
        HostError: if it fails.
    """
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = result.stderr.strip().rpartition("\n")[2]
        raise HostError(
            f"the run to be measured failed ({reason})", remedy="On Windows memory is not measured."
        )
    return float(result.stdout.split()[-1])
