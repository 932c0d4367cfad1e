"""Find the tensors of dumps and their files, by manifests, or without them by file names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.kinds import FEATURE, KINDS
from lib_dumpunet.sinks.manifest import Entry, file_names, read_manifest
from lib_dumpunet.sinks.names import ARRAYS, CHANNEL, Name, bin_pattern, channel_name, parse_name

_log = logging.getLogger("dumpunet")


@dataclass(frozen=True)
class Source:
    """The files of a tensor, and what is known before reading it; without a tag, all tensors of a safetensors file."""

    paths: tuple[Path, ...]
    tag: Tag | None = None
    run: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    tokens: tuple[str, ...] = ()


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """List the tensors of folders and files.

    Raises:
        SettingsError: if a path is missing or not a dump.
    """
    found = [source for path in paths if path.is_dir() for source in _in_folder(path)]
    return found + _from_files([path for path in paths if not path.is_dir()])


def _in_folder(folder: Path) -> list[Source]:
    entries = _entries(folder)
    if entries is None:
        names = sorted(path.name for path in folder.iterdir() if parse_name(path.name))
        found = _from_files([folder / name for name in names])
        for source in found:
            _check_channels(source)
    else:
        found = [_from_entry(folder, entry) for entry in entries]
    return sorted(found, key=_order)


def _order(source: Source) -> tuple[int, int, bool, Tag]:
    """Sort by run, image, pass and tag; block names sort in forward order by themselves: IN, M, OUT."""
    tag = source.tag
    if tag is None:
        name = parse_name(source.paths[0].name)
        assert name is not None
        tag = Tag(name.image, name.step, "", hires=name.hires)
    return source.run or 0, tag.image, tag.hires, tag


def _entries(folder: Path) -> list[Entry] | None:
    """Read the manifest's entries; None if there is no valid manifest."""
    try:
        content = read_manifest(folder)
    except (SettingsError, OSError) as error:
        _log.warning("%s Using file names instead.", error)
        return None
    if content is None:
        return None
    tokens = {run["run"]: run.get("tokens", {}) for run in content["runs"]}
    return [{**e, "tokens": _columns(e, tokens.get(e["run"], {}))} for e in content["files"]]


def _columns(entry: Entry, tokens: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the token labels of the text that a layer read, including its padding."""
    text = entry["text"] if "text" in entry else entry.get("prompt")
    own = tuple(tokens.get(text or "", ()))
    filler = tuple(tokens.get("", ()))
    axes = KINDS[entry.get("kind", FEATURE)].axes
    return _filled(own, filler, entry["shape"][axes.index("token")] if "token" in axes else 0)


@lru_cache(maxsize=256)
def _filled(own: tuple[str, ...], filler: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Pad labels to ``count`` tokens; cached, because thousands of layers may read the same text."""
    while own and filler and len(own) < count:
        own += filler
    return own


def _from_entry(folder: Path, entry: Entry) -> Source:
    if Path(entry["file"]).name != entry["file"] or entry["file"] == "..":
        raise SettingsError(f"{folder} has a manifest that names a file outside the folder: {entry['file']}")
    if CHANNEL in entry["file"] and len(entry["shape"]) > 2:
        # Checked before listing all names, because a manifest may claim any number of channels.
        last = folder / channel_name(entry["file"], entry["shape"][0] - 1)
        if not last.exists():
            raise SettingsError(f"{last} no longer exists", remedy="Make the dump again.")
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


def _from_files(paths: list[Path]) -> list[Source]:
    """List the tensors of files, with details from manifests in their folders if there are any."""
    for path in paths:
        if not path.exists():
            raise SettingsError(f"{path} does not exist", remedy="Give a folder or files of a dump.")
        if path.suffix not in (endings := _endings()):
            raise SettingsError(
                f"{path} is not a dump", remedy=f"Give a folder, or files {', '.join(endings)}."
            )
    known = {folder: _by_file(_entries(folder) or []) for folder in {path.parent for path in paths}}
    single = [path for path in paths if path.suffix != ".bin"]
    groups = [(path,) for path in single] + _group_channels([path for path in paths if path.suffix == ".bin"])
    return [_from_group(group, known[group[0].parent]) for group in groups]


def _by_file(entries: list[Entry]) -> dict[str, Entry]:
    return {entry["file"]: entry for entry in entries}


def _from_group(paths: tuple[Path, ...], known: dict[str, Entry]) -> Source:
    name = parse_name(paths[0].name)
    if name is None or name.tag is None:
        return Source(paths, run=None if name is None else name.run)
    entry = known.get(paths[0].name if name.time is None else bin_pattern(paths[0].name))
    if entry is None:
        return Source(paths, name.tag, None if name.time else name.run)
    return _from_known(paths, entry)


def _from_known(paths: tuple[Path, ...], entry: Entry) -> Source:
    return Source(
        paths,
        _tag_of(entry),
        entry["run"],
        tuple(entry["shape"]),
        entry.get("source_dtype"),
        tuple(entry.get("tokens", ())),
    )


def _group_channels(paths: list[Path]) -> list[tuple[Path, ...]]:
    """Group the channel files of each tensor, in order.

    The time in the names separates a tensor's files from those of a later run. If each file has its own time, it may
    increase within a tensor, so a new tensor begins where the channel number does not increase.
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


def _check_channels(source: Source) -> None:
    """Refuse a tensor with missing channel files, because its channels would be numbered wrongly."""
    if source.paths[0].suffix != ".bin":
        return
    channels = {name.channel for name in map(parse_name, (path.name for path in source.paths)) if name}
    missing = next(number for number in range(len(channels) + 1) if number not in channels)
    if missing < len(source.paths):
        raise SettingsError(
            f"{source.paths[0].parent} lacks the file of channel {missing}, which belongs to {source.paths[0].name}",
            remedy="To read only the channels that are there, give their files instead of the folder.",
        )


def _endings() -> list[str]:
    """List the extensions of dump files."""
    return [".bin", *(f".{ending}" for ending in sorted(ARRAYS)), ".safetensors"]
