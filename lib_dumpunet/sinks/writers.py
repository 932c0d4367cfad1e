"""Write the tensors of one run: a writer for each format."""

from __future__ import annotations

import io
import json
import math
import threading
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from lib_dumpunet.captures import Tag
from lib_dumpunet.sinks.files import write_whole
from lib_dumpunet.sinks.manifest import Entry
from lib_dumpunet.sinks.names import bin_name, channel_name, key_of, safetensors_name, tensor_name
from lib_dumpunet.sinks.request import DumpRequest, entry_of, metadata_of

_NUMPY = (torch.float16, torch.float32, torch.float64)
_STALE = 128  # captures; an unfinished group that so many have passed by is not going to be completed
_CODES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}


class Written(NamedTuple):
    """What the manifest lists of a file, and the bytes of the tensors in it."""

    entries: list[Entry]
    size: int


class Planned(NamedTuple):
    """A tensor to come, of which the shape is known."""

    tag: Tag
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Of it in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class Writer:
    """Writes the tensors of one run into a folder; ``put`` is called from several threads at once."""

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
        """Count the bytes that files have beside the tensors in them."""
        return 0

    def put(self, tag: Tag, tensor: Tensor) -> Iterable[Written]:
        """Write a tensor, or keep it until its file is complete.

        Raises:
            OSError: it cannot be written.
        """
        raise NotImplementedError

    def rest(self) -> Iterable[Written]:
        """Write what has been kept."""
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
    """One file for each tensor, of what NumPy can hold; ``encode`` makes its contents."""

    ending: ClassVar[str]

    @staticmethod
    def stored(dtype: torch.dtype) -> torch.dtype:
        return dtype if dtype in _NUMPY else torch.float32

    @classmethod
    def name(cls, tag: Tag, run: int, started: int) -> str:
        return tensor_name(tag, run, cls.ending)

    def encode(self, array: NDArray[Any]) -> Iterable[Any]:
        """Return the parts of a file, as bytes or buffers."""
        raise NotImplementedError

    def put(self, tag: Tag, tensor: Tensor) -> Iterator[Written]:
        array = np.ascontiguousarray(tensor.to(self.stored(tensor.dtype)).numpy())
        write_whole(self._folder / self.name(tag, self._run, self._started), self.encode(array))
        yield Written([self._entry(tag, tensor)], array.nbytes)


class NpyWriter(ArrayWriter):
    """NumPy's own files."""

    ending = "npy"

    @classmethod
    def overhead(cls, planned: Sequence[Planned], request: DumpRequest) -> int:
        dtypes = [np.dtype(str(cls.stored(one.dtype)).removeprefix("torch.")) for one in planned]
        return sum(len(npy_header(one.shape, d)) for one, d in zip(planned, dtypes, strict=True))

    def encode(self, array: NDArray[Any]) -> Iterable[Any]:
        return [npy_header(array.shape, array.dtype), array.data]


class SafetensorsWriter(Writer):
    """One file for each image and step, written when the last tensor that is expected has come, else at the end."""

    def __init__(self, folder: Path, request: DumpRequest, run: int, started: int) -> None:
        super().__init__(folder, request, run, started)
        self._groups = _Groups(request.expected)
        self._locks: dict[str, threading.Lock] = {}

    @staticmethod
    def stored(dtype: torch.dtype) -> torch.dtype:
        return dtype if dtype in _CODES else torch.float32

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

    def _write(self, group: _Group) -> Written:
        """Write the file of one image and step; join what is in it, should a capture come late."""
        name = safetensors_name(group.image, group.step, self._run, hires=group.hires)
        path = self._folder / name
        with self._locks.setdefault(name, threading.Lock()):
            tensors = _read_all(path) if path.exists() else {}
            tensors.update({key_of(tag): self._storable(tensor) for tag, tensor in group.tensors.items()})
            metadata = metadata_of(self._request, group.image, group.step, self._run, hires=group.hires)
            write_whole(path, _safetensors(tensors, metadata))
        entries = [self._entry(tag, tensor) for tag, tensor in group.tensors.items()]
        return Written(entries, sum(tensor.nbytes for tensor in group.tensors.values()))

    def _storable(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.stored(tensor.dtype)).contiguous()


WRITERS: dict[str, type[Writer]] = {"bin": BinWriter, "npy": NpyWriter, "safetensors": SafetensorsWriter}
"""The writers by format; ``settings/tree.py`` has the names for people, ``reader.py`` what reads the files back."""


@dataclass
class _Group:
    """What has come for one image and step, and the number of the capture that came last."""

    image: int
    hires: bool
    step: int
    tensors: dict[Tag, Tensor] = field(default_factory=dict)
    fed: int = 0


class _Groups:
    """Collect captures until those of one image and step are complete.

    A step that will never be complete, because the model was made to leave blocks out, is given out as it is once
    128 captures have come since its last one: memory must not grow with the number of steps. A group that may still
    be completed is fed after as many captures as a batch has images, and a few more that other threads get ahead.
    """

    def __init__(self, expected: Mapping[str, Container[int]]) -> None:
        self._expected = expected
        self._open: dict[tuple[int, bool, int], _Group] = {}
        self._count = 0
        self._lock = threading.Lock()

    def add(self, tag: Tag, tensor: Tensor) -> list[_Group]:
        """Take a capture and return the groups to write now."""
        with self._lock:
            self._count += 1
            key = (tag.image, tag.hires, tag.step)
            group = self._open.pop(key, None) or _Group(*key)
            group.tensors[tag] = tensor
            group.fed = self._count
            complete = self._is_complete(group)
            if not complete:
                self._open[key] = group  # at the end, so that the one that waits longest stands first
            stale = [key for key, other in self._open.items() if self._count - other.fed > _STALE]
            return ([group] if complete else []) + [self._open.pop(key) for key in stale]

    def _is_complete(self, group: _Group) -> bool:
        expected = {key for key, steps in self._expected.items() if group.step in steps}
        return bool(expected) and expected <= set(map(key_of, group.tensors))

    def rest(self) -> Iterator[_Group]:
        """Return out what is left, one by one, so that the memory of each is free before the next."""
        while self._open:
            yield self._open.pop(next(iter(self._open)))


def _read_all(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file into memory; the library only maps it, and Windows replaces no mapped file."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Make the head of an npy file; ``numpy.save`` would write the data too, but hides why a write failed."""
    head = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, description)
    return head.getvalue()


def safetensors_header(
    tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]], metadata: Mapping[str, str]
) -> bytes:
    """Make the head of a safetensors file of tensors by name, of which shapes and dtypes are given."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (shape, dtype) in tensors.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False).encode("utf-8", "replace")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """Return the parts of a safetensors file: length of the header, header in JSON, data.

    Not by the library, whose ``save`` takes twice the memory and over twice the time, and whose ``save_file`` hides
    the reason of a failure and makes files that no other user may read. Tests read the result with it.
    https://github.com/huggingface/safetensors#format
    """
    yield safetensors_header({name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}, metadata)
    for tensor in tensors.values():
        yield tensor.reshape(-1).view(torch.uint8).numpy().data
