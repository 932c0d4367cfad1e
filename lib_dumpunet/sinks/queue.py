"""The queue that runs sinks in worker threads, so that sampling does not wait for them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType

from PIL import Image

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.sinks.base import Sink

_log = logging.getLogger("dumpunet")
_MAX_BYTES = 256 << 20
_COPY = -1  # used as a sink's number for the copy from the device


class Fanout:
    """Pass every capture to every sink, in worker threads, while sampling goes on.

    An error in a sink never reaches the sampling thread: the sink gets nothing more in this run, its first error is
    kept in ``problems``, and the other sinks continue. Leaving the ``with`` block, also by an exception, finishes all
    captures, because users want to see those of an interrupted run; a second interrupt drops the rest.

    ``max_bytes`` limits the tensors that are queued or in work. A single larger tensor is accepted when it is alone.
    Results of sinks are not counted; there are at most as many as threads at a time.

    Raises:
        HostError: if no thread can be started.
    """

    def __init__(
        self, sinks: Sequence[Sink], *, max_bytes: int = _MAX_BYTES, threads: int | None = None
    ) -> None:
        self._sinks = tuple(sinks)
        self._max_bytes = max_bytes
        self._held = 0
        self._put = 0
        self._unfinished: dict[int, Future[None]] = {}  # by the captures' numbers, in order
        self._left: dict[int, int] = {}  # count of unfinished captures by unfinished image
        self._ends: dict[int, int] = {}  # by image: the number of its end among the captures
        self._is_ending = False
        self._closed = False
        self._room = threading.Condition()
        self._problems: dict[int, DumpUNetError] = {}
        self._of_images: list[DumpUNetError] = []
        self._pool = _started_pool(threads or min(4, os.cpu_count() or 1))

    @property
    def problems(self) -> list[DumpUNetError]:
        """First error of each failed sink, in order of time, then errors at the end of single images."""
        with self._room:
            return [*self._problems.values(), *self._of_images]

    @property
    def images(self) -> list[int]:
        """Images with captures that are not finished."""
        with self._room:
            return sorted(self._left.keys() - self._ends.keys())

    def put(self, capture: Capture) -> None:
        """Queue a capture; wait only while ``max_bytes`` of earlier ones are unfinished.

        Raises:
            RuntimeError: if the queue is closed.
        """
        size = capture.tensor.nbytes
        with self._room:
            while not self._closed and self._held and self._held + size > self._max_bytes:
                self._room.wait(1.0)  # Windows delivers an interrupt only between waits
            if self._closed:
                raise RuntimeError("a capture came after the end of its run")
            self._unfinished[self._put] = self._pool.submit(self._work, capture, self._put, size)
            self._put += 1
            self._held += size
            self._left[capture.tag.image] = self._left.get(capture.tag.image, 0) + 1

    def see_image(self, image: int, picture: Image.Image | None) -> None:
        """Pass a finished image to every sink, before its words and points."""
        for number, sink in enumerate(self._sinks):
            if number not in self._problems:
                self._guard(number, partial(sink.see_image, image, picture), f"at image {image}")

    def finish_image(self, image: int) -> None:
        """Let every sink finish an image as soon as its captures are done; return at once.

        Images are finished one at a time, in the order of these calls.
        """
        with self._room:
            if image in self._ends:
                return
            self._ends[image] = self._put
            self._unfinished[self._put] = Future()
            self._put += 1
            self._left.setdefault(image, 0)
            self._begin_next_end()

    def drain(self) -> None:
        """Wait until every sink has got all captures put so far, but not those put meanwhile.

        Must not be called by a sink: it would wait for itself.
        """
        with self._room:
            end = self._put
            while min(self._unfinished, default=end) < end:
                self._room.wait(1.0)  # Windows delivers an interrupt only between waits

    def close(self) -> None:
        """Finish the queue, then close every sink; safe to call again."""
        with self._room:
            closed, self._closed = self._closed, True
            self._room.notify_all()
        if closed:
            return
        try:
            self._finish()
        finally:
            self._close_sinks()

    def __enter__(self) -> Fanout:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _finish(self) -> None:
        """Finish the queue; after an interrupt only what has begun, because sinks are closed next."""
        try:
            # Not by pool.shutdown: on Windows no interrupt reaches it, elsewhere an interrupt leaves threads running.
            self.drain()
        except KeyboardInterrupt:
            self._drop()
            raise
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _drop(self) -> None:
        """Cancel what no thread has begun."""
        with self._room:
            dropped = [number for number, future in self._unfinished.items() if future.cancel()]
            for number in dropped:
                del self._unfinished[number]
            self._room.notify_all()

    def _work(self, capture: Capture, number: int, size: int) -> None:
        try:
            place = _place(capture.tag)
            if self._guard(_COPY, capture.ready, place):
                self._deliver(capture, 0, place)
        finally:
            with self._room:
                self._held -= size
                del self._unfinished[number]
                self._left[capture.tag.image] -= 1
                self._begin_next_end()
                self._room.notify_all()

    def _begin_next_end(self) -> None:
        """Start to finish the next image once its captures are done; the caller holds the lock."""
        image, number = next(iter(self._ends.items()), (-1, -1))
        if not self._is_ending and number in self._unfinished and not self._left[image]:
            del self._left[image], self._ends[image]
            self._is_ending = True
            self._unfinished[number] = self._pool.submit(self._end, image, number)

    def _end(self, image: int, number: int) -> None:
        try:
            for place, sink in enumerate(self._sinks):
                self._finish_sink(place, sink, image)
        finally:
            with self._room:
                del self._unfinished[number]
                self._is_ending = False
                self._begin_next_end()
                self._room.notify_all()

    def _finish_sink(self, number: int, sink: Sink, image: int) -> None:
        try:
            self._pass_on(number, sink.finish_image(image))
        except BaseException as error:  # keep the sink: the next image may succeed
            who = type(sink).__name__
            _log.debug("%s failed at the end of image %d", who, image, exc_info=True)
            with self._room:
                self._of_images.append(_as_problem(error, who, f"at the end of image {image}"))

    def _deliver(self, capture: Capture, first: int, place: str) -> None:
        """Pass a capture to the sinks from number ``first`` on that have not failed."""
        for number, sink in enumerate(self._sinks[first:], first):
            if number not in self._problems:
                self._guard(number, partial(self._feed, number, sink, capture), place)

    def _feed(self, number: int, sink: Sink, capture: Capture) -> None:
        self._pass_on(number, sink.accept(capture))

    def _pass_on(self, number: int, made: Iterable[Capture] | None) -> None:
        """Pass a sink's results to the sinks after it."""
        for capture in made or ():
            self._deliver(capture, number + 1, _place(capture.tag))

    def _close_sinks(self) -> None:
        """Close every sink, even if an interrupt comes meanwhile."""
        interrupt: KeyboardInterrupt | None = None
        for number, sink in enumerate(self._sinks):
            try:
                self._guard(number, partial(self._close_sink, number, sink), "at its end")
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _close_sink(self, number: int, sink: Sink) -> None:
        self._pass_on(number, sink.close())

    def _guard(self, number: int, action: Callable[[], None], place: str) -> bool:
        """Run ``action`` for a sink, or for the copy from the device, and keep its first error."""
        try:
            action()
        except BaseException as error:  # whatever a sink raises, sampling and the other sinks continue
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # the user's interrupt while sinks are closed
            who = "Copying from the device" if number == _COPY else type(self._sinks[number]).__name__
            _log.debug("%s failed %s", who, place, exc_info=True)
            with self._room:
                self._problems.setdefault(number, _as_problem(error, who, place))
            return False
        return True


def _started_pool(count: int) -> ThreadPoolExecutor:
    """Start up to ``count`` threads, as many as the system allows, so that this cannot fail during sampling."""
    problem: RuntimeError | None = None
    for fewer in range(count, 0, -1):
        pool, gate = ThreadPoolExecutor(fewer, thread_name_prefix="dumpunet"), threading.Event()
        try:
            for _ in range(fewer):  # the pool starts a thread for each, because none becomes free
                pool.submit(gate.wait)
            return pool
        except RuntimeError as error:
            problem = error
            gate.set()
            pool.shutdown(wait=True)  # free the threads that did start for the next try
        finally:
            gate.set()
    raise HostError(
        f"no thread for drawing and writing can be started ({problem})",
        remedy="Close other programs, or allow more threads.",
    )


def _place(tag: Tag) -> str:
    if not tag.block:
        return f"at {tag.kind} {tag.name}, image {tag.image}"
    return f"at block {tag.block}, step {tag.when}, image {tag.image}"


def _as_problem(error: BaseException, who: str, place: str) -> DumpUNetError:
    """Return an error for users: a ``DumpUNetError`` unchanged, any other with what failed and where."""
    link: BaseException | None = error
    while link is not None:  # the frames of a traceback would keep the captured tensor in memory
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    if isinstance(error, DumpUNetError):
        return error
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return HostError(
        f"{who} failed {place} and was stopped ({reason})",
        remedy="The generated image is not affected; the debug log has the details.",
    )
