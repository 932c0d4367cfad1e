"""Write whole files or none, and say in one sentence why a file could not be written."""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lib_dumpunet.errors import DumpUNetError, HostError, SettingsError

FIELD = "Output path"

_ASIDE = re.compile(r"\..+\.(?P<pid>\d+)\.part")
_ABANDONED_AFTER = 600.0  # seconds without a write; no single tensor takes that long
_PATIENCE = 10.0  # seconds to wait for another run that writes the same manifest

_ANOTHER = "Choose another folder."
_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space, or choose a folder on another disk."),
    getattr(errno, "EDQUOT", errno.ENOSPC): (
        "the disk quota is used up",
        "Free some space, or choose another disk.",
    ),
    errno.EFBIG: (
        "a file got larger than is allowed there",
        "Choose a folder on another disk, or the format npy.",
    ),
    errno.EACCES: ("writing there is not permitted", "Choose a folder that you may write to."),
    errno.EPERM: ("writing there is not permitted", "Choose a folder that you may write to."),
    errno.EROFS: ("the disk is read-only", _ANOTHER),
    errno.ENOENT: ("the folder is not there any more", "Leave the folder in place until the run has ended."),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", _ANOTHER),
    errno.EEXIST: ("it is a file, not a folder", _ANOTHER),
    errno.ENAMETOOLONG: ("the path is too long", "Choose a shorter path."),
}


def explain(error: OSError) -> tuple[str, str]:
    """Put an operating system error into words: the problem, and the remedy."""
    known = _REASONS.get(error.errno or 0)
    return known or (error.strerror or str(error) or type(error).__name__, _ANOTHER)


FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""Errors of a disk without room."""


def is_full(error: BaseException | None) -> bool:
    """Return whether an error, or what has caused it, is a disk without room."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return isinstance(error, OSError) and error.errno in FULL


def told_once(problems: Iterable[DumpUNetError]) -> list[DumpUNetError]:
    """Leave one of several problems that come of the same full disk: the first, which then tells of the others."""
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
    """Write ``chunks`` to a file beside ``path``, then put it in its place in one move.

    Whoever looks, and whenever this process is killed, the file at ``path`` is the old one or the complete new
    one. The data is left to the operating system's cache: a power cut may still lose it, waiting for the disk after
    each file would halve the speed.

    Raises:
        OSError: nothing is left behind then.
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
    """Rename over ``target``; Windows refuses while anyone has it open, so ask again for a second."""
    for _ in range(20 if sys.platform == "win32" else 0):
        with suppress(PermissionError):
            return os.replace(source, target)
        time.sleep(0.05)
    os.replace(source, target)


def prepare_folder(path: str | Path) -> Path:
    """Make the folder that a dump goes to, and try it, so that a mistake is told before sampling begins.

    What a killed run has left half written is removed. Returns the absolute path, which stays right if the current
    directory changes. Blanks and quotes around the path, as file managers copy it, are taken off.

    Raises:
        SettingsError: no path, a path to a file, or a place where nothing can be written.
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
    except (ValueError, RuntimeError) as error:  # a null character; a home directory that nobody has
        raise SettingsError(f"{text!r} is not a path", remedy=_ANOTHER, field=FIELD) from error
    return folder


def absolute(path: str | Path) -> Path:
    """Read a path as ``as_written`` does; a relative one counts from the current directory."""
    return as_written(path).absolute()


def as_written(path: str | Path) -> Path:
    """Read a path as people write it: with blanks, quotes or ``~``.

    Raises:
        RuntimeError: a home directory that nobody has.
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
    """Judge by the writer, or by age, since a number can have passed on to a new process."""
    return not _is_alive(pid) or time.time() - path.stat().st_mtime > _ABANDONED_AFTER


def _is_alive(pid: int) -> bool:
    """Ask for a process; on Windows, where asking by signal 0 would end it, take it for alive."""
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
    """Keep every other run, of this or another process, out of the folder's manifest for the time being.

    The lock belongs to the open file, so it ends with a process that is killed. Where the file system knows no locks,
    or someone keeps the lock for 10 s, go on without: a run must not hang for its bookkeeping.
    """
    with open(folder / ".manifest.lock", "ab") as file:
        deadline = time.monotonic() + _PATIENCE
        while not _try_lock(file) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: BinaryIO) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        except OSError:
            return True
        return True

else:
    import fcntl

    def _try_lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True
