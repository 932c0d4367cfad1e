"""The benchmarks of attention run and measure what they claim."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from lib_dumpunet.app.bench import attention, command, explorer, memory, steering, words
from lib_dumpunet.app.bench.attention import measure_attention
from lib_dumpunet.app.bench.sampling import PLAIN, added_seconds, sampling_step
from lib_dumpunet.app.bench.words import measure_words
from lib_dumpunet.hooks.interventions import TextPerBlock

pytestmark = pytest.mark.slow

NARROW = (32, 64, 128, 128)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell a process's peak of memory")
def test_time_and_memory_of_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "sampling_step", partial(sampling_step, size=16))
    monkeypatch.setattr(attention, "_peak", lambda way, steps, width: {PLAIN: 100.0}.get(way, 110.0 + steps))
    rows = {row.name: row.value for row in measure_attention(rounds=1, widths=NARROW)}
    assert all(math.isfinite(value) for value in rows.values())
    assert rows["peak memory of words, above plain sampling"] == 12
    assert rows["peak memory of words, 6 steps above 2"] == 4


def test_a_command_is_measured_alone_and_beside_busy_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BUSY", "import time; time.sleep(60)")
    small = ("--steps", "1", "--width", "64", "--height", "64", "--blocks", "M00")
    rows = command.measure_command(rounds=1, command=("generate", "a star", *small))
    assert [row.bound for row in rows] == [3.0, 1.5][: len(rows)]
    assert all(0 < row.value < 10 for row in rows)


def test_each_way_is_run_as_often_as_the_others() -> None:
    runs: list[tuple[object, int]] = []

    def run(plan: object, *, copies: int = 1) -> None:
        runs.append((plan, copies))

    added_seconds(run, {"one": lambda: "a", "two": lambda: "b"}, rounds=2, copies=3)  # type: ignore[dict-item, return-value]
    assert runs == [(None, 1), *[(None, 3), ("a", 3), ("b", 3)] * 2]


def test_what_is_measured_is_what_reads() -> None:
    unet, run = sampling_step(NARROW, size=16)
    for way, blocks in (("words", 16), ("qk", 1), ("self", 1)):
        watch = attention.watch_of(unet, way)
        assert watch.plan.attention is not None
        assert len(watch.plan.attention.blocks) == blocks
        run(watch, steps=1, copies=2)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell a process's peak of memory")
def test_steering_is_timed_and_difference_runs_are_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "sampling_step", partial(sampling_step, size=16))
    monkeypatch.setattr(memory, "SIZE", 64)
    monkeypatch.setattr(memory, "FEW", 1)
    monkeypatch.setattr(memory, "MANY", 2)
    rows = steering.measure_steering(rounds=1, widths=NARROW)
    assert [row.bound for row in rows] == [1, 5]
    assert rows[1].name == "peak memory of differences with 2 steps, above 1 steps"
    assert abs(rows[1].value) < 20


def test_every_layer_is_steered() -> None:
    unet, run = sampling_step(NARROW, size=16)
    watch = steering.watch_of(unet)
    (text,) = watch.interventions
    assert isinstance(text, TextPerBlock)
    assert len(text.steering.plan.steered) == 16
    # The main text is the prompt without the bracket.
    assert len(set(text.steering.plan.texts("cond"))) == 17
    run(watch, copies=2)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell a process's peak of memory")
def test_a_peak_is_the_process_own_and_knows_what_it_let_go_of() -> None:
    held = bytearray(b"x") * (400 << 20)  # what this process holds must not count
    program = "import sys\nfrom lib_dumpunet.app.bench.memory import own_peak\n"
    program += "used = bytearray(b'x') * (int(sys.argv[1]) << 20)\ndel used\nprint(own_peak())"
    small, large = (memory.peak_of(program, [size]) for size in ("1", "100"))
    assert small < len(held) / 2**20
    assert 90 < large - small < 110


def test_words_land_on_their_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "BATCH", 2)
    rows = measure_words(count=2, steps=8)
    assert [row.bound for row in rows] == [1.5, 1.5]
    assert all(row.value > 1 for row in rows)


def test_a_page_is_weighed_and_driven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer, "STEPS", 2)
    monkeypatch.setattr(explorer, "SHAPES", [(8, 16)] * 25)
    monkeypatch.setattr(explorer, "FRAMES", 4)
    with ThreadPoolExecutor(1) as other:  # the tests' own browser is driven by this thread
        size, *speed = other.submit(explorer.measure_explorer).result()
    assert 0.1 < size.value < 2
    assert all(0 < row.value < 5000 for row in speed)
