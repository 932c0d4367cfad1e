"""Composition root: connect hooks, queue and sinks around the sampler's runs, for a plan, a U-Net and a host."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from PIL import Image

from lib_dumpunet.assemble import Generation, assemble
from lib_dumpunet.captures import Branch, Capture, Tag
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hooks.attention import capture_attention, require_readable
from lib_dumpunet.hooks.capture import capture_blocks
from lib_dumpunet.hooks.interventions import Intervention, intervening
from lib_dumpunet.hooks.reading import Emit, Report
from lib_dumpunet.hooks.sums import AttentionSum, AttentionSums, mean_of
from lib_dumpunet.models.model import Model
from lib_dumpunet.plan import Plan
from lib_dumpunet.ports import BatchRow, Clock, Host
from lib_dumpunet.prompt.texts import Tokens
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.queue import Fanout

log = logging.getLogger("dumpunet")


@dataclass(frozen=True)
class Recording:
    """The queue between hooks and sinks, and the running sums of words and points."""

    queue: Fanout
    sums: AttentionSums


class Session:
    """All runs of one request; ``problems`` is complete once the session's ``with`` has ended."""

    def __init__(
        self,
        unet: Model,
        plan: Plan,
        clock: Clock,
        generation: Generation,
        sinks: Sequence[Sink],
        threads: int | None = None,
    ) -> None:
        self.problems: list[DumpUNetError] = []
        self._unet, self._plan, self._clock, self._generation = unet, plan, clock, generation
        self._queue = Fanout(sinks, threads=threads)
        self._sums = AttentionSums()
        self._read: dict[Branch, set[Tokens]] = {}

    @property
    def compares(self) -> bool:
        """Whether each batch must first be generated without per-block prompts, inside ``plain_run``."""
        return self._plan.difference is not None

    @contextmanager
    def plain_run(self, unet: Model | None = None) -> Iterator[None]:
        """Capture and set aside features to compare the next run with; inside, the host samples with base prompts."""
        want = self._plan.difference
        assert want is not None
        plain = Plan(features=replace(want, kind="plain"))
        with watching(unet or self._unet, plain, self._clock, self._queue.put, self.report):
            yield
        self._queue.drain()

    @contextmanager
    def run(self, unet: Model | None = None, *, hires: bool = False) -> Iterator[None]:
        """Steer and capture a batch, or part of one.

        ``unet`` is the model that samples, if it is not the one the session was opened with. ``hires`` marks the
        second pass of a hires fix.
        """
        plan, changes = self._plan, self._generation.interventions(hires=hires)
        if plan.attention is not None:
            texts = self._generation.texts_of(hires=hires)
            attention = replace(plan.attention, text_of=texts.text, length_of=texts.length_of)
            plan = replace(plan, attention=attention)
        with watching(
            unet or self._unet, plan, self._clock, self._queue.put, self.report, self._sums, changes
        ):
            yield

    def finish(self, image: int, picture: Image.Image | None) -> None:
        """Take a finished image: its words and points are complete now, and can be drawn over it.

        Errors go to ``problems``, so that the next image is still generated.
        """
        self._queue.see_image(image, picture)
        try:
            for capture in list(self._sums_of(image)):
                self._queue.put(capture)
        except DumpUNetError as error:
            self.report(error)
        except Exception as error:
            log.debug("sums of image %d failed", image, exc_info=True)
            self.report(HostError(f"words and points of image {image} could not be drawn ({error})"))
        finally:
            self._sums.forget(image)
        self._queue.finish_image(image)

    def close(self) -> None:
        """Finish what is queued; captures of images that were never finished are drawn without the image."""
        try:
            for image in sorted({*self._queue.images, *self._sums.images}):
                self.finish(image, None)
            self._queue.close()
            self._report_unread()
        finally:
            for problem in self._queue.problems:
                self.report(problem)

    def _report_unread(self) -> None:
        """Report words that are in a prompt, but in no text that the captured blocks mainly read."""
        for branch, read in self._read.items():
            missed = self._plan.words[branch].missing(read)
            if missed:
                self.report(
                    HostError(
                        f"no captured block mainly uses {', '.join(map(repr, missed))}",
                        remedy="Choose other blocks or steps; the command prompt shows what each block reads.",
                    )
                )

    def report(self, error: DumpUNetError) -> None:
        """Record an error once; each batch installs its hooks anew and may report it again."""
        if str(error) not in map(str, self.problems):
            self.problems.append(error)

    def _sums_of(self, image: int) -> Iterator[Capture]:
        for branch, choice in self._plan.words.items():
            columns: dict[str, list[tuple[AttentionSum, tuple[int, ...]]]] = {}
            for part in self._sums.sums(BatchRow(image, branch), "word"):
                tokens = self._tokens(part)
                self._read.setdefault(branch, set()).add(tokens)
                for word in choice.find(tokens):
                    columns.setdefault(word.text, []).append((part, word.columns))
            for text, parts in columns.items():
                yield Capture(Tag(image, 0, "", "word", 0, text, branch), mean_of(parts))
        maps = self._sums.mean(BatchRow(image, "cond"), "point")
        if maps is not None:
            for point, looks in zip(self._plan.points, maps, strict=True):
                yield Capture(Tag(image, 0, "", "point", 0, point.name), looks)

    def _tokens(self, part: AttentionSum) -> Tokens:
        """Return the tokens of a text whose maps were summed."""
        known = {**self._generation.texts_of(hires=True).tokens, **self._generation.texts.tokens}
        tokens = known[part.text]
        if len(part.total) < len(tokens):
            raise HostError(
                f"the text has {len(tokens)} tokens but attention has {len(part.total)}, so words cannot be found"
            )
        return tokens


@contextmanager
def open_session(
    unet: Model, plan: Plan, host: Host, generation: Generation, *, threads: int | None = None
) -> Iterator[Session]:
    """Open a session that captures and steers the host's sampling runs as a plan says.

    ``threads`` is the number of threads that draw and write; None chooses it automatically.

    Raises:
        SettingsError: if a folder cannot be used, before any hook is installed. Later errors go to ``problems`` and
            do not disturb the sampler.
        UnsupportedModelError: if attention is wanted but the model's cannot be read.
    """
    if plan.attention is not None:
        require_readable(unet, plan.attention)
    for note in plan.notes:
        log.warning("%s", note)
    session = Session(unet, plan, host.clock, generation, assemble(plan, host, generation), threads)
    try:
        yield session
    finally:
        session.close()


@contextmanager
def record(
    unet: Model,
    plan: Plan,
    clock: Clock,
    sinks: Sequence[Sink],
    problems: list[DumpUNetError],
    interventions: Sequence[Intervention] = (),
) -> Iterator[Recording]:
    """Pass the captures of one run from the hooks to the sinks; errors are appended to ``problems``."""
    queue = Fanout(sinks)
    try:
        with watching(unet, plan, clock, queue.put, problems.append, interventions=interventions) as sums:
            yield Recording(queue, sums)
    finally:
        try:
            queue.close()
        finally:
            problems.extend(queue.problems)


@contextmanager
def watching(
    unet: Model,
    plan: Plan,
    clock: Clock,
    emit: Emit,
    report: Report,
    sums: AttentionSums | None = None,
    interventions: Sequence[Intervention] = (),
) -> Iterator[AttentionSums]:
    """Install a plan's hooks: interventions first, then capturing hooks, which add words and points to ``sums``."""
    sums = AttentionSums() if sums is None else sums
    with ExitStack() as hooks:
        hooks.enter_context(intervening(unet, interventions, clock, report))
        for want in (plan.features, plan.difference):
            if want is not None:
                hooks.enter_context(capture_blocks(unet, want, clock, emit, report))
        if plan.attention is not None:
            hooks.enter_context(capture_attention(unet, plan.attention, clock, emit, report, sums))
        yield sums
