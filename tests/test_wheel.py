"""The package built and installed elsewhere: it is complete, and works without the repository."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

from lib_dumpunet import __version__
from lib_dumpunet.hosts.extras import PACKAGES
from tests.test_repository_rules import project_files

pytestmark = pytest.mark.slow

# What a repository needs and an archive of sources does not.
LEFT_OUT = (".ci/", ".github/", ".gitignore", ".pre-commit-config.yaml")
BUILD_SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """Build the source archive from a copy of the repository, and unpack it."""
    folder = tmp_path_factory.mktemp("sdist")
    copy = folder / "copy"
    for path in project_files():
        target = copy / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    command = [sys.executable, "-c", BUILD_SDIST, str(folder)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Path:
    """Build the wheel from the source archive, and unpack it as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def metadata(installed: Path) -> Message:
    (file,) = installed.glob("*.dist-info/METADATA")
    return HeaderParser().parsestr(file.read_text(encoding="utf-8"))


def run(installed: Path, *arguments: str) -> str:
    """Run Python so that only the installed package is found."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=installed.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sources_are_complete(sources: Path, root: Path) -> None:
    wanted = [path.relative_to(root).as_posix() for path in project_files()]
    missing = [name for name in wanted if not name.startswith(LEFT_OUT) and not (sources / name).is_file()]
    assert missing == []


def test_one_version(metadata: Message, installed: Path, root: Path) -> None:
    assert metadata["Version"] == __version__
    assert run(installed, "-m", "lib_dumpunet", "--version") == f"dumpunet {__version__}\n"
    newest = re.search(
        r"^## .*?(\d+\.\d+\.\d+)", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert newest is not None
    assert newest[1] == __version__


def requirements(metadata: Message, extra: str) -> set[str]:
    """Return the packages of an extra, including those of the extras in it; "" means the core's."""
    found = set()
    for line in metadata.get_all("Requires-Dist") or ():
        wanted, _, condition = line.partition(";")
        if (f'extra == "{extra}"' in condition) if extra else ("extra" not in condition):
            name, _, others = wanted.strip().partition("[")
            if name == "dumpunet":
                found |= {n for other in others.rstrip("]").split(",") for n in requirements(metadata, other)}
            else:
                found.add(re.split(r"[^\w-]", name)[0])
    return found


def test_what_is_optional_comes_with_its_extra(metadata: Message) -> None:
    core = requirements(metadata, "")
    for extra, packages in PACKAGES.items():
        assert set(packages) <= requirements(metadata, extra)
        assert core.isdisjoint(packages)
    everything = requirements(metadata, "all")
    assert everything == requirements(metadata, "studio") >= requirements(metadata, "diffusers")
    assert everything < requirements(metadata, "test")


def test_webuis_install_nothing_optional(
    metadata: Message, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "launch", None)
    wanted = runpy.run_path(str(root / "install.py"))["PACKAGES"]
    assert set(wanted) <= requirements(metadata, "")


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
