"""The package as it is built and installed elsewhere: it has all that it needs, and works without the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "style.css")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """Build the wheel from a copy, and unpack it as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    copy.mkdir()
    for name in SOURCES:
        shutil.copy(root / name, copy)
    for name in ("lib_dumpunet", "javascript"):
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, *arguments: str) -> str:
    """Run Python where only the installed package is found."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=installed.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_of_the_package_is_in_it(installed: Path, root: Path) -> None:
    package = root / "lib_dumpunet"
    wanted = {
        path.relative_to(root)
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sorted(str(path) for path in wanted if not (installed / path).is_file()) == []
    assert (installed / "lib_dumpunet" / "py.typed").exists()


def test_studio_finds_styles_and_scripts_of_the_panel(installed: Path, root: Path) -> None:
    code = (
        "from lib_dumpunet.app.studio.server import SCRIPTS, STYLES, _texts; "
        "print(SCRIPTS[0]); print(STYLES[0]); print(len(_texts(STYLES + SCRIPTS)))"
    )
    script, style, count = run(installed, "-c", code).splitlines()
    assert Path(script).is_relative_to(installed)
    assert Path(script).read_text() == (root / "javascript" / "dumpunet.js").read_text()
    assert Path(style).read_text() == (root / "style.css").read_text()
    assert count == "4"


def test_the_bundled_model_is_there(installed: Path) -> None:
    out = run(installed, "-m", "lib_dumpunet", "blocks", "--layers", "M00")
    assert "M00" in out
