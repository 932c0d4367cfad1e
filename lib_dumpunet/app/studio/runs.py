"""Runs of the studio: one at a time, as there is one model; what a page sees of them, and how they are stopped."""

from __future__ import annotations

import io
import logging
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from lib_dumpunet.app.results import ResultFolder
from lib_dumpunet.app.studio.models import Choice, Models
from lib_dumpunet.app.studio.results import Item, RunResults
from lib_dumpunet.blocks import ModelFacts
from lib_dumpunet.errors import DumpUNetError, HostError, SettingsError
from lib_dumpunet.hosts.common.log_capture import capture_log
from lib_dumpunet.hosts.diffusers.find import ANY_BLOCKS
from lib_dumpunet.hosts.diffusers.generate import Outcome, ResultHandlers, generate
from lib_dumpunet.hosts.diffusers.job import Job, check, make_job
from lib_dumpunet.models.describe import describe
from lib_dumpunet.prompt.layer_prompt import OPEN
from lib_dumpunet.prompt.reading import read_templates
from lib_dumpunet.resolve import Prompts, resolve
from lib_dumpunet.settings import DumpSettings, GenerateSettings, PanelSettings, Settings
from lib_dumpunet.sinks.files import FIELD, as_written, explain, prepare_folder, told_once

log = logging.getLogger("dumpunet")

State = Literal["waiting", "loading", "sampling", "finishing", "done", "stopped", "failed"]
OVER: tuple[State, ...] = ("done", "stopped", "failed")
MOST_WAITING = 20
"""Runs that wait at once, of all pages."""
MOST_CHARACTERS = 10_000
"""Length of a prompt."""
MOST_WRITTEN = 2 * 1024**3
"""Bytes that a run may write where others reach the page."""
BETWEEN_LOOKS = 2.0
"""Seconds between two looks at how much a run has written."""
PREVIEW_SIDE = 768
"""Longest side of a preview, in pixels."""


@dataclass(frozen=True)
class Request:
    """What a page asks for."""

    choice: Choice
    prompt: str
    sampling: GenerateSettings
    panel: PanelSettings

    @property
    def settings(self) -> Settings:
        """What the core is asked for; attention is looked at where features are, unless it says where itself."""
        core = self.panel.core
        if not core.features.enabled:
            return core
        own = {name: getattr(core.attention, name) for name in ("layers", "steps")}
        like = {name: getattr(core.features, name) for name, text in own.items() if not text.strip()}
        return replace(core, attention=replace(core.attention, **like))

    def check(self) -> None:
        """Find the mistakes that need no model.

        Raises:
            SettingsError: for the first.
        """
        if not self.prompt.strip():
            raise SettingsError("it is empty", remedy="Write what the image should show.", field="Prompt")
        for field, text in (("Prompt", self.prompt), ("Negative prompt", self.sampling.negative)):
            if len(text) > MOST_CHARACTERS:
                raise SettingsError(
                    f"it has {len(text)} characters", remedy=f"Use at most {MOST_CHARACTERS}.", field=field
                )
        for field, text in (("Prompt", self.prompt), ("Negative prompt", self.sampling.negative)):
            if OPEN in text and not self.panel.layer_prompt.enabled:
                raise SettingsError(
                    f"it holds {OPEN}, but Enable Layer Prompt is not on",
                    remedy="Turn it on in the tab Layer Prompt, or take the bracket out.",
                    field=field,
                )
        templates = read_templates([self.prompt], self.sampling.negative, ANY_BLOCKS)
        resolve(self.settings, ModelFacts(ANY_BLOCKS), Prompts(templates, self.sampling.steps))


@dataclass(frozen=True)
class Place:
    """Where results go: a folder for all runs; ``is_open`` tells that others than the owner can reach the page."""

    root: Path
    is_open: bool

    def dumps(self, dump: DumpSettings, run: Path) -> DumpSettings:
        """Resolve a folder of dumps: an empty one is in the run's own; a relative one counts from the studio's.

        Where others reach the page, it counts from the run's, and must be inside of that.

        Raises:
            SettingsError: if it may not be used.
        """
        if not dump.enabled:
            return dump
        if not dump.path.strip():
            return replace(dump, path=str(run / "dump"))
        base = run if self.is_open else self.root
        try:
            path = base / as_written(dump.path)
            # Nobody asks the network for a folder of another computer.
            inside = not self.is_open or (not _is_remote(dump.path) and _is_inside(path, base))
        except (OSError, ValueError, RuntimeError) as error:
            raise SettingsError(
                f"{dump.path!r} is not a path", remedy="Choose another folder.", field=FIELD
            ) from error
        if not inside:
            raise SettingsError(
                f"the studio can be reached from other computers, so {dump.path} is not allowed",
                remedy="Choose a folder inside the run's own, by a name such as my-dumps, or leave it empty.",
                field=FIELD,
            )
        return replace(dump, path=str(path))


def _is_remote(path: str) -> bool:
    """Whether a path names another computer, as Windows has it."""
    return path.strip().replace("\\", "/").startswith("//")


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


@dataclass
class Progress:
    """How far sampling is; times are those of ``time.monotonic``."""

    done: int = 0
    total: int = 0
    begun: float = 0.0
    first: int = 0
    last: float = 0.0

    def move(self, done: int, total: int) -> None:
        """Note that a step has ended."""
        now = time.monotonic()
        if not self.done:
            self.begun, self.first = now, done
        self.done, self.total, self.last = done, total, now

    @property
    def left(self) -> float | None:
        """Seconds that are left, by the steps since the first; None where that is not known yet."""
        steps = self.done - self.first
        return (self.last - self.begun) / steps * (self.total - self.done) if steps > 0 else None


class Run:
    """One request, from waiting to its results. A page reads the attributes; ``version`` grows with each change."""

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
        """Whether nothing more will come."""
        return self.state in OVER

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop, and has not yet."""
        return self._stop.is_set() and not self.is_over

    @property
    def folder(self) -> Path | None:
        """Where results are; None before there are any."""
        return None if self._results is None else self._results.folder.path

    @property
    def items(self) -> list[Item]:
        """What has come so far."""
        return [] if self._results is None else self._results.items

    def stop(self) -> None:
        """Ask for its end; what was made is kept. One that still waits ends at once."""
        with self._beginning:
            self._stop.set()
            self._enter("stopped" if self.state == "waiting" else self.state)

    def work(self, models: Models) -> None:
        """Do all of it; nothing is raised, as nobody waits for it."""
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
            self._stop.clear()  # too late

    def _generate(self, pipe: Any, job: Job, settings: Settings, shelf: RunResults) -> Outcome:
        outlet = ResultHandlers(
            image=self._noted(shelf.image),
            picture=self._noted(shelf.picture),
            progress=self._move,
            plain=self._noted(shelf.plain),
            page=self._noted(shelf.page),
            preview=self._show_preview,
            stopped=self._is_to_stop,
        )
        return generate(pipe, job, settings, outlet)

    def _is_to_stop(self) -> bool:
        """Return whether someone has stopped it, or it has written more than it may."""
        now = time.monotonic()
        if self._place.is_open and not self._stop.is_set() and now - self._looked > BETWEEN_LOOKS:
            self._looked = now
            assert self.folder is not None
            if _size(self.folder) > MOST_WRITTEN:
                self.messages.append(
                    f"It was stopped: a run may write {MOST_WRITTEN >> 20} MB where others reach the studio."
                )
                self._stop.set()
        return self._stop.is_set() or (self._results is not None and self._results.folder.is_full)

    def _noted(self, take: Callable[..., None]) -> Callable[..., None]:
        """Let pages know of what comes."""

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
        """Change the state, and let pages know."""
        self.state = state
        self.version += 1


def _size(folder: Path) -> int:
    """Add up the bytes of all files in a folder; a file may go while this looks."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total


def new_folder(root: Path, *, is_kept: bool) -> ResultFolder:
    """Make a folder for a run, named by the time; one that is not kept is removed with the studio's end.

    Raises:
        SettingsError: if it cannot be made.
    """
    if not is_kept:
        return ResultFolder(Path(tempfile.mkdtemp(prefix="dumpunet-", dir=_passing())))
    name = time.strftime("%Y-%m-%d-%H%M%S")
    for number in range(1, 1000):
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            problem, remedy = explain(error)
            raise SettingsError(f"{path} cannot be used, {problem}", remedy=remedy, field=FIELD) from error
        return ResultFolder(prepare_folder(path))
    raise SettingsError(f"{root} holds too many runs", remedy="Choose another folder.", field=FIELD)


_passing_folders: list[tempfile.TemporaryDirectory[str]] = []


def _passing() -> str:
    """Return the folder of what is not kept, which Python removes at its end."""
    if not _passing_folders:
        _passing_folders.append(tempfile.TemporaryDirectory(prefix="dumpunet-studio-"))
    return _passing_folders[0].name


class Runs:
    """The queue of all pages, which has one run at a time, and the runs of each page by its secret name."""

    KEPT = 20
    """Runs of a page whose results it can still show."""

    def __init__(self, models: Models, place: Place) -> None:
        self.models, self.place = models, place
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="dumpunet-run")
        self._queue: list[Run] = []
        self._pages: dict[str, list[Run]] = {}
        self._lock = threading.Lock()

    def start(self, page: str, request: Request) -> Run:
        """Put a request into the queue; ``page`` is the secret name of the page that it comes from.

        Raises:
            SettingsError: for a mistake that needs no model to be found, or while the page's last run goes on.
        """
        if not page:
            raise SettingsError("the page is not ready", remedy="Press Generate again.")
        last = self.last(page)
        if last is not None and not last.is_over:
            raise SettingsError("the last run still goes on", remedy="Wait for it, or stop it.")
        request.check()
        self.models.check(request.choice)
        # Folders are refused now, before anyone waits for it.
        request.settings.with_dumps(lambda dump: self.place.dumps(dump, self.place.root))
        run = Run(request, self.place)
        with self._lock:
            if len(self._queue) > MOST_WAITING:
                raise SettingsError(
                    f"{MOST_WAITING} runs wait already", remedy="Try again when some of them are done."
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
        """Return the last run of a page."""
        with self._lock:
            runs = self._pages.get(page)
            return runs[-1] if runs else None

    def find(self, key: str) -> Run | None:
        """Find a run by its key."""
        with self._lock:
            runs = [run for of_page in self._pages.values() for run in of_page]
        return next((run for run in runs if secrets.compare_digest(run.key.encode(), key.encode())), None)

    def ahead(self, run: Run) -> int:
        """Count the runs that come before one."""
        with self._lock:
            return self._queue.index(run) if run in self._queue else 0

    def close(self) -> None:
        """Stop everything, and wait for its end."""
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
