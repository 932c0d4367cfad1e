"""Write a run's tensors to files: one writer for each format."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib_dumpunet.captures import Tag
from lib_dumpunet.sinks.file_formats import (
    DTYPES,
    npy_header,
    read_safetensors,
    safetensors_file,
    safetensors_header,
)
from lib_dumpunet.sinks.files import write_whole
from lib_dumpunet.sinks.groups import Group, Groups
from lib_dumpunet.sinks.manifest import Entry
from lib_dumpunet.sinks.names import bin_name, channel_name, key_of, safetensors_name, tensor_name
from lib_dumpunet.sinks.request import DumpRequest, entry_of, metadata_of

_NUMPY = (torch.float16, torch.float32, torch.float64)


class Written(NamedTuple):
    """A written file's entries for the manifest, and its tensors' size in bytes."""

    entries: list[Entry]
    size: int


class Planned(NamedTuple):
    """A tensor to be written, whose shape is known already."""

    tag: Tag
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size in memory, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class Writer:
    """Write the tensors of one run into a folder; several threads call ``put`` at once."""

    def __init__(self, folder: Path, request: DumpRequest, run: int, started: int) -> None:
        self._folder, self._request = folder, request
        self._run, self._started = run, started

    @staticmethod
    def stored(dtype: torch.dtype) -> torch.dtype:
        """Return the dtype that a tensor has in a file."""
        raise NotImplementedError

    @classmethod
    def name(cls, tag: Tag, run: int, started: int) -> str:
        """Return the name of the file that a tensor is written to."""
        raise NotImplementedError

    @classmethod
    def overhead(cls, planned: Sequence[Planned], request: DumpRequest) -> int:
        """Count the files' bytes other than tensors."""
        return 0

    def put(self, tag: Tag, tensor: Tensor) -> Iterable[Written]:
        """Write a tensor, or keep it until its file is complete.

        Raises:
            OSError: if it cannot be written.
        """
        raise NotImplementedError

    def rest(self) -> Iterable[Written]:
        """Write the tensors kept so far."""
        return ()

    def _entry(self, tag: Tag, tensor: Tensor) -> Entry:
        name, stored = self.name(tag, self._run, self._started), self.stored(tensor.dtype)
        return entry_of(self._request, tag, name, tuple(tensor.shape), stored, tensor.dtype)


class BinWriter(Writer):
    """Raw little-endian float32, one file for each channel."""

    @staticmethod
    def stored(dtype: torch.dtype) -> torch.dtype:
        return torch.float32

    @classmethod
    def name(cls, tag: Tag, run: int, started: int) -> str:
        return bin_name(tag, started)

    def put(self, tag: Tag, tensor: Tensor) -> Iterator[Written]:
        array = tensor.float().numpy().astype("<f4", order="C", copy=False)
        array = array[None] if array.ndim < 3 else array
        pattern = self.name(tag, self._run, self._started)
        for channel, rows in enumerate(array):
            write_whole(self._folder / channel_name(pattern, channel), [rows.data])
        yield Written([self._entry(tag, tensor)], array.nbytes)


class ArrayWriter(Writer):
    """One file for each tensor, in a dtype of NumPy's; ``encode`` makes its contents."""

    ending: ClassVar[str]

    @staticmethod
    def stored(dtype: torch.dtype) -> torch.dtype:
        return dtype if dtype in _NUMPY else torch.float32

    @classmethod
    def name(cls, tag: Tag, run: int, started: int) -> str:
        return tensor_name(tag, run, cls.ending)

    def encode(self, array: NDArray[Any]) -> Iterable[Any]:
        """Return a file's parts, as bytes or buffers."""
        raise NotImplementedError

    def put(self, tag: Tag, tensor: Tensor) -> Iterator[Written]:
        array = np.ascontiguousarray(tensor.to(self.stored(tensor.dtype)).numpy())
        write_whole(self._folder / self.name(tag, self._run, self._started), self.encode(array))
        yield Written([self._entry(tag, tensor)], array.nbytes)


class NpyWriter(ArrayWriter):
    """NumPy's npy files."""

    ending = "npy"

    @classmethod
    def overhead(cls, planned: Sequence[Planned], request: DumpRequest) -> int:
        dtypes = [np.dtype(str(cls.stored(one.dtype)).removeprefix("torch.")) for one in planned]
        return sum(len(npy_header(one.shape, d)) for one, d in zip(planned, dtypes, strict=True))

    def encode(self, array: NDArray[Any]) -> Iterable[Any]:
        return [npy_header(array.shape, array.dtype), array.data]


class SafetensorsWriter(Writer):
    """One file for each image and step, written when its last expected tensor has come, otherwise at the end."""

    def __init__(self, folder: Path, request: DumpRequest, run: int, started: int) -> None:
        super().__init__(folder, request, run, started)
        self._groups = Groups(request.expected)
        self._locks: dict[str, threading.Lock] = {}

    @staticmethod
    def stored(dtype: torch.dtype) -> torch.dtype:
        return dtype if dtype in DTYPES else torch.float32

    @classmethod
    def name(cls, tag: Tag, run: int, started: int) -> str:
        return safetensors_name(tag.image, tag.step, run, hires=tag.hires)

    @classmethod
    def overhead(cls, planned: Sequence[Planned], request: DumpRequest) -> int:
        files: dict[tuple[int, int], dict[str, tuple[tuple[int, ...], torch.dtype]]] = {}
        for one in planned:
            file = files.setdefault((one.tag.image, one.tag.step), {})
            file[key_of(one.tag)] = (one.shape, cls.stored(one.dtype))
        return sum(
            len(safetensors_header(tensors, metadata_of(request, image, step, 1, hires=False)))
            for (image, step), tensors in files.items()
        )

    def put(self, tag: Tag, tensor: Tensor) -> Iterator[Written]:
        return map(self._write, self._groups.add(tag, tensor))

    def rest(self) -> Iterator[Written]:
        return map(self._write, self._groups.rest())

    def _write(self, group: Group) -> Written:
        """Write the file of one image and step; keep its earlier tensors if captures come late."""
        name = safetensors_name(group.image, group.step, self._run, hires=group.hires)
        path = self._folder / name
        with self._locks.setdefault(name, threading.Lock()):
            tensors = read_safetensors(path) if path.exists() else {}
            tensors.update({key_of(tag): self._storable(tensor) for tag, tensor in group.tensors.items()})
            metadata = metadata_of(self._request, group.image, group.step, self._run, hires=group.hires)
            write_whole(path, safetensors_file(tensors, metadata))
        entries = [self._entry(tag, tensor) for tag, tensor in group.tensors.items()]
        return Written(entries, sum(tensor.nbytes for tensor in group.tensors.values()))

    def _storable(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.stored(tensor.dtype)).contiguous()


WRITERS: dict[str, type[Writer]] = {"bin": BinWriter, "npy": NpyWriter, "safetensors": SafetensorsWriter}
"""The writers by format; ``settings/tree.py`` has the formats' labels, and ``reader.py`` reads the files."""
