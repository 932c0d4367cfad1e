"""Write files atomically, and explain in one sentence why a file could not be written."""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from lib_dumpunet.errors import DumpUNetError, HostError, SettingsError

FIELD = "Output path"

_ASIDE = re.compile(r"\..+\.(?P<pid>\d+)\.part")
_ABANDONED_AFTER = 600.0  # seconds since the last write; no single tensor takes that long
_PATIENCE = 10.0  # seconds to wait for another run to write the same manifest

_ANOTHER = "Choose another folder."
_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space, or choose a folder on another disk."),
    getattr(errno, "EDQUOT", errno.ENOSPC): (
        "the disk quota is used up",
        "Free some space, or choose another disk.",
    ),
    errno.EFBIG: (
        "a file is larger than that disk allows",
        "Choose a folder on another disk, or the format npy.",
    ),
    errno.EACCES: ("you have no permission to write there", "Choose a folder that you can write to."),
    errno.EPERM: ("you have no permission to write there", "Choose a folder that you can write to."),
    errno.EROFS: ("the disk is read-only", _ANOTHER),
    errno.ENOENT: ("the folder no longer exists", "Keep the folder in place until the run has ended."),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", _ANOTHER),
    errno.EEXIST: ("it is a file, not a folder", _ANOTHER),
    errno.ENAMETOOLONG: ("the path is too long", "Choose a shorter path."),
}


def explain(error: OSError) -> tuple[str, str]:
    """Describe an operating system error: the problem, and the remedy."""
    known = _REASONS.get(error.errno or 0)
    return known or (error.strerror or str(error) or type(error).__name__, _ANOTHER)


FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""Error numbers of a full disk."""


def is_full(error: BaseException | None) -> bool:
    """Return whether an error or its cause is a full disk."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return isinstance(error, OSError) and error.errno in FULL


def told_once(problems: Iterable[DumpUNetError]) -> list[DumpUNetError]:
    """Merge several problems caused by a full disk into the first one, which then mentions the others."""
    told: list[DumpUNetError] = []
    full: list[DumpUNetError] = []
    for problem in problems:
        (full if is_full(problem) else told).append(problem)
    if len(full) > 1:
        first = full[0]
        whole = HostError(
            f"{first.problem}; other files of the run are missing for the same reason",
            remedy=first.remedy,
            field=first.field,
        )
        whole.__cause__ = first.__cause__
        full = [whole]
    return [*full, *told]


def write_whole(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write ``chunks`` to a temporary file next to ``path``, then rename it atomically.

    Even if this process is killed, the file at ``path`` is either the old one or the complete new one. The data is not
    synced to disk, so a power cut may lose it: syncing after each file would halve the speed.

    Raises:
        OSError: if the file cannot be written; the temporary file is removed.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as file:
            file.writelines(chunks)
        _move(aside, path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise


def _move(source: Path, target: Path) -> None:
    """Rename over ``target``; on Windows, retry for a second, because an open target cannot be replaced."""
    for _ in range(20 if sys.platform == "win32" else 0):
        with suppress(PermissionError):
            return os.replace(source, target)
        time.sleep(0.05)
    os.replace(source, target)


def prepare_folder(path: str | Path) -> Path:
    """Create a folder for dumps and write a test file, so that a mistake is reported before sampling begins.

    Half-written files of killed runs are removed. Returns the absolute path, which stays valid if the current directory
    changes. Spaces and quotes around the path, which file managers add, are stripped.

    Raises:
        SettingsError: if the path is empty, is a file, or cannot be written to.
    """
    text = _plain(path)
    if not text:
        raise SettingsError("no folder is given", remedy="Write the folder for the files.", field=FIELD)
    folder = Path(text)
    try:
        folder = absolute(path)
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(errno.EEXIST, "")
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        _try_out(folder)
    except OSError as error:
        problem, remedy = explain(error)
        raise SettingsError(f"{text} cannot be used, {problem}", remedy=remedy, field=FIELD) from error
    except (ValueError, RuntimeError) as error:  # a null character; an unknown home directory
        raise _not_a_path(text) from error
    return folder


def absolute(path: str | Path) -> Path:
    """Read a path as ``as_written`` does, and make it absolute from the current directory."""
    return as_written(path).absolute()


def joined(base: Path, path: str) -> Path:
    """Read a path as ``as_written`` does, and make it absolute from ``base``.

    Raises:
        SettingsError: if it is not a path.
    """
    if "\0" in path:  # else refused only when the path is used
        raise _not_a_path(path)
    try:
        return base / as_written(path)
    except RuntimeError as error:
        raise _not_a_path(path) from error


def is_inside(path: Path, folder: str | Path) -> bool:
    """Return whether a path is inside a folder, or is the folder, with links resolved."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _not_a_path(text: str) -> SettingsError:
    return SettingsError(f"{text!r} is not a path", remedy=_ANOTHER, field=FIELD)


def as_written(path: str | Path) -> Path:
    """Read a path as users write it, possibly with spaces or quotes around it, or ``~``.

    Raises:
        RuntimeError: if ``~`` refers to an unknown home directory.
    """
    return Path(_plain(path)).expanduser()


def _plain(path: str | Path) -> str:
    return str(path).strip().strip('"').strip()


def _try_out(folder: Path) -> None:
    trial = folder / f".trial.{os.getpid()}.part"
    try:
        trial.write_bytes(b"\0" * 4096)
    finally:
        with suppress(OSError):
            trial.unlink()


def remove_abandoned(folder: Path) -> None:
    """Remove half-written files of processes that are gone."""
    for path in folder.glob(".*.part"):
        match = _ASIDE.fullmatch(path.name)
        with suppress(OSError):
            if match and _is_abandoned(path, int(match["pid"])):
                path.unlink()


def _is_abandoned(path: Path, pid: int) -> bool:
    """Return whether the writing process is gone, or the file is old, because process ids are reused."""
    return not _is_alive(pid) or time.time() - path.stat().st_mtime > _ABANDONED_AFTER


def _is_alive(pid: int) -> bool:
    """Return whether a process exists; always True on Windows, where signal 0 would end the process."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder's manifest against other runs, of this or another process.

    The lock ends when its process is killed. If the file system has no locks, or another run holds the lock for 10 s,
    continue without it: a run must not hang for its bookkeeping.
    """
    lock = FileLock(folder / ".manifest.lock", timeout=_PATIENCE)
    with suppress(OSError, NotImplementedError):  # a timeout is an OSError; an old version raises the other
        lock.acquire(poll_interval=0.02)
    try:
        yield
    finally:
        lock.release()
