"""Write captured tensors to files: ``bin``, ``npy`` or ``safetensors``."""

from __future__ import annotations

import io
import json
import math
import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError, SettingsError
from lib_dumpunet.kinds import KINDS, Kind
from lib_dumpunet.settings import FORMATS
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.files import FIELD, explain, prepare_folder, write_whole
from lib_dumpunet.sinks.manifest import Entry, Manifest
from lib_dumpunet.sinks.names import bin_name, channel_name, key_of, npy_name, safetensors_name

_T = TypeVar("_T")
_NUMPY = (torch.float16, torch.float32, torch.float64)
_STALE = 128  # captures; an unfinished group that so many have passed by is not going to be completed
_CODES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}


@dataclass(frozen=True)
class DumpRequest:
    """What a dump says about the tensors in it.

    ``prompts``, ``negative_prompts`` and ``seeds`` go by image; a single one holds for all images. ``blocks`` is the
    model's block table, name to whatever describes it in JSON, such as ``{"input": [4, 64, 64], "output": [320, 64,
    64]}``. ``tokens`` are the columns of the maps, the text of each by prompt, and by "" of those that shorter texts
    are filled up with; ``text_of`` tells what the layer of a tag has read. ``attention`` tells of which blocks and
    steps words and points are means. ``expected`` are the keys of what comes for each image (see ``key_of``), with the
    steps in which it does, so that a file of all of a step can be written as soon as the last one has come.
    """

    prompts: Sequence[str] = ()
    negative_prompts: Sequence[str] = ()
    seeds: Sequence[int] = ()
    sampler: str = ""
    steps: int = 0
    model: str = ""
    blocks: Mapping[str, Any] = field(default_factory=dict)
    tokens: Mapping[str, Sequence[str]] = field(default_factory=dict)
    text_of: Callable[[Tag], str] | None = None
    attention: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Container[int]] = field(default_factory=dict)
    guidance: float | None = None

    def about_image(self, image: int) -> dict[str, Any]:
        """Tell prompt, negative prompt and seed of an image; None for what is not known."""
        return {
            "prompt": _of(self.prompts, image),
            "negative_prompt": _of(self.negative_prompts, image),
            "seed": _of(self.seeds, image),
        }

    def about_layer(self, tag: Tag) -> dict[str, str]:
        """Return what an attention layer has read, where that is not the prompt as a whole."""
        if self.text_of is None or not KINDS[tag.kind].reads_text:
            return {}
        text = self.text_of(tag)
        return {} if text == _of(self.prompts, tag.image) else {"text": text}

    def about_run(self) -> dict[str, Any]:
        """Return what holds for all images."""
        about: dict[str, Any] = {
            "sampler": self.sampler,
            "steps": self.steps,
            "model": self.model,
            "blocks": dict(self.blocks),
        }
        if self.guidance is not None:
            about["guidance"] = self.guidance
        more = {"tokens": dict(self.tokens), "attention": dict(self.attention)}
        return about | {key: value for key, value in more.items() if value}


class DumpSink(Sink):
    """Write every capture of some ``kinds`` into a folder, with a ``manifest.json`` that lists the files.

    ``kinds`` None stands for all. What is only passing (see ``kinds.py``) is never written.

    - ``bin``: raw little-endian float32, one file for each channel (of attention: each index of the first axis), its
      rows one after another.
    - ``npy``: one array for each tensor: a block's features "c h w" for each image and step, in the model's dtype;
      where NumPy has none such (bfloat16), in float32, which holds every value exactly.
    - ``safetensors``: one file for each image and step, a tensor for each block in the model's dtype, with prompt,
      seed, sampler, block table and step as metadata; written when the last expected one has come, else at the end.

    A folder can take any number of runs: none overwrites another's files. ``bin`` names hold the time at which the
    run started, moved on by a second if another run has it; other names get ``-2``, ``-3`` ... from the second run
    on, as the manifest's ``run`` counts.

    Raises:
        SettingsError: the folder cannot be used, or the format is unknown.
    """

    def __init__(
        self,
        folder: str | Path,
        file_format: str,
        request: DumpRequest,
        kinds: frozenset[Kind] | None = None,
    ) -> None:
        if file_format not in FORMATS:
            choices = ", ".join(FORMATS)
            raise SettingsError(f"{file_format!r} is not a format", remedy=f"Use {choices}.", field="Format")
        self._folder = prepare_folder(folder)
        self._request = request
        self._format = file_format
        self._kinds = {kind for kind in kinds or KINDS if not KINDS[kind].is_passing}
        self._groups = _Groups(request.expected)
        self._file_locks: dict[str, threading.Lock] = {}
        self._count = threading.Lock()
        self._tensors = self._bytes = 0
        with self._as_user_error():
            self._manifest = Manifest(self._folder, {"format": file_format, **request.about_run()})

    @property
    def run(self) -> int:
        """Number of this run in its folder, from 1."""
        return self._manifest.run

    def accept(self, capture: Capture) -> None:
        """Write a capture, or keep it until its file is complete.

        Raises:
            HostError: it cannot be written.
        """
        if capture.tag.kind not in self._kinds:
            return
        with self._as_user_error():
            tensor = capture.tensor.detach()
            if self._format == "bin":
                self._write_bin(capture.tag, tensor)
            elif self._format == "npy":
                self._write_npy(capture.tag, tensor)
            else:
                for group in self._groups.add(capture.tag, tensor):
                    self._write_group(group)

    def close(self) -> None:
        """Write unfinished groups and the manifest's last state.

        Raises:
            HostError: they cannot be written.
        """
        with self._as_user_error():
            try:
                for group in self._groups.rest():
                    self._write_group(group)
            finally:
                self._manifest.close()

    def _write_bin(self, tag: Tag, tensor: Tensor) -> None:
        array = tensor.float().numpy().astype("<f4", order="C", copy=False)
        array = array[None] if array.ndim < 3 else array
        pattern = bin_name(tag, self._manifest.started)
        for channel, rows in enumerate(array):
            write_whole(self._folder / channel_name(pattern, channel), [rows.data])
        self._list([self._entry(tag, pattern, tensor, torch.float32)], array.nbytes)

    def _write_npy(self, tag: Tag, tensor: Tensor) -> None:
        stored = tensor.to(stored_dtype(tensor.dtype, "npy"))
        array = np.ascontiguousarray(stored.numpy())
        name = npy_name(tag, self.run)
        write_whole(self._folder / name, [npy_header(array.shape, array.dtype), array.data])
        self._list([self._entry(tag, name, tensor, stored.dtype)], array.nbytes)

    def _write_group(self, group: _Group) -> None:
        """Write the file of one image and step; join what is in it, should a capture come late."""
        name = safetensors_name(group.image, group.step, self.run, hires=group.hires)
        path = self._folder / name
        with self._file_locks.setdefault(name, threading.Lock()):
            tensors = _read_all(path) if path.exists() else {}
            tensors.update({key_of(tag): _storable(tensor) for tag, tensor in group.tensors.items()})
            metadata = metadata_of(self._request, group.image, group.step, self.run, hires=group.hires)
            write_whole(path, _safetensors(tensors, metadata))
        size = sum(tensor.nbytes for tensor in group.tensors.values())
        self._list([self._entry(tag, name, t, _storable(t).dtype) for tag, t in group.tensors.items()], size)

    def _entry(self, tag: Tag, name: str, tensor: Tensor, stored: torch.dtype) -> Entry:
        return entry_of(self._request, tag, name, tuple(tensor.shape), stored, tensor.dtype)

    def _list(self, entries: list[Entry], size: int) -> None:
        with self._count:
            self._tensors += len(entries)
            self._bytes += size
        self._manifest.add(entries)

    @contextmanager
    def _as_user_error(self) -> Iterator[None]:
        """Turn a file's error into one sentence that says how far the dump came."""
        try:
            yield
        except OSError as error:
            problem, remedy = explain(error)
            done = f"{self._tensors} tensors ({self._bytes / 2**20:.1f} MiB) were written to {self._folder}"
            raise HostError(f"{problem}; {done} before", remedy=remedy, field=FIELD) from error


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


def metadata_of(request: DumpRequest, image: int, step: int, run: int, *, hires: bool) -> dict[str, str]:
    """Return the metadata of a safetensors file."""
    values: dict[str, Any] = {"image": image, "step": step, "run": run}
    values |= {"hires": True} if hires else {}
    values |= request.about_image(image) | request.about_run()
    known = {key: value for key, value in values.items() if value is not None}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}


def entry_of(
    request: DumpRequest,
    tag: Tag,
    name: str,
    shape: tuple[int, ...],
    stored: torch.dtype,
    source: torch.dtype,
) -> Entry:
    """Return what the manifest says of a tensor, which had one dtype and is stored in another."""
    return {
        "file": name,
        "kind": tag.kind,
        "image": tag.image,
        "step": tag.step,
        **({"hires": True} if tag.hires else {}),
        "block": tag.block,
        **_details(tag),
        **request.about_layer(tag),
        "axes": list(KINDS[tag.kind].axes),
        "shape": list(shape),
        "dtype": dtype_name(stored),
        "source_dtype": dtype_name(source),
        **request.about_image(tag.image),
    }


def _details(tag: Tag) -> dict[str, Any]:
    """Return what blocks have not: which layer of the block, or which word of which prompt, or which point."""
    if tag.kind == "word":
        return {"word": tag.name, "prompt_part": "negative" if tag.branch == "uncond" else "positive"}
    if tag.kind == "point":
        return {"point": tag.name}
    return {"layer": tag.layer} if KINDS[tag.kind].scope == "layer" else {}


def dtype_name(dtype: torch.dtype) -> str:
    """Name a dtype without its library: ``float16``."""
    return str(dtype).removeprefix("torch.")


def _of(values: Sequence[_T], image: int) -> _T | None:
    if len(values) == 1:
        return values[0]
    return values[image] if image < len(values) else None


def stored_dtype(dtype: torch.dtype, file_format: str) -> torch.dtype:
    """Return the dtype that a tensor has in a file."""
    kept: Container[torch.dtype] = {"bin": (), "npy": _NUMPY, "safetensors": _CODES}[file_format]
    return dtype if dtype in kept else torch.float32


def _storable(tensor: Tensor) -> Tensor:
    return tensor.to(stored_dtype(tensor.dtype, "safetensors")).contiguous()


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
