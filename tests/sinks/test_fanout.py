"""The queue between hooks and sinks."""

from __future__ import annotations

import _thread
import gc
import random
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
import torch
from PIL import Image

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError, SettingsError
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.queue import Fanout


class Collect(Sink):
    """Keep the tags, and count calls of close."""

    def __init__(self) -> None:
        self.tags: list[Tag] = []
        self.closed = 0
        self.lock = threading.Lock()

    def accept(self, capture: Capture) -> None:
        with self.lock:
            self.tags.append(capture.tag)

    def close(self) -> None:
        self.closed += 1


class Fail(Collect):
    """Raise at the third capture, or at the end."""

    def __init__(self, error: BaseException, at: int = 3) -> None:
        super().__init__()
        self.error, self.at = error, at

    def accept(self, capture: Capture) -> None:
        super().accept(capture)
        if len(self.tags) >= self.at:
            raise self.error

    def close(self) -> None:
        super().close()
        if self.at == 0:
            raise self.error


class Gate(Collect):
    """Block until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.at_close: list[int] = []

    def accept(self, capture: Capture) -> None:
        assert self.open.wait(20)
        super().accept(capture)

    def close(self) -> None:
        super().close()
        self.at_close.append(len(self.tags))


class Ends(Gate):
    """Record at the end of an image how many captures were accepted; finishing the second image fails."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[int, int]] = []
        self.pictures: list[tuple[int, Image.Image | None]] = []

    def see_image(self, image: int, picture: Image.Image | None) -> None:
        self.pictures.append((image, picture))

    def finish_image(self, image: int) -> list[Capture]:
        with self.lock:
            self.ends.append((image, sum(tag.image == image for tag in self.tags)))
        if image == 1:
            raise HostError("image 1 cannot be finished")
        return [Capture(Tag(image, 9, "M00"), torch.zeros(1))]


def capture(number: int = 0, floats: int = 4) -> Capture:
    return Capture(Tag(number, 1, "IN00"), torch.zeros(floats))


def test_every_sink_gets_every_capture_of_thousands() -> None:
    sinks = [Collect(), Collect()]
    with Fanout(sinks, threads=4) as fanout:
        for number in range(4000):
            fanout.put(capture(number))
    for sink in sinks:
        assert sorted(tag.image for tag in sink.tags) == list(range(4000))
        assert sink.closed == 1
    assert fanout.problems == []


def test_result_does_not_depend_on_the_order_in_which_workers_finish() -> None:
    class Dawdle(Collect):
        def accept(self, capture: Capture) -> None:
            time.sleep(random.random() / 500)
            super().accept(capture)

    sink = Dawdle()
    with Fanout([sink], threads=4) as fanout:
        for number in range(100):
            fanout.put(capture(number))
    assert {tag.image for tag in sink.tags} == set(range(100))


def test_ready_is_called_once_and_before_the_sinks() -> None:
    calls: list[str] = []

    class Look(Collect):
        def accept(self, capture: Capture) -> None:
            calls.append("accept")

    with Fanout([Look(), Look()]) as fanout:
        fanout.put(Capture(Tag(0, 1, "IN00"), torch.zeros(1), lambda: calls.append("ready")))
    assert calls == ["ready", "accept", "accept"]


def test_put_waits_when_the_bound_is_reached_and_goes_on_after() -> None:
    gate, put = Gate(), []
    fanout = Fanout([gate], max_bytes=100, threads=2)

    def sample() -> None:
        for number in range(10):
            fanout.put(capture(number, floats=10))  # 40 bytes each
            put.append(number)

    thread = threading.Thread(target=sample)
    thread.start()
    time.sleep(0.3)
    assert put == [0, 1]
    gate.open.set()
    thread.join(20)
    fanout.close()
    assert sorted(tag.image for tag in gate.tags) == list(range(10))


def test_a_capture_over_the_bound_passes_alone() -> None:
    sink = Collect()
    with Fanout([sink], max_bytes=10) as fanout:
        fanout.put(capture(0, floats=1000))
        fanout.put(capture(1, floats=1000))
    assert len(sink.tags) == 2


@pytest.mark.parametrize("at", [1, 3])
def test_a_failing_sink_is_switched_off_and_the_others_go_on(at: int) -> None:
    bad, good = Fail(ValueError("no paint"), at), Collect()
    with Fanout([bad, good], max_bytes=64, threads=1) as fanout:
        for number in range(500):
            fanout.put(capture(number))
    assert len(good.tags) == 500
    assert len(bad.tags) == at
    assert (bad.closed, good.closed) == (1, 1)
    (problem,) = fanout.problems
    assert isinstance(problem, HostError)
    assert "Fail failed at block IN00, step 1, image" in str(problem)
    assert "ValueError: no paint" in str(problem)
    assert "\n" not in str(problem)


def test_an_error_fit_for_users_stays_as_it_is() -> None:
    error = SettingsError("is a file", field="Output path")
    with Fanout([Fail(error), Fail(KeyError("x"))]) as fanout:
        for number in range(10):
            fanout.put(capture(number))
    assert len(fanout.problems) == 2
    assert any(problem is error for problem in fanout.problems)


def test_a_sink_that_fails_at_its_end_is_told_and_the_next_is_closed() -> None:
    good = Collect()
    with Fanout([Fail(OSError("gone"), at=0), good]) as fanout:
        pass
    assert good.closed == 1
    assert "at its end" in str(fanout.problems[0])


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_even_what_ends_a_thread_stops_no_worker(error: BaseException) -> None:
    good = Collect()
    with Fanout([Fail(error, at=1), good], max_bytes=32, threads=2) as fanout:
        for number in range(100):
            fanout.put(capture(number))
    assert len(good.tags) == 100
    assert type(error).__name__ in str(fanout.problems[0])


def test_a_copy_that_fails_is_told_and_later_captures_arrive() -> None:
    def fail() -> None:
        raise RuntimeError("device lost")

    sink = Collect()
    with Fanout([sink]) as fanout:
        fanout.put(Capture(Tag(0, 1, "IN00"), torch.zeros(1), fail))
        fanout.put(capture(1))
    assert [tag.image for tag in sink.tags] == [1]
    assert "Copying from the device failed" in str(fanout.problems[0])


def test_an_interrupt_finishes_what_was_captured() -> None:
    sink = Collect()

    def sample() -> None:
        with Fanout([sink]) as fanout:
            for number in range(50):
                fanout.put(capture(number))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample()
    assert len(sink.tags) == 50
    assert sink.closed == 1


def test_put_after_close_is_refused_and_close_can_be_repeated() -> None:
    sink = Collect()
    fanout = Fanout([sink])
    fanout.close()
    fanout.close()
    with pytest.raises(RuntimeError, match="after the end"):
        fanout.put(capture())
    assert sink.closed == 1


def test_two_at_once_do_not_see_each_other() -> None:
    one, two = Collect(), Collect()
    with Fanout([one, Fail(ValueError(), 1)]) as first, Fanout([two]) as second:
        for number in range(100):
            first.put(capture(number))
            second.put(capture(number + 1000))
    assert {tag.image for tag in one.tags} == set(range(100))
    assert {tag.image for tag in two.tags} == set(range(1000, 1100))
    assert (len(first.problems), len(second.problems)) == (1, 0)


@pytest.mark.parametrize("error", [None, ValueError("x"), HostError("x")])
def test_memory_is_released_once_processed(error: Exception | None) -> None:
    sinks = [Collect()] if error is None else [Collect(), Fail(error, at=1)]
    tensors: list[weakref.ref[torch.Tensor]] = []
    fanout = Fanout(sinks, threads=2)
    for number in range(20):
        item = capture(number)
        tensors.append(weakref.ref(item.tensor))
        fanout.put(item)
    del item
    deadline = time.monotonic() + 10
    while any(tensor() is not None for tensor in tensors) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert all(tensor() is None for tensor in tensors)
    fanout.close()


def test_threads_end_with_it() -> None:
    before = threading.active_count()
    with Fanout([Collect()]) as fanout:
        fanout.put(capture())
        assert threading.active_count() > before
    assert threading.active_count() == before


class Late(Collect):
    """Make two captures at the end."""

    def close(self) -> list[Capture]:  # type: ignore[override]
        super().close()
        return [capture(7), capture(8)]


def test_what_comes_at_the_end_goes_to_the_sinks_behind_that_have_not_failed() -> None:
    before, failed, behind = Collect(), Fail(HostError("full"), at=1), Collect()
    with Fanout([before, Late(), failed, behind]) as fanout:
        fanout.put(capture(1))
    assert [tag.image for tag in before.tags] == [1]
    assert [tag.image for tag in failed.tags] == [1]
    assert [tag.image for tag in behind.tags] == [1, 7, 8]
    assert len(fanout.problems) == 1


class Double(Collect):
    """Make a capture from each, with its number plus 100; optionally fail while yielding the second."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails

    def accept(self, item: Capture) -> Iterator[Capture]:  # type: ignore[override]
        super().accept(item)
        yield capture(item.tag.image + 100)
        if self.fails:
            raise OSError("no more")


def test_what_a_sink_makes_of_a_capture_goes_to_the_sinks_behind() -> None:
    before, failed, behind = Collect(), Fail(HostError("full"), at=1), Collect()
    with Fanout([before, Double(), failed, Double(), behind], threads=1) as fanout:
        fanout.put(capture(1))
        fanout.put(capture(2))
        fanout.drain()
        seen = sorted(tag.image for tag in behind.tags)
    assert seen == [1, 2, 101, 101, 102, 102, 201, 202]
    assert [tag.image for tag in before.tags] == [1, 2]
    assert [tag.image for tag in failed.tags] == [101]
    assert [str(problem) for problem in fanout.problems] == ["full."]


def test_a_fault_while_making_captures_is_that_of_the_maker() -> None:
    behind = Collect()
    with Fanout([Double(fails=True), behind], threads=1) as fanout:
        for number in (1, 2):
            fanout.put(capture(number))
    assert [tag.image for tag in behind.tags] == [101, 1, 2]
    (problem,) = fanout.problems
    assert "Double failed at block IN00, step 1, image 1" in str(problem)


def test_drain_waits_for_what_was_put_and_for_nothing_that_comes_later() -> None:
    gate = Gate()
    with Fanout([gate], threads=2) as fanout:
        fanout.drain()
        for number in range(5):
            fanout.put(capture(number, floats=0))
        drained = threading.Event()

        def wait() -> None:
            fanout.drain()
            drained.set()

        threading.Thread(target=wait).start()
        assert not drained.wait(0.2)
        assert gate.tags == []
        gate.open.set()
        assert drained.wait(20)
        assert {tag.image for tag in gate.tags} == set(range(5))
        gate.open.clear()
        fanout.put(capture(5))
        gate.open.set()
        fanout.drain()
        assert len(gate.tags) == 6


def test_drain_does_not_wait_for_those_that_keep_coming() -> None:
    class Feeder(Collect):
        """Put the next capture when one comes, so that one is always waiting."""

        def accept(self, item: Capture) -> None:
            super().accept(item)
            if not stop.is_set():
                fanout.put(capture(item.tag.image + 1))

    stop = threading.Event()
    fanout = Fanout([Feeder()], threads=1)
    fanout.put(capture(0))
    waiter = threading.Thread(target=fanout.drain)
    waiter.start()
    waiter.join(20)
    ended = not waiter.is_alive()
    stop.set()
    fanout.drain()
    fanout.close()
    assert ended


def test_drain_ends_where_sinks_and_copies_fail() -> None:
    def fail() -> None:
        raise RuntimeError("device lost")

    with Fanout([Fail(ValueError(), 1)]) as fanout:
        fanout.put(capture(0))
        fanout.put(Capture(Tag(1, 1, "IN00"), torch.zeros(1), fail))
        fanout.drain()
        assert len(fanout.problems) == 2
    fanout.drain()


def test_an_interrupt_ends_drain_even_if_it_is_delivered_only_between_waits() -> None:
    gate, interrupted = Gate(), []
    fanout = Fanout([gate])
    fanout.put(capture())
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    try:
        fanout.drain()
    except KeyboardInterrupt:
        interrupted.append(len(gate.tags))
    finally:
        timer.cancel()
        gate.open.set()
        fanout.close()
    assert interrupted == [0]
    assert len(gate.tags) == 1


def test_an_interrupt_while_closing_drops_the_rest_and_finishes_what_has_begun() -> None:
    gate = Ends()
    fanout = Fanout([gate], threads=1)
    for number in range(3):
        fanout.put(capture(number))
        fanout.finish_image(number)
    waiter = threading.Thread(target=fanout.drain)
    waiter.start()
    # The interrupt arrives between two waits of a second.
    timers = [threading.Timer(0.2, _thread.interrupt_main), threading.Timer(1.6, gate.open.set)]
    for timer in timers:
        timer.start()
    with pytest.raises(KeyboardInterrupt):
        fanout.close()
    waiter.join(20)
    assert not waiter.is_alive()
    assert gate.at_close == [1]
    assert [tag.image for tag in gate.tags] == [0]
    assert gate.ends in (
        [],
        [(0, 1)],
    )  # it may have begun with the end of the first; never with one of a dropped


def test_an_interrupt_at_the_end_is_the_users_and_closes_the_rest() -> None:
    last = Collect()
    fanout = Fanout([Fail(KeyboardInterrupt(), at=0), last])
    with pytest.raises(KeyboardInterrupt):
        fanout.close()
    assert last.closed == 1


@pytest.mark.parametrize("most", [0, 1, 3])
def test_as_many_threads_work_as_can_be_started(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start, running = threading.Thread.start, []

    def start_some(thread: threading.Thread) -> None:
        if sum(one.is_alive() for one in running) >= most:
            raise RuntimeError("can't start new thread")
        running.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    got: list[Capture] = []

    class Take(Sink):
        def accept(self, capture: Capture) -> None:
            got.append(capture)

        def close(self) -> None:
            pass

    if most == 0:
        with pytest.raises(HostError, match="no thread for drawing and writing can be started"):
            Fanout([Take()], threads=4)
        return
    with Fanout([Take()], threads=4) as fanout:
        for step in range(20):
            fanout.put(Capture(Tag(0, step, "M00"), torch.zeros(1, 2, 2)))
    assert len(got) == 20


def test_an_image_is_finished_once_when_all_of_it_is_done_and_nobody_waits() -> None:
    gate, behind = Ends(), Collect()
    picture = Image.new("RGB", (1, 1))
    with Fanout([gate, behind], threads=3) as fanout:
        for number in range(3):
            for _ in range(5):
                fanout.put(capture(number))
            fanout.see_image(number, picture if number else None)
            fanout.finish_image(number)
            fanout.finish_image(number)
        assert fanout.images == []
        assert gate.ends == []
        gate.open.set()
        fanout.drain()
        assert gate.ends == [(0, 5), (1, 5), (2, 5)]
        fanout.finish_image(7)  # nothing came of it
        fanout.drain()
        assert gate.ends[-1] == (7, 0)
    assert gate.pictures == [(0, None), (1, picture), (2, picture)]
    assert [tag.image for tag in behind.tags if tag.step == 9] == [0, 2, 7]
    assert [str(problem) for problem in fanout.problems] == ["image 1 cannot be finished."]


def test_images_that_are_not_finished_are_told_and_their_end_never_comes() -> None:
    sink = Ends()
    sink.open.set()
    with Fanout([sink]) as fanout:
        fanout.put(capture(4))
        fanout.put(capture(2))
        fanout.finish_image(2)
        assert fanout.images == [4]
    assert [image for image, _ in sink.ends] == [2]


def test_a_sink_that_has_failed_finishes_what_it_had() -> None:
    class FailingEnds(Ends):
        def accept(self, capture: Capture) -> None:
            super().accept(capture)
            if len(self.tags) == 2:
                raise ValueError("bad")

    failing, behind = FailingEnds(), Collect()
    failing.open.set()
    with Fanout([failing, behind], threads=1) as fanout:
        for _ in range(3):
            fanout.put(capture(0))
        fanout.finish_image(0)
    assert failing.ends == [(0, 2)]
    assert [tag.step for tag in behind.tags] == [1, 1, 1, 9]
    assert len(fanout.problems) == 1
