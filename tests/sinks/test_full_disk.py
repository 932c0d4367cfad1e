"""A disk that fills up: one message, no partial file, and all other sinks continue."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.kinds import Kind
from lib_dumpunet.sinks import files, spool
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.components import ComponentsSink
from lib_dumpunet.sinks.difference import DifferenceSink
from lib_dumpunet.sinks.dump import DumpSink
from lib_dumpunet.sinks.queue import Fanout
from lib_dumpunet.sinks.reader import load_dump
from lib_dumpunet.sinks.request import DumpRequest
from tests.disks import small_disk

Make = Callable[..., list[Capture]]
LIMIT = 100_000  # bytes


class Count(Sink):
    def __init__(self) -> None:
        self.seen: list[Capture] = []

    def accept(self, capture: Capture) -> None:
        self.seen.append(capture)

    def close(self) -> None:
        return None


class FullAside(io.FileIO):
    """A file, with no buffer, on a disk that takes ``LIMIT`` bytes."""

    def write(self, data: Any) -> int:
        size = min(len(data), LIMIT - self.tell())
        if size <= 0:
            raise OSError(28, "No space left on device")
        return super().write(data[:size]) or 0


class FullFile(io.FileIO):
    """A file on a disk that takes ``LIMIT`` bytes in all."""

    left = LIMIT

    def writelines(self, chunks: Any) -> None:
        for chunk in chunks:
            size = memoryview(chunk).nbytes
            super().write(bytes(chunk)[: FullFile.left])
            if size > FullFile.left:
                raise OSError(28, "No space left on device")
            FullFile.left -= size


@pytest.fixture(params=["played", "tmpfs"])
def full_disk(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder on a disk of about ``LIMIT`` bytes: a real one if mounting is allowed, and a simulated one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "played":
        FullFile.left = LIMIT
        monkeypatch.setattr(
            files, "open", lambda path, mode: FullFile(path, mode.replace("b", "")), raising=False
        )
        monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **_: FullAside(folder / "aside", "w+"))
        yield folder
        return
    with small_disk(folder, LIMIT):
        yield folder


@pytest.mark.parametrize("kind", ["bin", "npy", "safetensors"])
def test_one_message_no_half_file_and_the_others_go_on(
    full_disk: Path, kind: str, request_: DumpRequest, captures: Make
) -> None:
    made, count = captures(steps=30, shape=(4, 16, 16)), Count()  # 720 KiB
    with Fanout([DumpSink(full_disk, kind, request_), count]) as fanout:
        for capture in made:
            fanout.put(capture)
    (problem,) = fanout.problems
    assert isinstance(problem, HostError)
    assert str(problem).startswith("Output path: the disk is full; ")
    assert "tensors (" in str(problem)
    assert "\n" not in str(problem)
    assert len(count.seen) == len(made)
    check(full_disk, made)


@pytest.mark.parametrize("kind", ["plain", "pooled_self"])
def test_what_must_wait_is_told_and_the_others_go_on(full_disk: Path, kind: Kind) -> None:
    sink: Sink = DifferenceSink(str(full_disk)) if kind == "plain" else ComponentsSink(str(full_disk))
    what = {"plain": "features without per-block prompts", "pooled_self": "the maps of self-attention"}[kind]
    count = Count()
    with Fanout([sink, count]) as fanout:
        for step in range(1, 41):
            fanout.put(Capture(Tag(0, step, "M00", kind), torch.rand(8, 8, 8, 2)))  # 4 KiB, 160 KiB in all
        fanout.drain()
        free = shutil.disk_usage(full_disk).free
    (problem,) = fanout.problems
    assert isinstance(problem, HostError)
    folder = str(full_disk)
    assert str(problem).startswith(f"{what} could not be stored in {folder}, the disk is full. Free some")
    assert "\n" not in str(problem)
    assert len([capture for capture in count.seen if capture.tag.kind == kind]) == 40
    if kind == "plain":  # a dump may be on the same disk
        assert free > LIMIT // 2


def check(folder: Path, made: list[Capture]) -> None:
    """All files in the folder are complete, and those that the manifest lists exist and are right."""
    assert not list(folder.glob("*.part")) + list(folder.glob(".*.part"))
    assert all(len(path.read_bytes()) == 1024 for path in folder.glob("*.bin"))
    tensors = {capture.tag: capture.tensor for capture in made}
    if json.loads((folder / "manifest.json").read_bytes())["files"]:
        assert all(torch.equal(item.tensor, tensors[item.tag]) for item in load_dump(folder) if item.tag)
    whole = [path for path in folder.iterdir() if path.suffix in (".npy", ".safetensors")]
    for path in whole:
        assert all(torch.equal(item.tensor, tensors[item.tag]) for item in load_dump(path) if item.tag)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_file_over_a_limit_is_one_message(tmp_path: Path, request_: DumpRequest, captures: Make) -> None:
    import resource

    sink = DumpSink(tmp_path, "npy", request_)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with Fanout([sink]) as fanout:
            for capture in captures(steps=1, images=1, shape=(80, 16, 16)):
                fanout.put(capture)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (problem,) = fanout.problems
    assert "a file is larger than that disk allows" in str(problem)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".manifest.lock", "manifest.json"]
