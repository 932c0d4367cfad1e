"""Where the files of runs go, and how much of the disk they take."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lib_dumpunet.app.results import ResultFolder
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.settings import DumpSettings
from lib_dumpunet.sinks.files import FIELD, as_written, explain, prepare_folder


@dataclass(frozen=True)
class Place:
    """Where results go: a folder for all runs; ``is_open`` tells that others than the owner can reach the page."""

    root: Path
    is_open: bool

    def dumps(self, dump: DumpSettings, run: Path) -> DumpSettings:
        """Resolve a folder of dumps: an empty one is in the run's own; a relative one counts from the studio's.

        Where others reach the page, it counts from the run's, and must be inside of that.

        Raises:
            SettingsError: if it may not be used.
        """
        if not dump.enabled:
            return dump
        if not dump.path.strip():
            return replace(dump, path=str(run / "dump"))
        base = run if self.is_open else self.root
        try:
            path = base / as_written(dump.path)
            # Nobody asks the network for a folder of another computer.
            inside = not self.is_open or (not _is_remote(dump.path) and _is_inside(path, base))
        except (OSError, ValueError, RuntimeError) as error:
            raise SettingsError(
                f"{dump.path!r} is not a path", remedy="Choose another folder.", field=FIELD
            ) from error
        if not inside:
            raise SettingsError(
                f"the studio can be reached from other computers, so {dump.path} is not allowed",
                remedy="Choose a folder inside the run's own, by a name such as my-dumps, or leave it empty.",
                field=FIELD,
            )
        return replace(dump, path=str(path))


def _is_remote(path: str) -> bool:
    """Whether a path names another computer, as Windows has it."""
    return path.strip().replace("\\", "/").startswith("//")


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def new_folder(root: Path, *, is_kept: bool) -> ResultFolder:
    """Make a folder for a run, named by the time; one that is not kept is removed with the studio's end.

    Raises:
        SettingsError: if it cannot be made.
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
    raise SettingsError(f"{root} holds too many runs", remedy="Choose another folder.", field=FIELD)


_passing_folders: list[tempfile.TemporaryDirectory[str]] = []


def _passing() -> str:
    """Return the folder of what is not kept, which Python removes at its end."""
    if not _passing_folders:
        _passing_folders.append(tempfile.TemporaryDirectory(prefix="dumpunet-studio-"))
    return _passing_folders[0].name


def size_of(folder: Path) -> int:
    """Add up the bytes of all files in a folder; a file may go while this looks."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total
