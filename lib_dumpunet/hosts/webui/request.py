"""One job of the webui with captures or per-block prompts, from its settings to the pictures after its images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from modules import shared
from PIL import Image

from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hosts.common.log_capture import TITLE, capture_log
from lib_dumpunet.hosts.common.runs import Runs, open_runs
from lib_dumpunet.hosts.webui import compat, pages
from lib_dumpunet.hosts.webui.clock import DenoiserClock
from lib_dumpunet.hosts.webui.family import live_unet
from lib_dumpunet.hosts.webui.folders import with_folders
from lib_dumpunet.hosts.webui.gallery import Gallery
from lib_dumpunet.hosts.webui.host import WebuiHost, refuse, tell
from lib_dumpunet.hosts.webui.lists import fill_negatives
from lib_dumpunet.hosts.webui.passes import Passes
from lib_dumpunet.hosts.webui.plain_images import PlainImages
from lib_dumpunet.hosts.webui.reading import Reading
from lib_dumpunet.hosts.webui.results import Outcome, Shown, Shows, deliver
from lib_dumpunet.hosts.webui.watch import Batch, Watch
from lib_dumpunet.kinds import of_image
from lib_dumpunet.models.describe import describe
from lib_dumpunet.resolve import needs_table
from lib_dumpunet.settings import AttentionSettings, PanelSettings
from lib_dumpunet.sinks.files import told_once

log = logging.getLogger("dumpunet")

INTERRUPTED = (
    "the job was interrupted while the image without per-block prompts was generated, so there is no other image, and "
    "no difference."
)
LEFT_OUT = "Enable Layer Prompt is off, so per-block brackets in prompts are left out."


@dataclass(frozen=True)
class _Opened:
    """A job's state once its prompts are known."""

    passes: Passes
    runs: Runs
    stack: ExitStack


class Request:
    """Follow one job through the webui's callbacks; each public method that takes ``p`` serves one, in their order.

    Args:
        shows: which pictures to add to the images that the webui gets.
        threads: number of threads that draw and write; None leaves it to the core.
    """

    def __init__(self, settings: PanelSettings, *, shows: Shows, threads: int | None) -> None:
        self._panel, self._settings = settings, settings.core
        self._shows, self._threads = shows, threads
        self.task = str(shared.state.job_timestamp)
        """The task that the user started; a plot makes many jobs of it."""
        self._gallery = Gallery(self.task)
        self._host = WebuiHost(DenoiserClock(), self._gallery)
        self._warnings: list[str] = []
        self._log = ExitStack()
        self._log.enter_context(capture_log(self._warnings, to_console=settings.output.log))
        self._plain = PlainImages()
        self._watch = Watch(self._host.clock, self._report)
        self._opened: _Opened | None = None
        self._images = range(0)
        self._refusal: DumpUNetError | None = None
        self.makes_images = False
        """Whether a batch's latents are being decoded and its images finished; another job that samples then is one
        inside this job."""

    @property
    def is_plain(self) -> bool:
        """Whether the images without per-block prompts are being generated."""
        return self._plain.under_way

    @property
    def plain_images(self) -> list[Shown]:
        """The images generated without per-block prompts so far."""
        return self._plain.shown

    # --- before sampling ---

    def begin(self, p: Any) -> None:
        """If differences are requested, generate the images without per-block prompts first.

        Raises:
            SettingsError: for a folder that must not be written to.
        """
        self._settings = with_folders(self._settings, p)
        if self._settings.difference.enabled:
            self._plain.make(p)
            self.makes_images = False
            self._watch.rest()
            if self._refusal is not None:
                refuse(p, self._refusal)
            elif compat.is_stopped():
                self._warnings.append(INTERRUPTED)

    def prepare(self, p: Any, batch: int) -> None:
        """Check everything, now that the model and the prompts are known.

        Raises:
            DumpUNetError: for the first mistake.
        """
        fill_negatives(p, batch)
        settings, tokens = self._settings, self._settings.attention.enabled
        if settings.difference.enabled:
            self._plain.note_or_repeat(p, batch)
        if self._opened is not None:
            return
        model = describe(live_unet(shared.sd_model))
        passes = Passes(p, model, self._host.clock, brackets=self._panel.layer_prompt.enabled)
        self._gallery.rank = partial(_rank, settings.attention, p)
        generation = passes.generation(p, tokens=tokens, table=needs_table(settings))
        plain = partial(passes.without_brackets, generation, tokens=tokens)
        stack = ExitStack()
        opening = open_runs(model, settings, self._host, generation, plain, threads=self._threads)
        self._opened = _Opened(passes, stack.enter_context(opening), stack)

    def begin_batch(self, p: Any, batch: int) -> None:
        """Give the webui the texts that it should encode, and encode the others.

        Raises:
            DumpUNetError: for a mistake.
        """
        if self._refusal is not None:
            return
        assert self._opened is not None
        passes, self.makes_images = self._opened.passes, False
        start = batch * p.batch_size
        self._images = range(start, start + len(p.prompts))
        has_brackets = passes.give_mains(p, self._images, plain=self.is_plain)
        if has_brackets and not self._panel.layer_prompt.enabled and LEFT_OUT not in self._warnings:
            self._warnings.append(LEFT_OUT)
        if self.is_plain and batch == 0:
            passes.show_base_prompts(p)
        self._watch.begin(self._batch(p, passes.first, hires=False))

    def begin_hires(self, p: Any) -> None:
        """Follow the second pass of a hires fix."""
        reading = None if self._opened is None else self._opened.passes.hires
        if reading is None:
            self._watch.rest()
            return
        try:
            self._watch.begin(self._batch(p, reading, hires=True))
        except Exception as error:
            # Too late to refuse the job: the first pass has sampled.
            log.debug("preparing the hires pass failed", exc_info=True)
            self._watch.give_up(error)

    # --- while sampling and after it ---

    def see_denoiser(self, params: Any) -> None:
        """Follow the sampler."""
        self._watch.see_denoiser(params)

    def end_sampling(self) -> None:
        """Remove the hooks, before the webui decodes the latents."""
        self._watch.rest()
        self.makes_images = True

    def finish_image(self, p: Any, image: Image.Image) -> None:
        """Draw heatmaps of words and points over an image."""
        if self._opened is not None:
            runs = self._opened.runs
            finish = runs.finish_plain if self.is_plain else runs.finish
            finish(self._images.start + p.batch_index, image)

    def finish(self, p: Any, processed: Any) -> None:
        """Add the pictures after their images, and report errors."""
        if self.is_plain:
            return
        shared.state.textinfo = f"{TITLE}: finishing pictures and files"
        problems = self._close()
        save = self._panel.output.save
        outcome = deliver(self._gallery, processed, self._plain.shown, save=save, shows=self._shows)
        problems = told_once([*problems, *outcome.problems.values()])
        for page in outcome.pages:
            pages.offer(page.file)
        found = [f"{page.about} It is {page.file}" for page in outcome.pages]
        for message in [*self._warnings, *map(str, problems), *self._hidden(outcome), *found]:
            tell(p, message)
            processed.comments += f"{TITLE}: {message}\n"
        shared.state.textinfo = None

    def refuse(self, p: Any, error: DumpUNetError) -> None:
        """End the job before it samples."""
        if self._refusal is None:
            self._refusal = error
            refuse(p, error)

    def abandon(self) -> None:
        """Remove the hooks and close files, whatever happened."""
        self._close()

    # --- parts of these ---

    def _batch(self, p: Any, reading: Reading, *, hires: bool) -> Batch:
        assert self._opened is not None
        runs, is_plain = self._opened.runs, self.is_plain
        hooks = partial(runs.plain if is_plain else runs.steered, hires=hires)
        must_steer = self._opened.passes.steer and not is_plain
        return Batch(p, self._images, reading, hires, not is_plain, must_steer, hooks)

    def _report(self, problem: DumpUNetError) -> None:
        assert self._opened is not None
        self._opened.runs.report(problem)

    def _close(self) -> list[DumpUNetError]:
        """Remove the hooks and finish the queue; return the errors."""
        self._watch.rest()
        problems: list[DumpUNetError] = []
        if self._opened is not None:
            opened, self._opened = self._opened, None
            opened.stack.close()
            problems = [*opened.runs.problems, *map(HostError, self._unseen(opened.passes))]
        self._log.close()
        return problems

    def _hidden(self, outcome: Outcome) -> list[str]:
        """Say where the pictures are that the page does not show."""
        if not self._gallery.count or self._shows != "saved":
            return []
        if outcome.saved:
            # Without their number: a plot shows the comment of its first cell for all of them.
            return [
                "pictures were saved next to the generated images, because another script fills the gallery."
            ]
        return ["there are no pictures, because another script fills the gallery, and images are not saved."]

    def _unseen(self, passes: Passes) -> Iterator[str]:
        """Explain missing captures: fewer steps than expected, tiles or regions."""
        clock, steps = self._host.clock, passes.first.steps
        if shared.state.interrupted or shared.state.skipped or self._refusal is not None:
            return
        if not any(clock.reached.values()):
            yield "the webui did not sample, or its U-Net was replaced, so nothing was captured"
            return
        reached = clock.reached[False]
        if 0 < reached < steps:
            yield f"sampling ended at step {reached}, so steps {reached + 1}-{steps} were not captured"
            return
        looks = self._settings.features.enabled or self._settings.attention.enabled
        if clock.tile is not None and looks:
            height, width = clock.tile
            yield (
                f"the image was generated in tiles, and maps show only the first one ({width} x {height} cells of "
                "latents), not the whole image"
            )
        if clock.has_regions and (looks or passes.steer):
            yield "regions of the image had prompts of their own, which were neither changed nor captured"


def _rank(attention: AttentionSettings, p: Any, tag: Tag) -> int:
    """Return the rank of a word or point: in the order typed or, if all words are shown, in the prompt's order."""
    if not of_image(tag.kind):
        return 0
    negative = tag.branch == "uncond"
    typed = (
        attention.points if tag.kind == "point" else attention.negative_words if negative else attention.words
    )
    phrases = [" ".join(phrase.split()).casefold() for phrase in typed.split(",")]
    if tag.name.casefold() in phrases:
        return phrases.index(tag.name.casefold())
    prompts = p.all_negative_prompts if negative else p.all_prompts
    return int(prompts[tag.image].casefold().find(tag.name.casefold()))
