"""The bytes of npy and safetensors files."""

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
"""The dtypes that are written to safetensors files as they are, and their names there."""


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
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False).encode("utf-8", "replace")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def safetensors_file(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    """Return the parts of a safetensors file: length of the header, header in JSON, data.

    Not by the library, whose ``save`` takes twice the memory and over twice the time, and whose ``save_file`` hides
    the reason of a failure and makes files that no other user may read. Tests read the result with it.
    https://github.com/huggingface/safetensors#format
    """
    yield safetensors_header({name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}, metadata)
    for tensor in tensors.values():
        yield tensor.reshape(-1).view(torch.uint8).numpy().data


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file into memory; the library only maps it, and Windows replaces no mapped file."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}
