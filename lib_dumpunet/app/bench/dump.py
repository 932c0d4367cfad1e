"""Measure how fast tensors are written to disk, compared with ``numpy.save`` of the same bytes."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.sinks.dump import DumpSink
from lib_dumpunet.sinks.queue import Fanout
from lib_dumpunet.sinks.request import DumpRequest

_REQUIRED = 0.70  # of the speed of numpy.save
_FORMATS = ("npy", "safetensors")
_PROMPT = "a cute girl in a garden, masterpiece, " * 8


def sd1_captures(*, size: int = 64, step: int = 1) -> list[Capture]:
    """Make captures with the output shapes of SD 1.5's blocks for latents of ``size``; 65 MiB at 64."""
    widths = (320, 640, 1280, 1280)
    shapes = [(widths[i // 3] if i % 3 else widths[max(0, i // 3 - 1)], size >> (i // 3)) for i in range(12)]
    names = [f"IN{i:02}" for i in range(12)] + ["M00"] + [f"OUT{i:02}" for i in range(12)]
    outputs = [(widths[3 - i // 3], size >> (3 - i // 3 - (i % 3 == 2 and i < 9))) for i in range(12)]
    noise = torch.Generator().manual_seed(0)
    return [
        Capture(Tag(0, step, name), torch.randn((c, side, side), generator=noise))
        for name, (c, side) in zip(names, [*shapes, shapes[-1], *outputs], strict=True)
    ]


def measure_dump(*, repeats: int = 9, size: int = 64, folder: Path | None = None) -> list[Row]:
    """Time a dump of one step of SD 1.5, including queue, manifest and renaming.

    The formats take turns, and each round starts with another one, so that other work on the machine affects all
    equally. A row's value is the median over rounds of (time of ``numpy.save``) / (time of the dump).
    """
    captures = sd1_captures(size=size)
    ways: dict[str, Callable[[Path], None]] = {"numpy": lambda target: _save_plainly(captures, target)}
    for name in _FORMATS:
        ways[name] = lambda target, name=name: _dump(captures, target, name)  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for turn in range(repeats + 1):
        for name in order:
            times[name].append(_time(ways[name], folder))
        order = [*order[1:], order[0]]
        if turn == 0:  # the first round warms up memory, folders and code
            times = {name: [] for name in ways}
    ratios = {name: [n / t for n, t in zip(times["numpy"], times[name], strict=True)] for name in _FORMATS}
    return [
        Row(f"dump {name}, speed of numpy.save", statistics.median(ratios[name]), "x", _REQUIRED, True)
        for name in _FORMATS
    ]


def _time(way: Callable[[Path], None], folder: Path | None) -> float:
    target = Path(tempfile.mkdtemp(dir=folder))
    try:
        begin = time.perf_counter()
        way(target)
        return time.perf_counter() - begin
    finally:
        shutil.rmtree(target)


def _save_plainly(captures: Sequence[Capture], target: Path) -> None:
    for capture in captures:
        np.save(target / f"{capture.tag.block}.npy", capture.tensor.numpy())


def _dump(captures: Sequence[Capture], target: Path, name: str) -> None:
    blocks = {capture.tag.block: {"output": list(capture.tensor.shape)} for capture in captures}
    request = DumpRequest(
        [_PROMPT], [""], [1], "Euler a", 20, "sd15", blocks, expected={key: {1} for key in blocks}
    )
    with Fanout([DumpSink(target, name, request)]) as fanout:
        for capture in captures:
            fanout.put(capture)
    for problem in fanout.problems:
        raise problem
