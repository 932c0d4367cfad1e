"""Read dumped tensors back, one by one."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.kinds import FEATURE, KINDS
from lib_dumpunet.sinks.manifest import Entry, file_names, read_manifest
from lib_dumpunet.sinks.names import (
    CHANNEL,
    Name,
    bin_pattern,
    channel_name,
    key_of,
    parse_name,
    tag_of_key,
)

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values")
_log = logging.getLogger("dumpunet")
_ENDINGS = (".bin", ".npy", ".safetensors")
_DTYPES = ("float16", "float32", "float64")
_LARGEST = {"b": 1, "i": 8, "u": 8, "f": 8, "c": 16}
"""Bytes of the largest number of each kind that torch has, too."""
_DAMAGES = (ValueError, TypeError, KeyError, EOFError, MemoryError, RuntimeError, SafetensorError)


@dataclass(frozen=True, eq=False)
class Loaded(Generic[Values]):
    """A tensor out of a dump, with the axes of its kind, in the dtype that the model had, where the dump tells it.

    ``tag`` is None for an array that some other program wrote; ``run`` is the number in the folder's manifest, and
    ``tokens`` are the texts of a prompt's columns, where the manifest has them.
    """

    tensor: Values
    paths: tuple[Path, ...]
    tag: Tag | None = None
    run: int | None = None
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """Where a tensor lies, and what is known of it before reading; a safetensors file with no tag: all in it."""

    paths: tuple[Path, ...]
    tag: Tag | None = None
    run: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    tokens: tuple[str, ...] = ()


def load_dump(
    source: str | Path | Iterable[str | Path],
    *,
    shape: tuple[int, int] | None = None,
    run: int | None = None,
) -> Iterator[Loaded[Tensor]]:
    """Read a folder, a file or several, one tensor in memory at a time.

    A folder's manifest tells what there is; without one, file names do. Order: run, image, pass, step, block; a tag's
    ``hires`` tells the second pass of a hires fix. ``run`` takes one run of the folder alone. ``bin`` files of one
    tag become one tensor, in the order of their channels; they hold no shape, so height and width come from the
    manifest, else from ``shape``, else the map is taken for square.

    Raises:
        SettingsError: nothing there, a file that is damaged or no dump, or a shape that does not fit; what can only
            be seen in a file's content is raised when its turn comes.
    """
    return map(_as_tensor, load_numbers(source, shape=shape, run=run))


def load_numbers(
    source: str | Path | Iterable[str | Path],
    *,
    shape: tuple[int, int] | None = None,
    run: int | None = None,
) -> Iterator[Loaded[Any]]:
    """Read as ``load_dump`` does, but give NumPy's arrays where these hold the numbers: of npy and bin files."""
    paths = [Path(path) for path in ([source] if isinstance(source, (str, Path)) else source)]
    sources = [found for path in paths if path.is_dir() for found in _in_folder(path)]
    sources += _from_files([path for path in paths if not path.is_dir()])
    sources = [found for found in sources if run is None or found.run == run]
    if not sources:
        what = "no dumped tensors" if run is None else f"no dumped tensors of run {run}"
        raise SettingsError(
            f"{', '.join(map(str, paths))} holds {what}", remedy="Give a folder or files of a dump."
        )
    return (loaded for found in sources for loaded in _read(found, shape))


def _as_tensor(loaded: Loaded[Any]) -> Loaded[Tensor]:
    if not isinstance(loaded.tensor, np.ndarray):
        return loaded
    import torch

    return replace(loaded, tensor=torch.from_numpy(loaded.tensor))


def _in_folder(folder: Path) -> list[_Source]:
    entries = _entries(folder)
    if entries is None:
        names = sorted(path.name for path in folder.iterdir() if parse_name(path.name))
        found = _from_files([folder / name for name in names])
        for source in found:
            _check_channels(source)
    else:
        found = [_from_entry(folder, entry) for entry in entries]
    return sorted(found, key=_order)


def _order(source: _Source) -> tuple[int, int, bool, Tag]:
    """Sort by run, image, pass and tag; block names sort in forward order by themselves: IN, M, OUT."""
    tag = source.tag
    if tag is None:
        name = parse_name(source.paths[0].name)
        assert name is not None
        tag = Tag(name.image, name.step, "", hires=name.hires)
    return source.run or 0, tag.image, tag.hires, tag


def _entries(folder: Path) -> list[Entry] | None:
    """Read what the manifest lists; None where there is none of ours."""
    try:
        content = read_manifest(folder)
    except (SettingsError, OSError) as error:
        _log.warning("%s Going by file names.", error)
        return None
    if content is None:
        return None
    tokens = {run["run"]: run.get("tokens", {}) for run in content["runs"]}
    return [{**e, "tokens": _columns(e, tokens.get(e["run"], {}))} for e in content["files"]]


def _columns(entry: Entry, tokens: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Find the texts of the columns that a layer has read: its own, and those that it was filled up with."""
    text = entry["text"] if "text" in entry else entry.get("prompt")
    own = tuple(tokens.get(text or "", ()))
    filler = tuple(tokens.get("", ()))
    axes = KINDS[entry.get("kind", FEATURE)].axes
    return _filled(own, filler, entry["shape"][axes.index("token")] if "token" in axes else 0)


@lru_cache(maxsize=256)
def _filled(own: tuple[str, ...], filler: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Fill up to ``count`` columns; once for all layers that have read a text, as there may be thousands."""
    while own and filler and len(own) < count:
        own += filler
    return own


def _from_entry(folder: Path, entry: Entry) -> _Source:
    if Path(entry["file"]).name != entry["file"] or entry["file"] == "..":
        raise SettingsError(f"{folder} has a manifest that names a file elsewhere: {entry['file']}")
    if CHANNEL in entry["file"] and len(entry["shape"]) > 2:
        # Before all are named: a manifest may tell of any number of channels.
        last = folder / channel_name(entry["file"], entry["shape"][0] - 1)
        if not last.exists():
            raise SettingsError(f"{last} does not exist any more", remedy="Take the dump again.")
    paths = tuple(folder / name for name in file_names(entry))
    return _from_known(paths, entry)


def _tag_of(entry: Entry) -> Tag:
    return Tag(
        entry["image"],
        entry["step"],
        entry["block"],
        entry.get("kind", FEATURE),
        entry.get("layer", 0),
        entry.get("word") or entry.get("point") or "",
        "uncond" if entry.get("prompt_part") == "negative" else "cond",
        entry.get("hires", False),
    )


def _from_files(paths: list[Path]) -> list[_Source]:
    """Find out about files, from the manifests beside them as far as there are some."""
    for path in paths:
        if not path.exists():
            raise SettingsError(f"{path} does not exist", remedy="Give a folder or files of a dump.")
        if path.suffix not in _ENDINGS:
            raise SettingsError(
                f"{path} is not a dump", remedy=f"Give a folder, or files {', '.join(_ENDINGS)}."
            )
    known = {folder: _by_file(_entries(folder) or []) for folder in {path.parent for path in paths}}
    single = [path for path in paths if path.suffix != ".bin"]
    groups = [(path,) for path in single] + _group_channels([path for path in paths if path.suffix == ".bin"])
    return [_from_group(group, known[group[0].parent]) for group in groups]


def _by_file(entries: list[Entry]) -> dict[str, Entry]:
    return {entry["file"]: entry for entry in entries}


def _from_group(paths: tuple[Path, ...], known: dict[str, Entry]) -> _Source:
    name = parse_name(paths[0].name)
    if name is None or name.tag is None:
        return _Source(paths, run=None if name is None else name.run)
    entry = known.get(paths[0].name if name.time is None else bin_pattern(paths[0].name))
    if entry is None:
        return _Source(paths, name.tag, None if name.time else name.run)
    return _from_known(paths, entry)


def _from_known(paths: tuple[Path, ...], entry: Entry) -> _Source:
    return _Source(
        paths,
        _tag_of(entry),
        entry["run"],
        tuple(entry["shape"]),
        entry.get("source_dtype"),
        tuple(entry.get("tokens", ())),
    )


def _group_channels(paths: list[Path]) -> list[tuple[Path, ...]]:
    """Put the channel files of each tensor together, in order.

    A tensor's files are told from those of a later run by the time in their names. The time may move on within one
    tensor, where each file bears its own, so a new tensor begins where the channel number does not rise.
    """
    named = [(parse_name(path.name), path) for path in paths]
    groups: list[tuple[Path, ...]] = [(path,) for name, path in named if name is None]
    last: Name | None = None
    for name, path in sorted(((n, p) for n, p in named if n), key=lambda item: _channel_order(*item)):
        if last is not None and _same_tensor(last, name):
            groups[-1] = (*groups[-1], path)
        else:
            groups.append((path,))
        last = name
    return groups


def _channel_order(name: Name, path: Path) -> tuple[str, str, int, int]:
    assert name.tag is not None
    return str(path.parent), name.tag.stem, name.time or 0, name.channel or 0


def _same_tensor(last: Name, name: Name) -> bool:
    return last.tag == name.tag and (name.channel or 0) > (last.channel or 0)


def _check_channels(source: _Source) -> None:
    """Refuse a tensor in a folder that has lost files: its channels would be counted wrongly."""
    if source.paths[0].suffix != ".bin":
        return
    channels = {name.channel for name in map(parse_name, (path.name for path in source.paths)) if name}
    missing = next(number for number in range(len(channels) + 1) if number not in channels)
    if missing < len(source.paths):
        raise SettingsError(
            f"{source.paths[0].parent} lacks the file of channel {missing} beside {source.paths[0].name}",
            remedy="Give the files themselves, to read these channels alone.",
        )


def _read(source: _Source, shape: tuple[int, int] | None) -> Iterator[Loaded[Any]]:
    with _as_user_error(source.paths[0]):
        if source.paths[0].suffix == ".safetensors":
            yield from _read_safetensors(source)
            return
        is_npy = source.paths[0].suffix == ".npy"
        array = _read_npy(source.paths[0]) if is_npy else _read_bin(source, shape)
    yield Loaded(_converted(array, source.dtype), source.paths, source.tag, source.run, source.tokens)


def _converted(array: NDArray[Any], dtype: str | None) -> Any:
    """Bring an array to the dtype that the model had; NumPy has no bfloat16, so that becomes a tensor."""
    if dtype == "bfloat16":
        import torch

        return torch.from_numpy(array).to(torch.bfloat16)
    return array.astype(dtype, copy=False) if dtype in _DTYPES else array


def _read_npy(path: Path) -> NDArray[Any]:
    """Read an array, which NumPy checks against the file's size when it maps it; nothing pickled is touched."""
    mapped = np.lib.format.open_memmap(path, mode="r")
    if mapped.dtype.itemsize > _LARGEST.get(mapped.dtype.kind, 0):
        raise TypeError(f"it holds {mapped.dtype}, which are no numbers that are dumped")
    return np.array(mapped, dtype=mapped.dtype.newbyteorder("="), order="C")


def _read_bin(source: _Source, shape: tuple[int, int] | None) -> NDArray[Any]:
    """Put channel files together: "c h w", or the shape that the manifest tells."""
    known = None if source.shape is None else source.shape[1:] if len(source.shape) > 2 else source.shape
    each = known or shape or _square(source.paths[0])
    channels = np.empty((len(source.paths), *each), np.float32)
    for channel, path in zip(channels, source.paths, strict=True):
        with _as_user_error(path):
            size = path.stat().st_size
            if size != 4 * math.prod(each):
                raise SettingsError(
                    f"{path} holds {size / 4:g} values, not {'×'.join(map(str, each))}",
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
            f"{path} holds {count} values, which is no square map",
            remedy=f"Give its height and width, for instance {height} and {count // height}.",
        )
    return side, side


def _read_safetensors(source: _Source) -> Iterator[Loaded[Tensor]]:
    (path,) = source.paths
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        if not {"image", "step", "run"} <= about.keys():
            raise SettingsError(
                f"{path} is a safetensors file of another program", remedy="Give files of a dump."
            )
        image, step, run = (int(about[key]) for key in ("image", "step", "run"))
        for key in sorted(file.keys()) if source.tag is None else [key_of(source.tag)]:
            tensor = file.get_tensor(key).clone()  # or the file would stay open with the tensor
            tag = tag_of_key(key, image, step, hires=about.get("hires") == "true")
            yield Loaded(tensor, source.paths, tag, run, source.tokens)


@contextmanager
def _as_user_error(path: Path) -> Iterator[None]:
    """Say in one sentence what is the matter with a file."""
    try:
        yield
    except SettingsError:
        raise
    except FileNotFoundError as error:
        raise SettingsError(f"{path} does not exist any more", remedy="Take the dump again.") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}") from error
    except _DAMAGES as error:
        raise SettingsError(
            f"{path} is damaged, or not a dump ({error})", remedy="Take the dump again."
        ) from error
