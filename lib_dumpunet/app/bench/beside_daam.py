"""Word heatmaps side by side with daam, the program that they are known from (https://github.com/castorini/daam)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import venv
from pathlib import Path

import torch

from lib_dumpunet.app.bench.attention import words_beside_plain
from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.app.bench.sampling import WIDTHS
from lib_dumpunet.errors import HostError

STEPS = 3
# The folder of this script comes first on its path, so nothing there may be called daam.
SCRIPT = Path(__file__).with_name("daam_run.py")
# daam names matplotlib nowhere though it needs it, and diffusers 0.21 needs an older huggingface_hub than gradio.
PACKAGES = ("daam==0.2.0", "huggingface_hub<0.26", "matplotlib")


def measure_daam(widths: tuple[int, ...] = WIDTHS) -> list[Row]:
    """Compare what word heatmaps of all layers add to sampling, in CPU time and in peak memory.

    daam is installed into an environment of its own, which is removed again; it takes about 2 GB meanwhile.

    Raises:
        HostError: if it does not install or run.
    """
    with tempfile.TemporaryDirectory() as folder:
        python = _install(Path(folder))
        plain, words = (
            _run([str(python), str(SCRIPT), way, str(STEPS), str(widths[0])]) for way in ("plain", "words")
        )
    theirs = json.loads(plain), json.loads(words)
    percent = 100 * (theirs[1]["seconds"] / theirs[0]["seconds"] - 1)
    memory = theirs[1]["peak"] - theirs[0]["peak"]
    our_percent, our_memory = words_beside_plain(STEPS, widths)
    return [
        Row(
            f"words: CPU time added, of daam's {percent:.1f} %", our_percent / percent, "x", 1, at_least=False
        ),
        Row(
            f"words: peak memory added, of daam's {memory:.0f} MiB",
            our_memory / memory,
            "x",
            1,
            at_least=False,
        ),
    ]


def _install(folder: Path) -> Path:
    try:
        venv.create(folder, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise HostError(f"no environment could be made for daam ({error})") from error
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    own_torch = f"torch=={torch.__version__.partition('+')[0]}"
    for packages in ((own_torch, *PACKAGES[:1]), PACKAGES[1:]):
        _run([str(python), "-m", "pip", "install", "--quiet", *packages])
    return python


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = result.stderr.strip().rpartition("\n")[2]
        raise HostError(
            f"daam could not be measured, as {Path(command[0]).name} {' '.join(command[1:4])} ... failed ({reason})",
            remedy="Everything else can be measured without it.",
        )
    return result.stdout.strip().rpartition("\n")[2]
