"""One run of the studio: its state, its results, and how it is stopped."""

from __future__ import annotations

import io
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from lib_dumpunet.app.studio.folders import Place, new_folder, size_of
from lib_dumpunet.app.studio.models import Models
from lib_dumpunet.app.studio.request import Request
from lib_dumpunet.app.studio.results import Item, RunResults
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hosts.common.log_capture import capture_log
from lib_dumpunet.hosts.diffusers.generate import Outcome, ResultHandlers, generate
from lib_dumpunet.hosts.diffusers.job import Job, check, make_job
from lib_dumpunet.models.describe import describe
from lib_dumpunet.settings import Settings
from lib_dumpunet.sinks.files import told_once

log = logging.getLogger("dumpunet")

State = Literal["waiting", "loading", "sampling", "finishing", "done", "stopped", "failed"]
OVER: tuple[State, ...] = ("done", "stopped", "failed")
MOST_WRITTEN = 2 * 1024**3
"""Limit of bytes that a run may write if other computers can reach the studio."""
BETWEEN_LOOKS = 2.0
"""Seconds between two measurements of what a run has written."""
PREVIEW_SIDE = 768
"""Longest side of a preview, in pixels."""


@dataclass
class Progress:
    """Progress of sampling; times are from ``time.monotonic``."""

    done: int = 0
    total: int = 0
    begun: float = 0.0
    first: int = 0
    last: float = 0.0

    def move(self, done: int, total: int) -> None:
        """Record that a step has ended."""
        now = time.monotonic()
        if not self.done:
            self.begun, self.first = now, done
        self.done, self.total, self.last = done, total, now

    @property
    def left(self) -> float | None:
        """Seconds left, estimated from the steps since the first; None while unknown."""
        steps = self.done - self.first
        return (self.last - self.begun) / steps * (self.total - self.done) if steps > 0 else None


class Run:
    """One request, from waiting to its results. Pages read its attributes; ``version`` grows with each change."""

    def __init__(self, request: Request, place: Place) -> None:
        self.request = request
        self.key = secrets.token_urlsafe(16)
        self.state: State = "waiting"
        self.progress = Progress()
        self.preview = b""
        self.preview_number = 0
        self.error: DumpUNetError | None = None
        self.messages: list[str] = []
        self.seeds: tuple[int, ...] = ()
        self.version = 0
        self._place = place
        self._results: RunResults | None = None
        self._stop = threading.Event()
        self._beginning = threading.Lock()
        self._looked = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.state in OVER

    @property
    def is_stopping(self) -> bool:
        """Whether the run was asked to stop but has not ended yet."""
        return self._stop.is_set() and not self.is_over

    @property
    def folder(self) -> Path | None:
        """The folder of the results; None before there is one."""
        return None if self._results is None else self._results.folder.path

    @property
    def items(self) -> list[Item]:
        """The results so far."""
        return [] if self._results is None else self._results.items

    def stop(self) -> None:
        """Ask the run to stop, keeping its results so far; a waiting run ends at once."""
        with self._beginning:
            self._stop.set()
            self._enter("stopped" if self.state == "waiting" else self.state)

    def work(self, models: Models) -> None:
        """Do the run. Errors are kept in ``error``, because no caller waits to catch them."""
        warnings: list[str] = []
        with capture_log(warnings, to_console=self.request.panel.output.log):
            try:
                self._work(models)
            except DumpUNetError as error:
                self.error = error
            except Exception as error:
                log.exception("a run failed")
                self.error = HostError(f"the run failed ({type(error).__name__}: {error})")
        self.messages = [*warnings, *self.messages]
        self._enter("failed" if self.error else "stopped" if self._stop.is_set() else "done")

    def _work(self, models: Models) -> None:
        with self._beginning:
            if self._stop.is_set():
                return
            self._enter("loading")
        pipe = models.load(self.request.choice)
        job = make_job(pipe, [self.request.prompt], self.request.sampling)
        settings = self.request.settings
        check(pipe, job, settings)
        self.seeds = job.seeds
        folder = new_folder(self._place.root, is_kept=self.request.panel.output.save)
        settings = settings.with_dumps(lambda dump: self._place.dumps(dump, folder.path))
        self._results = RunResults(folder, job, describe(pipe.unet).order, self.messages.append)
        folder.keep_room(job.room)
        self._enter("sampling")
        try:
            outcome = self._generate(pipe, job, settings, self._results)
        finally:
            folder.give_room_back()
        self.messages += map(str, told_once([*outcome.problems, *self._results.finish()]))
        if not outcome.was_stopped:
            self._stop.clear()  # the request to stop came too late

    def _generate(self, pipe: Any, job: Job, settings: Settings, results: RunResults) -> Outcome:
        handlers = ResultHandlers(
            image=self._noted(results.image),
            picture=self._noted(results.picture),
            progress=self._move,
            plain=self._noted(results.plain),
            page=self._noted(results.page),
            preview=self._show_preview,
            stopped=self._is_to_stop,
        )
        return generate(pipe, job, settings, handlers)

    def _is_to_stop(self) -> bool:
        """Return whether the run was stopped or has written too much."""
        now = time.monotonic()
        if self._place.is_open and not self._stop.is_set() and now - self._looked > BETWEEN_LOOKS:
            self._looked = now
            assert self.folder is not None
            if size_of(self.folder) > MOST_WRITTEN:
                self.messages.append(
                    f"The run was stopped: it may write {MOST_WRITTEN >> 20} MB if other computers can reach the "
                    "studio."
                )
                self._stop.set()
        return self._stop.is_set() or (self._results is not None and self._results.folder.is_full)

    def _noted(self, take: Callable[..., None]) -> Callable[..., None]:
        """Wrap a handler so that pages notice the new result."""

        def noted(*what: Any) -> None:
            take(*what)
            self.version += 1

        return noted

    def _move(self, done: int, total: int) -> None:
        self.progress.move(done, total)
        if done == total:
            self.state = "finishing"
        self.version += 1

    def _show_preview(self, image: Image.Image) -> None:
        file = io.BytesIO()
        image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        image.convert("RGB").save(file, "JPEG", quality=85)
        self.preview, self.preview_number = file.getvalue(), self.preview_number + 1
        self.version += 1

    def _enter(self, state: State) -> None:
        """Change the state so that pages notice it."""
        self.state = state
        self.version += 1
