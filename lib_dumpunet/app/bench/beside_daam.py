"""Compare word heatmaps with daam, the program that introduced them (https://github.com/castorini/daam)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import venv
from pathlib import Path

import torch

from lib_dumpunet.app.bench.attention import words_beside_plain
from lib_dumpunet.app.bench.memory import TIDY
from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.app.bench.sampling import WIDTHS
from lib_dumpunet.errors import HostError

ROUNDS = 5  # of a plain step and a step with daam; medians are compared
STEPS = 6  # for peak memory
# The script's folder comes first on its path, so no file there may be named daam.py.
SCRIPT = Path(__file__).with_name("daam_run.py")
# daam needs matplotlib without declaring it, and diffusers 0.21 needs an older huggingface_hub than gradio.
PACKAGES = ("daam==0.2.0", "huggingface_hub<0.26", "matplotlib")


def measure_daam(widths: tuple[int, ...] = WIDTHS) -> list[Row]:
    """Compare what word heatmaps of all layers add to sampling, in CPU time and in peak memory.

    daam is installed into a temporary environment of about 2 GB.

    Raises:
        HostError: if installing or running it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        python = _install(Path(folder))
        theirs = json.loads(_run([str(python), str(SCRIPT), str(ROUNDS), str(STEPS), str(widths[0])]))
    our_percent, our_memory = words_beside_plain(STEPS, widths)
    percent, memory = theirs["percent"], theirs["memory"]
    # Differences rather than ratios, because both may be nearly zero.
    return [
        Row(
            f"words: CPU time added, {our_percent:.1f} %, above daam's {percent:.1f} %",
            our_percent - percent,
            "points",
            1,
            at_least=False,
        ),
        Row(
            f"words: peak memory added, {our_memory:.0f} MiB, above daam's {memory:.0f} MiB",
            our_memory - memory,
            "MiB",
            32,
            at_least=False,
        ),
    ]


def _install(folder: Path) -> Path:
    try:
        venv.create(folder, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise HostError(f"no environment could be created for daam ({error})") from error
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    own_torch = f"torch=={torch.__version__.partition('+')[0]}"
    for packages in ((own_torch, *PACKAGES[:1]), PACKAGES[1:]):
        _run([str(python), "-m", "pip", "install", "--quiet", *packages])
    return python


def _run(command: list[str]) -> str:
    environment = {**os.environ, **TIDY}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        reason = result.stderr.strip().rpartition("\n")[2]
        raise HostError(
            f"daam could not be measured: {Path(command[0]).name} {' '.join(command[1:4])} ... failed ({reason})",
            remedy="All other parts work without it.",
        )
    return result.stdout.strip().rpartition("\n")[2]
