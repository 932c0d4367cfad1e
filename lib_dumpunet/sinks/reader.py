"""Read dumped tensors back, one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.sinks.names import key_of, tag_of_key
from lib_dumpunet.sinks.sources import Source, find_sources

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values")
_DTYPES = ("float16", "float32", "float64")
_LARGEST = {"b": 1, "i": 8, "u": 8, "f": 8, "c": 16}
"""Largest size in bytes of the NumPy dtypes of each kind that torch also has."""
_DAMAGES = (ValueError, TypeError, KeyError, EOFError, MemoryError, RuntimeError, SafetensorError)


@dataclass(frozen=True, eq=False)
class Loaded(Generic[Values]):
    """A tensor from a dump, with the axes of its kind, in the model's dtype if the dump has it.

    ``tag`` is None for an array that another program wrote, ``run`` is the run's number in the folder's manifest, and
    ``tokens`` are the labels of the token axis, if the manifest has them.
    """

    tensor: Values
    paths: tuple[Path, ...]
    tag: Tag | None = None
    run: int | None = None
    tokens: tuple[str, ...] = ()


def load_dump(
    source: str | Path | Iterable[str | Path],
    *,
    shape: tuple[int, int] | None = None,
    run: int | None = None,
) -> Iterator[Loaded[Tensor]]:
    """Read a folder or files of a dump, one tensor in memory at a time.

    Tensors are found by the folder's manifest, or without one by file names. They come in the order run, image, pass,
    step, block; a tag's ``hires`` marks the second pass of a hires fix. ``run`` selects one run of the folder. ``bin``
    files of one tag become one tensor, in channel order; they have no shape, so height and width come from the
    manifest, else from ``shape``, else the map is assumed to be square.

    Raises:
        SettingsError: if there is nothing to read, a file is damaged or not a dump, or a shape does not fit; errors in
            a file's content are raised when the file is read.
    """
    return map(_as_tensor, load_numbers(source, shape=shape, run=run))


def load_numbers(
    source: str | Path | Iterable[str | Path],
    *,
    shape: tuple[int, int] | None = None,
    run: int | None = None,
) -> Iterator[Loaded[Any]]:
    """Read as ``load_dump`` does, but return NumPy arrays for npy and bin files, if NumPy has the dtype."""
    paths = [Path(path) for path in ([source] if isinstance(source, (str, Path)) else source)]
    sources = [found for found in find_sources(paths) if run is None or found.run == run]
    if not sources:
        what = "no dumped tensors" if run is None else f"no dumped tensors of run {run}"
        raise SettingsError(
            f"{', '.join(map(str, paths))} contains {what}", remedy="Give a folder or files of a dump."
        )
    return (loaded for found in sources for loaded in _read(found, shape))


def _as_tensor(loaded: Loaded[Any]) -> Loaded[Tensor]:
    if not isinstance(loaded.tensor, np.ndarray):
        return loaded
    import torch

    return replace(loaded, tensor=torch.from_numpy(loaded.tensor))


def _read(source: Source, shape: tuple[int, int] | None) -> Iterator[Loaded[Any]]:
    path = source.paths[0]
    with _as_user_error(path):
        if path.suffix == ".safetensors":
            yield from _read_safetensors(source)
            return
        array = _read_bin(source, shape) if path.suffix == ".bin" else READERS[path.suffix](path)
    yield Loaded(_converted(array, source.dtype), source.paths, source.tag, source.run, source.tokens)


def _converted(array: NDArray[Any], dtype: str | None) -> Any:
    """Convert an array to the model's dtype; bfloat16, which NumPy lacks, becomes a tensor."""
    if dtype == "bfloat16":
        import torch

        return torch.from_numpy(array).to(torch.bfloat16)
    return array.astype(dtype, copy=False) if dtype in _DTYPES else array


def _read_npy(path: Path) -> NDArray[Any]:
    """Read an array; NumPy checks it against the file's size when mapping it, and nothing is unpickled."""
    mapped = np.lib.format.open_memmap(path, mode="r")
    if mapped.dtype.itemsize > _LARGEST.get(mapped.dtype.kind, 0):
        raise TypeError(f"it contains {mapped.dtype}, which is not a dtype of dumps")
    return np.array(mapped, dtype=mapped.dtype.newbyteorder("="), order="C")


READERS: dict[str, Callable[[Path], NDArray[Any]]] = {".npy": _read_npy}
"""Readers of files of one tensor, by extension."""


def _read_bin(source: Source, shape: tuple[int, int] | None) -> NDArray[Any]:
    """Join channel files to "c h w", or the shape in the manifest."""
    known = None if source.shape is None else source.shape[1:] if len(source.shape) > 2 else source.shape
    each = known or shape or _square(source.paths[0])
    channels = np.empty((len(source.paths), *each), np.float32)
    for channel, path in zip(channels, source.paths, strict=True):
        with _as_user_error(path):
            size = path.stat().st_size
            if size != 4 * math.prod(each):
                raise SettingsError(
                    f"{path} contains {size / 4:g} values, not {'×'.join(map(str, each))}",
                    remedy="Give the height and width of its map.",
                )
            channel[...] = np.fromfile(path, "<f4").reshape(each)
    return channels[0] if source.shape is not None and len(source.shape) < 3 else channels


def _square(path: Path) -> tuple[int, int]:
    """Guess height and width from the size of a file."""
    count, rest = divmod(path.stat().st_size, 4)
    side = math.isqrt(count)
    if rest or not count:
        raise SettingsError(f"{path} is not a file of float32 values", remedy="Give files of a dump.")
    if side * side != count:
        height = next(number for number in range(side, 0, -1) if count % number == 0)
        raise SettingsError(
            f"{path} contains {count} values, which is not a square map",
            remedy=f"Give its height and width, for example {height} and {count // height}.",
        )
    return side, side


def _read_safetensors(source: Source) -> Iterator[Loaded[Tensor]]:
    (path,) = source.paths
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        if not {"image", "step", "run"} <= about.keys():
            raise SettingsError(
                f"{path} is a safetensors file of another program", remedy="Give files of a dump."
            )
        image, step, run = (int(about[key]) for key in ("image", "step", "run"))
        for key in sorted(file.keys()) if source.tag is None else [key_of(source.tag)]:
            tensor = file.get_tensor(key).clone()  # otherwise the tensor would keep the file open
            tag = tag_of_key(key, image, step, hires=about.get("hires") == "true")
            yield Loaded(tensor, source.paths, tag, run, source.tokens)


@contextmanager
def _as_user_error(path: Path) -> Iterator[None]:
    """Turn errors of reading a file into a SettingsError of one sentence."""
    try:
        yield
    except SettingsError:
        raise
    except FileNotFoundError as error:
        raise SettingsError(f"{path} no longer exists", remedy="Make the dump again.") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}") from error
    except _DAMAGES as error:
        raise SettingsError(
            f"{path} is damaged, or not a dump ({error})", remedy="Make the dump again."
        ) from error
