"""A run killed at any moment leaves complete files and a true manifest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib_dumpunet.sinks.dump import DumpSink
from lib_dumpunet.sinks.reader import load_dump
from lib_dumpunet.sinks.request import DumpRequest

pytestmark = pytest.mark.slow

# Dumps without end, in a process made by fork so that PyTorch is loaded once for all of them; each is killed at a
# random time after its first file. Every second one writes its manifest as often as it can.
KILLER = """
import os, pathlib, random, signal, sys, time
import torch
from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.sinks import manifest
from lib_dumpunet.sinks.queue import Fanout
from lib_dumpunet.sinks.dump import DumpSink
from lib_dumpunet.sinks.request import DumpRequest

def dump(folder, kind, eager):
    if eager:
        manifest._INTERVAL, manifest._SHARE = 0.0, 0
    blocks = dict.fromkeys(["IN00", "M00", "OUT11"], range(1_000_000))
    with Fanout([DumpSink(folder, kind, DumpRequest(["p"], [""], [1], expected=blocks))], threads=3) as fanout:
        for step in range(1, 1_000_000):
            for block in sorted(blocks):
                fanout.put(Capture(Tag(0, step, block), torch.full((4, 64, 64), float(step))))

for number in range(int(sys.argv[2])):
    for kind in ("bin", "npy", "safetensors"):
        folder = pathlib.Path(sys.argv[1]) / f"{kind}-{number}"
        folder.mkdir()
        child = os.fork()
        if not child:
            dump(folder, kind, number % 2)
        while not list(folder.glob("*." + kind)):
            time.sleep(0.001)
        time.sleep(random.random() * 0.2)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_runs_leave_whole_files_and_a_true_manifest(tmp_path: Path, root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path), "2"], check=True, env=environment, timeout=60
    )
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 6
    listed = sum(check(folder) for folder in folders)
    assert listed > 0
    for folder in folders:
        sink = DumpSink(folder, "npy", DumpRequest())
        sink.close()
        assert sink.run == 2
        assert not list(folder.glob(".*.part"))
        shutil.rmtree(folder)


def check(folder: Path) -> int:
    """Load all files, listed or not, and return how many tensors the manifest lists."""
    for path in [*folder.glob("*.npy"), *folder.glob("*.safetensors")]:
        for item in load_dump(path):
            assert item.tag is not None
            assert torch.equal(item.tensor, torch.full((4, 64, 64), float(item.tag.step)))
    assert all(path.stat().st_size == 4 * 64 * 64 for path in folder.glob("*.bin"))
    entries = json.loads((folder / "manifest.json").read_bytes())["files"]
    if entries:
        assert len(list(load_dump(folder))) == len(entries)
    return len(entries)
