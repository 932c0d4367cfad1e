"""An installation without the optional packages: what needs none works, the rest says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# The start of a program for which the packages of the extras are not installed.
WITHOUT = """
import sys
for name in ("diffusers", "transformers", "accelerate", "scipy", "torchsde", "gradio", "fastapi", "starlette"):
    sys.modules[name] = None
"""
COMMAND = "from lib_dumpunet.app.cli import main; sys.exit(main(sys.argv[1:]))"
# All of the core, what reads dumps, and what is known of models before they are loaded.
IMPORTS = """
import importlib, pkgutil
import lib_dumpunet

apart = ("lib_dumpunet.app", "lib_dumpunet.hosts", "lib_dumpunet.tiny", "lib_dumpunet.ui", "lib_dumpunet.__main__")
names = [found.name for found in pkgutil.walk_packages(lib_dumpunet.__path__, "lib_dumpunet.")]
names = [name for name in names if not name.startswith(apart)]
for name in (*names, "lib_dumpunet.hosts.diffusers.find", "lib_dumpunet.app.cli", "lib_dumpunet.app.viewer"):
    importlib.import_module(name)
print(len(names))
"""


def run(
    root: Path, code: str, *arguments: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"{WITHOUT}sys.path.insert(0, {str(root)!r})\n{code}", *arguments]
    return subprocess.run(command, cwd=folder or root, capture_output=True, encoding="utf-8", check=False)


def test_the_core_can_be_imported(root: Path) -> None:
    done = run(root, IMPORTS)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["studio", "--no-browser"], "studio"),
        (["demo"], "diffusers"),
        (["generate", "a star"], "diffusers"),
        (["generate", "a star", "--dry-run"], "diffusers"),
        (["explore", "a star"], "diffusers"),
        (["words", "a star"], "diffusers"),
        (["sweep", "a (~:{block}: red :~) star"], "diffusers"),
        (["sweep", "a (~:{block}: red :~) star", "--dry-run"], "diffusers"),
        (["blocks"], "diffusers"),
        (["bench", "colour"], "diffusers"),
    ],
    ids=" ".join,
)
def test_a_command_says_which_extra_it_needs(
    arguments: list[str], extra: str, root: Path, tmp_path: Path
) -> None:
    done = run(root, COMMAND, *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("dumpunet: diffusers, transformers, accelerate")
    assert done.stderr.endswith(f'are not installed. Install with: pip install "dumpunet[{extra}]".\n')
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["trace", "steer"])
def test_a_notebook_is_told_too(name: str, root: Path) -> None:
    code = f"from lib_dumpunet import {name}"
    assert 'pip install "dumpunet[diffusers]"' in run(root, code).stderr
