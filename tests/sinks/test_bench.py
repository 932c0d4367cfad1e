"""The benchmark of dumps runs and measures the formats."""

from __future__ import annotations

from pathlib import Path

from lib_dumpunet.app.bench.dump import measure_dump, sd1_captures


def test_it_measures_both_formats_and_cleans_up(tmp_path: Path) -> None:
    rows = measure_dump(repeats=1, size=8, folder=tmp_path)
    assert ["npy" in rows[0].name, "safetensors" in rows[1].name] == [True, True]
    assert all(row.value > 0 and row.bound == 0.70 and row.at_least for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_its_blocks_are_those_of_sd_1_5() -> None:
    shapes = {capture.tag.block: tuple(capture.tensor.shape) for capture in sd1_captures()}
    assert len(shapes) == 25
    assert shapes["IN04"] == (640, 32, 32)
    assert shapes["M00"] == (1280, 8, 8)
    assert shapes["OUT05"] == (1280, 32, 32)
    assert shapes["OUT08"] == (640, 64, 64)
