"""Folders of runs and their size."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lib_dumpunet.app.results import ResultFolder
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.settings import DumpSettings
from lib_dumpunet.sinks.files import FIELD, explain, is_inside, joined, prepare_folder


@dataclass(frozen=True)
class Place:
    """The studio's output folder; ``is_open`` says whether other computers can reach the studio."""

    root: Path
    is_open: bool

    def dumps(self, dump: DumpSettings, run: Path) -> DumpSettings:
        """Resolve the folder of dumps: by default inside the run's folder; a relative path starts at the studio's.

        If other computers can reach the studio, a relative path starts at the run's folder and must stay inside it.

        Raises:
            SettingsError: if the folder is not allowed.
        """
        if not dump.enabled:
            return dump
        if not dump.path.strip():
            return replace(dump, path=str(run / "dump"))
        base = run if self.is_open else self.root
        path = joined(base, dump.path)
        # The name is checked before links are resolved, for which Windows would contact the other computer.
        if self.is_open and (_is_remote(dump.path) or not is_inside(path, base)):
            raise SettingsError(
                f"the studio can be reached from other computers, so {dump.path} is not allowed",
                remedy="Choose a folder inside the run's own, by a name such as my-dumps, or leave it empty.",
                field=FIELD,
            )
        return replace(dump, path=str(path))


def _is_remote(path: str) -> bool:
    """Return whether a path names another computer (a UNC path of Windows)."""
    return path.strip().replace("\\", "/").startswith("//")


def new_folder(root: Path, *, is_kept: bool) -> ResultFolder:
    """Create a folder for a run, named by the time; a folder that is not kept is removed when the studio ends.

    Raises:
        SettingsError: if it cannot be created.
    """
    if not is_kept:
        return ResultFolder(Path(tempfile.mkdtemp(prefix="dumpunet-", dir=_passing())))
    name = time.strftime("%Y-%m-%d-%H%M%S")
    for number in range(1, 1000):
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            problem, remedy = explain(error)
            raise SettingsError(f"{path} cannot be used, {problem}", remedy=remedy, field=FIELD) from error
        return ResultFolder(prepare_folder(path))
    raise SettingsError(f"{root} contains too many runs", remedy="Choose another folder.", field=FIELD)


_passing_folders: list[tempfile.TemporaryDirectory[str]] = []


def _passing() -> str:
    """Return the temporary folder for runs that are not kept; Python removes it at exit."""
    if not _passing_folders:
        _passing_folders.append(tempfile.TemporaryDirectory(prefix="dumpunet-studio-"))
    return _passing_folders[0].name


def size_of(folder: Path) -> int:
    """Add up the bytes of all files in a folder; files may disappear meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total
