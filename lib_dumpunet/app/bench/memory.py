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


def measure_memory(few: int = 10, many: int = 50, size: int = 384) -> list[Row]:
    """Compare peak memory of whole runs that differ in steps: all blocks, each step drawn and dumped, two images.

    What is captured in the additional steps is about a fifth of the peak, so that keeping it would show.
    """
    peaks = [_peak(steps, size) for steps in (few, many)]
    growth = 100 * (peaks[1] / peaks[0] - 1)
    return [Row(f"peak memory with {many} steps, above {few} steps", growth, "%", 5, at_least=False)]


def _peak(steps: int, size: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["generate", "a red circle", "--seed", "1", "--batch", "2", "--guidance", "4", "-q"]
        arguments += ["--steps", str(steps), "--width", str(size), "--height", str(size)]
        arguments += ["--dump", "npy", "-o", folder]
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
