"""The runs of a request: with per-block prompts, and for a difference also without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from PIL import Image

from lib_dumpunet.assemble import Generation
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.models.model import Model
from lib_dumpunet.ports import Clock, Host, Page, Picture
from lib_dumpunet.resolve import of_plain_run, resolve
from lib_dumpunet.session import Session, open_session
from lib_dumpunet.settings import Settings


class Runs:
    """The runs of a request: each batch is sampled inside ``plain`` first, if compared, and then inside ``steered``."""

    def __init__(self, session: Session, beside: Session | None) -> None:
        self._session, self._beside = session, beside

    @property
    def compares(self) -> bool:
        """Whether each batch must first be sampled without per-block prompts."""
        return self._session.compares

    @property
    def problems(self) -> list[DumpUNetError]:
        """Errors so far; complete once the ``with`` has ended."""
        return [*self._session.problems, *(() if self._beside is None else self._beside.problems)]

    def report(self, problem: DumpUNetError) -> None:
        """Add an error from the host, once."""
        self._session.report(problem)

    @contextmanager
    def plain(self, model: Model | None = None, *, hires: bool = False) -> Iterator[None]:
        """Capture a batch, or part of one, that the host samples with the base prompts."""
        with ExitStack() as stack:
            stack.enter_context(self._session.plain_run(model))
            if self._beside is not None:
                stack.enter_context(self._beside.run(model, hires=hires))
            yield

    @contextmanager
    def steered(self, model: Model | None = None, *, hires: bool = False) -> Iterator[None]:
        """Steer and capture a batch, or part of one."""
        with self._session.run(model, hires=hires):
            yield

    def finish_plain(self, image: int, picture: Image.Image) -> None:
        """Take a finished image without per-block prompts."""
        if self._beside is not None:
            self._beside.finish(image, picture)

    def finish(self, image: int, picture: Image.Image) -> None:
        """Take a finished image."""
        self._session.finish(image, picture)


class _PlainHost:
    """Marks the pictures of the run without per-block prompts."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def clock(self) -> Clock:
        return self._host.clock

    def show(self, picture: Picture) -> None:
        self._host.show(picture.as_plain())

    def write_page(self, page: Page) -> None:
        self._host.write_page(page)


@contextmanager
def open_runs(
    model: Model,
    settings: Settings,
    host: Host,
    generation: Generation,
    plain: Callable[[], Generation],
    *,
    threads: int | None = None,
) -> Iterator[Runs]:
    """Open the runs, which capture and steer what the host samples.

    Args:
        plain: returns the generation without per-block prompts; called only if that run is captured too.
        threads: number of threads that draw and write; None chooses it automatically.
    Raises:
        SettingsError, UnsupportedModelError: for a mistake, before any hook is installed.
    """
    plan, asked = resolve(settings, model.facts, generation.prompts), of_plain_run(settings)
    with ExitStack() as stack:
        session = stack.enter_context(open_session(model, plan, host, generation, threads=threads))
        beside: Session | None = None
        if asked is not None and session.compares:
            same = plain()
            # The notes were logged already.
            plan = replace(resolve(asked, model.facts, same.prompts), notes=())
            opening = open_session(model, plan, _PlainHost(host), same, threads=threads)
            beside = stack.enter_context(opening)
        yield Runs(session, beside)
