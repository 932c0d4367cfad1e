"""``manifest.json``, the list of a dump folder's files, for all runs that wrote to it.

    {"generator": "Dump U-Net", "version": 1,
     "runs":  [{"run": 1, "started": 1700000000, "format": "npy", "sampler": ..., "blocks": {...}}, ...],
     "files": [{"file": "000-IN00-001.npy", "run": 1, "kind": "feature", "image": 0, "step": 1, "block": "IN00",
                "axes": ["channel", "height", "width"], "shape": [320, 64, 64],
                "dtype": "float16", "source_dtype": "float16",
                "prompt": ..., "negative_prompt": ..., "seed": ...}, ...]}

There is one entry for each tensor; ``kinds.py`` lists the kinds. Attention has the index of its ``layer`` in the block,
a word its ``word``, a point its ``point``; words and points have step 0 and no block, because they are means over steps
and blocks. Entries of the second pass of a hires fix, whose steps count from 1 again, have ``"hires": true``. An
attention layer that read another text than the whole prompt has it as its ``text``. A difference is the run with the
entry's ``prompt`` and ``negative_prompt`` minus the run without their per-block parts. A ``bin`` entry stands for all
its channel files: its ``file`` has ``{channel:04}`` in place of the channel, 0 to ``shape[0] - 1`` (a two-dimensional
shape has one file). ``dtype`` is the dtype in the file, ``source_dtype`` that in the model.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lib_dumpunet.errors import SettingsError
from lib_dumpunet.kinds import FEATURE, KINDS
from lib_dumpunet.sinks.files import FIELD, locked, write_whole
from lib_dumpunet.sinks.names import CHANNEL, channel_name, parse_name

MANIFEST = "manifest.json"
GENERATOR = "Dump U-Net"
LONGEST_AXIS = 1 << 16
MOST_AXES = 8
Entry = dict[str, Any]

_INTERVAL = 0.5  # seconds between two writes
_SHARE = (
    20  # least ratio of this interval to the duration of a write, so that writes take at most 5 % of the time
)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read a folder's manifest; None if it has none.

    Raises:
        SettingsError: if there is a file of this name that is not a dump's manifest.
        OSError: if the file cannot be read.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        runs, entries = content["runs"], content["files"]
        sound = content["generator"] == GENERATOR
        sound = sound and all(isinstance(run["run"] + run["started"], int) for run in runs)
        sound = sound and all(_is_table(run.get("tokens", {})) for run in runs)
        sound = sound and all(isinstance(entry["file"] + entry["block"], str) for entry in entries)
        sound = sound and all(
            isinstance(entry["image"] + entry["step"] + entry["run"], int) for entry in entries
        )
        sound = sound and all(map(_is_tensor, entries))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise SettingsError(
            f"{path} is not a dump's manifest, so it is not overwritten",
            remedy="Move the file away, or choose another folder.",
            field=FIELD,
        )
    return dict(content)


def _is_table(tokens: object) -> bool:
    """Whether something is a valid table of a run's tokens: a list of texts by prompt."""
    return isinstance(tokens, dict) and all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in tokens.values()
    )


def _is_tensor(entry: Entry) -> bool:
    """Return whether an entry is valid; anyone may have written it."""
    shape, kind = entry["shape"], entry.get("kind", FEATURE)
    texts = [
        entry[name] for name in ("word", "point", "prompt_part", "text", "source_dtype") if entry.get(name)
    ]
    return (
        kind in KINDS
        and not KINDS[kind].is_passing
        and isinstance(entry.get("layer", 0), int)
        and isinstance(entry.get("hires", False), bool)
        and all(isinstance(text, str) for text in texts)
        and isinstance(entry.get("prompt") or "", str)
        and isinstance(shape, list)
        and len(shape) <= MOST_AXES
        and all(isinstance(length, int) and 0 < length <= LONGEST_AXIS for length in shape)
        and ("token" not in KINDS[kind].axes or len(shape) > 1)
    )


def file_names(entry: Entry) -> Iterator[str]:
    """Yield the names of an entry's files."""
    if CHANNEL not in entry["file"]:
        yield entry["file"]
        return
    for channel in range(entry["shape"][0] if len(entry["shape"]) > 2 else 1):
        yield channel_name(entry["file"], channel)


class Manifest:
    """One run's part of a folder's manifest.

    The constructor claims a run number and a start time that no other run in the folder has, in the manifest or in file
    names, and writes both to disk, so even a killed run's number is never reused.

    Every write replaces the whole file, so it is always valid JSON. Rewriting it for each of thousands of files would
    take quadratic time, so it is written at most twice a second and once at the end: the manifest of a killed run lacks
    the last half second. Entries of other runs whose files had been deleted before the run are dropped.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self._folder = folder
        self._lines: dict[tuple[Any, ...], str] = {}
        self._other_lines: list[str] = []
        self._other_runs: list[dict[str, Any]] = []
        self._known: tuple[int, ...] | None = None
        self._next = 0.0
        self._state = threading.Lock()
        self._writing = threading.Lock()
        with locked(folder):
            self.run, self.started = self._claim()
            self._about = {"run": self.run, "started": self.started, **about}
            self._replace([])

    def add(self, entries: Iterable[Entry]) -> None:
        """Add entries of complete files; an entry for the same tensor replaces the earlier one.

        Raises:
            OSError: if the manifest cannot be written.
            SettingsError: if another file has taken its place.
        """
        new = {_key(entry): _line({**entry, "run": self.run}) for entry in entries}
        with self._state:
            self._lines.update(new)
        if time.monotonic() >= self._next and self._writing.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._writing.release()

    def close(self) -> None:
        """Write remaining entries."""
        with self._writing:
            self._write()

    def _claim(self) -> tuple[int, int]:
        present = {path.name for path in self._folder.iterdir()}
        self._read_others(0, present)
        names = [name for name in map(parse_name, present) if name]
        runs = {run["run"] for run in self._other_runs} | {name.run for name in names if name.time is None}
        times = {run["started"] for run in self._other_runs} | {name.time for name in names}
        started = int(time.time())
        while started in times:
            started += 1
        return max(runs, default=0) + 1, started

    def _write(self) -> None:
        begin = time.monotonic()
        with self._state:
            lines = list(self._lines.values())
        with locked(self._folder):
            if self._signature() != self._known:
                self._read_others(self.run)
            self._replace(lines)
        end = time.monotonic()
        self._next = end + max(_INTERVAL, _SHARE * (end - begin))

    def _read_others(self, own: int, present: set[str] | None = None) -> None:
        """Read the entries of other runs; with ``present``, only those whose files are in it."""
        content = read_manifest(self._folder) or {"runs": [], "files": []}
        self._other_runs = [run for run in content["runs"] if run["run"] != own]
        self._other_lines = [
            _line(entry)
            for entry in content["files"]
            if entry["run"] != own and (present is None or all(name in present for name in file_names(entry)))
        ]

    def _replace(self, lines: list[str]) -> None:
        """Write the manifest; the caller must hold the folder's lock."""
        runs = ",\n".join(map(_line, [*self._other_runs, self._about]))
        files = ",\n".join([*self._other_lines, *lines])
        text = (
            f'{{"generator": "{GENERATOR}", "version": 1,\n"runs": [\n{runs}\n],\n"files": [\n{files}\n]}}\n'
        )
        write_whole(self._folder / MANIFEST, [text.encode("utf-8", "replace")])
        self._known = self._signature()

    def _signature(self) -> tuple[int, ...] | None:
        """Return values that change when another run replaces the manifest file."""
        try:
            info = (self._folder / MANIFEST).stat()
        except FileNotFoundError:
            return None
        return info.st_ino, info.st_size, info.st_mtime_ns


def _key(entry: Entry) -> tuple[Any, ...]:
    """Return a key that is unique for each tensor."""
    details = (entry.get(name) for name in ("kind", "layer", "word", "prompt_part", "point"))
    return (entry["file"], entry["block"], *details)


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
