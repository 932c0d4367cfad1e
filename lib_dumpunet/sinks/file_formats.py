"""Write and read npy and safetensors files."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
"""Dtypes that safetensors files store unchanged, with their names there."""


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the header of an npy file; used instead of ``numpy.save``, which hides why a write failed."""
    head = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, description)
    return head.getvalue()


def safetensors_header(
    tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]], metadata: Mapping[str, str]
) -> bytes:
    """Return the header of a safetensors file, from the tensors' shapes and dtypes by name."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (shape, dtype) in tensors.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False).encode("utf-8", "replace")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def safetensors_file(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    """Yield the parts of a safetensors file: the header with its length, then the data.

    The library is not used: its ``save`` takes twice the memory and over twice the time, and its ``save_file`` hides
    why a write failed and creates files that other users must not read. Tests read the result with the library.
    https://github.com/huggingface/safetensors#format
    """
    yield safetensors_header({name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}, metadata)
    for tensor in tensors.values():
        yield tensor.reshape(-1).view(torch.uint8).numpy().data


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file into memory; the library only maps it, and Windows cannot replace a mapped file."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}
