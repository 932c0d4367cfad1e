"""Keep waiting tensors on disk, so that memory does not grow with the number of steps."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import torch
from torch import Tensor

from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.sinks.files import absolute, explain


class _Spot(NamedTuple):
    position: int
    shape: torch.Size
    dtype: torch.dtype
    size: int  # bytes


class Spool:
    """A temporary file of tensors by tag; several threads may use it at once.

    The file has no name, so the system removes it however the run ends. The space of taken tensors is reused for
    tensors of the same size, and freed once none is left, so the file never grows beyond what waited at one time.

    Args:
        what: what the tensors are, for messages, such as "the maps".
        folder: where to create the file; None for the system's folder for large temporary files.
    Raises:
        HostError: if the file cannot be created.
    """

    def __init__(self, what: str, folder: str | None = None) -> None:
        self._what, self._folder = what, folder or "the folder for temporary files"
        self._lock = threading.Lock()
        self._spots: dict[Tag, _Spot] = {}
        self._free: dict[int, list[int]] = {}
        self._end = 0
        with self._as_user_error("stored in"):
            self._folder = str(absolute(folder) if folder else _large_folder())
            # Unbuffered, so that closing the file does not retry data that did not fit on a full disk.
            self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115  # close() closes it
                buffering=0, prefix="dumpunet-", dir=self._folder
            )

    @property
    def tags(self) -> list[Tag]:
        """Tags of the waiting tensors, in order."""
        with self._lock:
            return sorted(self._spots)

    def put(self, tag: Tag, tensor: Tensor) -> None:
        """Write a tensor; it replaces a waiting one with the same tag.

        Raises:
            HostError: if the disk is full, or the file cannot be written.
        """
        data = tensor.detach().reshape(-1).view(torch.uint8).numpy().data
        with self._lock, self._as_user_error("stored in"):
            self._let_go(tag)
            free = self._free.get(tensor.nbytes)
            position = free.pop() if free else self._end
            self._write(position, data)
            self._end = max(self._end, position + tensor.nbytes)
            self._spots[tag] = _Spot(position, tensor.shape, tensor.dtype, tensor.nbytes)

    def read(self, tag: Tag) -> Tensor | None:
        """Read a tensor back, bit for bit; None if there is none.

        Raises:
            HostError: if the file cannot be read.
        """
        with self._lock:
            return self._read(tag)

    def take(self, tag: Tag) -> Tensor | None:
        """Read a tensor back and remove it; None if there is none.

        Raises:
            HostError: if the file cannot be read.
        """
        with self._lock:
            tensor = self._read(tag)
            self._let_go(tag)
            if not self._spots:
                self._empty()
            return tensor

    def clear(self) -> None:
        """Remove all tensors and free the disk space."""
        with self._lock:
            self._empty()

    def close(self) -> None:
        """Close the file, which removes it."""
        with self._lock:
            self._spots.clear()
            self._file.close()

    def _write(self, position: int, data: memoryview) -> None:
        """Write all data; an unbuffered file may take only part of it at a time."""
        self._file.seek(position)
        while data:
            written = self._file.write(data)
            if not written:
                raise OSError("the file takes no more data")
            data = data[written:]

    def _read(self, tag: Tag) -> Tensor | None:
        spot = self._spots.get(tag)
        if spot is None:
            return None
        data = bytearray()
        with self._as_user_error("read back from"):
            self._file.seek(spot.position)
            while len(data) < spot.size:
                part = self._file.read(spot.size - len(data))
                if not part:
                    raise OSError("the file is shorter than it was")
                data += part
        if not data:  # torch makes no tensor of no bytes
            return torch.empty(spot.shape, dtype=spot.dtype)
        return torch.frombuffer(data, dtype=spot.dtype).view(spot.shape)

    def _let_go(self, tag: Tag) -> None:
        spot = self._spots.pop(tag, None)
        if spot is not None:
            self._free.setdefault(spot.size, []).append(spot.position)

    def _empty(self) -> None:
        self._spots.clear()
        self._free.clear()
        self._end = 0
        with self._as_user_error("stored in"):
            self._file.truncate(0)

    @contextmanager
    def _as_user_error(self, done: str) -> Iterator[None]:
        """Turn errors of using the file into a HostError of one sentence."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # an unknown home directory is a RuntimeError
            problem, remedy = explain(error if isinstance(error, OSError) else OSError(str(error)))
            raise HostError(
                f"{self._what} could not be {done} {self._folder}, {problem}", remedy=remedy
            ) from error


def _large_folder() -> Path:
    """Return the folder for large temporary files: /tmp is often in memory, while /var/tmp is on disk."""
    disk = Path("/var/tmp")
    asked = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    usable = os.name == "posix" and not asked and disk.is_dir() and os.access(disk, os.W_OK | os.X_OK)
    return disk if usable else Path(tempfile.gettempdir())
