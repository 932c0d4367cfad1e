"""The queue of runs, shared by all pages: one run at a time, because there is one model."""

from __future__ import annotations

import secrets
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

from lib_dumpunet.app.studio.folders import Place
from lib_dumpunet.app.studio.models import Models
from lib_dumpunet.app.studio.request import Request
from lib_dumpunet.app.studio.run import Run
from lib_dumpunet.errors import SettingsError

MOST_WAITING = 20
"""Limit of runs that wait, from all pages together."""


class Runs:
    """Run requests from all pages one at a time, and keep the runs of each page by its secret name."""

    KEPT = 20
    """Number of runs whose results a page can still show."""

    def __init__(self, models: Models, place: Place) -> None:
        self.models, self.place = models, place
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="dumpunet-run")
        self._queue: list[Run] = []
        self._pages: dict[str, list[Run]] = {}
        self._lock = threading.Lock()

    def start(self, page: str, request: Request) -> Run:
        """Queue a request from the page with the secret name ``page``.

        Raises:
            SettingsError: for a mistake that can be found without the model, or if the page's last run is not over.
        """
        if not page:
            raise SettingsError("the page is not ready", remedy="Press Generate again.")
        last = self.last(page)
        if last is not None and not last.is_over:
            raise SettingsError("the last run is not over", remedy="Wait for it, or stop it.")
        request.check()
        self.models.check(request.choice)
        # Refuse folders now, not after a wait in the queue.
        request.settings.with_dumps(lambda dump: self.place.dumps(dump, self.place.root))
        run = Run(request, self.place)
        with self._lock:
            if len(self._queue) > MOST_WAITING:
                raise SettingsError(
                    f"{MOST_WAITING} runs are waiting already", remedy="Try again when some of them are done."
                )
            self._queue.append(run)
            self._pages.setdefault(page, []).append(run)
            old = self._pages[page][: -self.KEPT]
            self._pages[page] = self._pages[page][-self.KEPT :]
        for one in old:
            if one.folder is not None and not one.request.panel.output.save:
                shutil.rmtree(one.folder, ignore_errors=True)
        self._pool.submit(self._work, run)
        return run

    def last(self, page: str) -> Run | None:
        """Return a page's last run; None if it has none."""
        with self._lock:
            runs = self._pages.get(page)
            return runs[-1] if runs else None

    def find(self, key: str) -> Run | None:
        """Find a run by its key; None if there is none."""
        with self._lock:
            runs = [run for of_page in self._pages.values() for run in of_page]
        return next((run for run in runs if secrets.compare_digest(run.key.encode(), key.encode())), None)

    def ahead(self, run: Run) -> int:
        """Count the runs ahead of a run in the queue."""
        with self._lock:
            return self._queue.index(run) if run in self._queue else 0

    def close(self) -> None:
        """Stop all runs and wait until they have ended."""
        with self._lock:
            queue = list(self._queue)
        for run in queue:
            run.stop()
        self._pool.shutdown(wait=True)

    def _work(self, run: Run) -> None:
        try:
            run.work(self.models)
        finally:
            with self._lock:
                self._queue.remove(run)
