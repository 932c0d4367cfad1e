"""One job of the webui's that is looked into or steered: from its settings to the pictures behind its images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from modules import processing, rng, shared
from PIL import Image

from lib_dumpunet import wire
from lib_dumpunet.assemble import Generation
from lib_dumpunet.captures import Branch, Tag
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hosts.hearing import TITLE, heard
from lib_dumpunet.hosts.webui import compat, pages
from lib_dumpunet.hosts.webui.blocks import block_table
from lib_dumpunet.hosts.webui.clock import DenoiserClock, not_followed
from lib_dumpunet.hosts.webui.folders import with_folders
from lib_dumpunet.hosts.webui.gallery import Gallery
from lib_dumpunet.hosts.webui.host import WebuiHost, refuse, tell
from lib_dumpunet.hosts.webui.reading import Reading, encoder_state, prompts_of
from lib_dumpunet.hosts.webui.results import Outcome, Shown, Shows, deliver, shown_by
from lib_dumpunet.kinds import of_image
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.prompt.layer_prompt import OPEN
from lib_dumpunet.resolve import needs_table, of_plain_run, resolve
from lib_dumpunet.session import Session, open_session
from lib_dumpunet.settings import AttentionSettings, PanelSettings
from lib_dumpunet.sinks.dump import DumpRequest
from lib_dumpunet.sinks.files import told_once

log = logging.getLogger("dumpunet")

LISTS = ("all_prompts", "all_negative_prompts", "all_hr_prompts", "all_hr_negative_prompts")
"""What a job has for each of its images; extensions fill it in, some with something new each time."""
NEGATIVES = {"all_negative_prompts": "negative_prompt", "all_hr_negative_prompts": "hr_negative_prompt"}
"""Of these the lists of negative prompts, each with what they are made of."""
SEEDS = ("all_seeds", "all_subseeds")
LEFT_OUT = "Enable Layer Prompt is not on, so what prompts give per block is left out."
PROMPTS: tuple[tuple[str, Branch], ...] = (("prompts", "cond"), ("negative_prompts", "uncond"))
"""The prompts of a batch."""


@dataclass
class _Opened:
    """What a job has once its prompts are known."""

    session: Session
    first: Reading
    hires: Reading | None
    stack: ExitStack
    plain: Session | None = None
    """Looks at the run without per-block prompts, where that is asked for."""

    @property
    def readings(self) -> list[tuple[str, Reading]]:
        """The passes, each with the start of the names that a job's prompts have there."""
        passes = [("", self.first)]
        return passes if self.hires is None else [*passes, ("hr_", self.hires)]


class Job:
    """Follows one job through the webui's hooks; each method that takes ``p`` is one of them, in their order.

    Nothing that goes wrong with looking reaches the image. What goes wrong with steering ends the job, since an image
    with other texts than asked for would be worse than none.

    Args:
        shows: which pictures are to be among the images that the webui gets.
        threads: of those that draw and write; None leaves their number to the core.
    """

    def __init__(self, settings: PanelSettings, *, shows: Shows, threads: int | None) -> None:
        self._panel, self._settings = settings, settings.core
        self._shows, self._threads = shows, threads
        self.task = str(shared.state.job_timestamp)
        """What the user has started, of which a plot makes many jobs."""
        self._gallery = Gallery(self.task)
        self._host = WebuiHost(DenoiserClock(), self._gallery)
        self._warnings: list[str] = []
        self._ears = ExitStack()
        self._ears.enter_context(heard(self._warnings, to_console=settings.output.log))
        self._opened: _Opened | None = None
        self._images = range(0)
        self._p: Any = None
        self._hooks = ExitStack()
        self._hooked: object = None
        self._hires = False
        self._refusal: DumpUNetError | None = None
        self._plain: list[Shown] = []
        self._repeated: dict[str, list[Any]] = {}
        self.is_plain = False
        """Whether the images without per-block prompts are being made."""
        self.makes_images = False
        """Whether sampling has ended, and images are being made of a batch: who samples then is another job."""

    # --- before sampling ---

    def begin(self, p: Any) -> None:
        """Make the images without per-block prompts first, if the two are to be compared.

        Raises:
            SettingsError: for a folder that may not be written to.
        """
        self._settings = with_folders(self._settings, p)
        if not self._settings.difference.enabled:
            return
        processing.fix_seed(p)
        # A copy, not a new object, which would be set up anew by the page's values.
        plain = copy(p)
        plain.extra_generation_params = without_parameters(p.extra_generation_params)
        plain.override_settings = dict(p.override_settings)
        plain.styles = list(p.styles)
        jobs = shared.state.job_count
        shared.state.job_count = jobs + p.n_iter if jobs > 0 else 2 * p.n_iter
        self.is_plain = True
        # Both begin with the same state: in img2img the webui takes a random sample when it encodes the image.
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        try:
            with torch.random.fork_rng(devices):
                processed = processing.process_images(plain)
        except Exception as error:
            p.sample = partial(_raise, error)
        else:
            self._plain = shown_by(processed)
        finally:
            self.is_plain = False
            self.makes_images = False
            self._unhook()
        if self._refusal is not None:
            refuse(p, self._refusal)

    def prepare(self, p: Any, batch: int) -> None:
        """Find every mistake, now that the model and the prompts are known.

        Raises:
            DumpUNetError: for the first mistake.
        """
        _fill_negatives(p, batch)
        self._repeat(p, batch)
        if self._opened is not None:
            return
        if compat.is_forge(shared.sd_model):
            raise not_followed()
        hires = prompts_of(p, hires=True) if getattr(p, "enable_hr", False) else None
        unet = describe(compat.live_unet(shared.sd_model))
        brackets = self._panel.layer_prompt.enabled
        first = Reading(p, prompts_of(p, hires=False), unet, self._host.clock, brackets=brackets)
        second = None if hires is None else Reading(p, hires, unet, self._host.clock, brackets=brackets)
        self._gallery.rank = partial(_rank, self._settings.attention, p)
        generation = self._generation(p, unet, first, second)
        plan = resolve(self._settings, unet.facts, generation.prompts)
        stack = ExitStack()
        opening = open_session(unet, plan, self._host, generation, threads=self._threads)
        self._opened = _Opened(stack.enter_context(opening), first, second, stack)
        of_plain = of_plain_run(self._settings)
        if of_plain is not None:
            tokens = of_plain.attention.enabled
            same = replace(
                generation,
                texts=first.plain_texts(tokens=tokens),
                steering=None,
                hires=None if second is None else (second.plain_texts(tokens=tokens), None),
            )
            host = WebuiHost(self._host.clock, self._gallery, is_plain=True)
            plan = replace(resolve(of_plain, unet.facts, same.prompts), notes=())  # they have been told
            beside = open_session(unet, plan, host, same, threads=self._threads)
            self._opened.plain = stack.enter_context(beside)

    def begin_batch(self, p: Any, batch: int) -> None:
        """Give the webui the texts that it is to encode, and encode the others.

        Raises:
            DumpUNetError: for a mistake.
        """
        if self._refusal is not None:
            return
        self._p, self.makes_images = p, False
        self._unhook()
        opened = self._ready()
        start = batch * p.batch_size
        self._images = range(start, start + len(p.prompts))
        for prefix, reading in opened.readings:
            for name, branch in PROMPTS:
                # Without a bracket they stay what they are: another extension may have written them.
                if any(OPEN in text for text in getattr(p, prefix + name)):
                    self._tell_of_brackets()
                    setattr(p, prefix + name, reading.mains(self._images, branch, plain=self.is_plain))
        if self.is_plain and batch == 0:
            self._show_base_prompts(p)
        self._begin_pass(p, opened.first, hires=False)

    def begin_hires(self, p: Any) -> None:
        """Go on with the second pass of a hires fix."""
        self._unhook()
        reading = None if self._opened is None else self._opened.hires
        if reading is None:
            return
        try:
            self._begin_pass(p, reading, hires=True)
        except Exception as error:
            # The first pass is done, so the job cannot be ended by its sample any more.
            log.debug("preparing the hires pass failed", exc_info=True)
            self._give_up(error)

    # --- while sampling ---

    def see_denoiser(self, params: Any) -> None:
        """Note which rows the U-Net is going to work on; put the hooks on, again where the model has changed."""
        denoiser = self._p and compat.denoiser_of(params, self._p)
        if self.makes_images or not compat.is_own(denoiser, self._p):
            self._host.clock.pause()
            return
        try:
            state = encoder_state(self._p, hires=self._hires)
            if self._hooked != (id(compat.live_unet(shared.sd_model)), state):
                self._hook(self._p, state, denoiser)
            self._see_rows(params, denoiser)
        except Exception as error:  # the webui would swallow it, and sample without what was asked for
            log.debug("following the sampler failed", exc_info=True)
            self._give_up(error)

    # --- after it ---

    def end_sampling(self) -> None:
        """Take the hooks off: images are being made of what was sampled."""
        self._unhook()
        self.makes_images = True

    def finish_image(self, p: Any, image: Image.Image) -> None:
        """Lay words and points over an image."""
        if self._opened is not None:
            session = self._opened.plain if self.is_plain else self._opened.session
            if session is not None:
                session.finish(self._images.start + p.batch_index, image)

    def finish(self, p: Any, processed: Any) -> None:
        """Put the pictures behind their images, and say what went wrong."""
        if self.is_plain:
            return
        shared.state.textinfo = f"{TITLE}: finishing pictures and files"
        problems = self._close()
        save = self._panel.output.save
        outcome = deliver(self._gallery, processed, self._plain, save=save, shows=self._shows)
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

    @property
    def plain(self) -> list[Shown]:
        """The images without per-block prompts, as far as they have been made."""
        return self._plain

    def abandon(self) -> None:
        """Leave everything as found, whatever happened."""
        self._close()

    # --- parts of these ---

    def _repeat(self, p: Any, batch: int) -> None:
        """Let a run use the prompts and seeds of the one that it is compared to, whatever extensions have filled in."""
        if not self._settings.difference.enabled:
            return
        names = [name for name in (*LISTS, *SEEDS) if getattr(p, name, None)]
        if self.is_plain:
            if batch == 0:
                self._repeated = {name: list(getattr(p, name)) for name in names}
            return
        if any(list(getattr(p, name)) != self._repeated.get(name) for name in names):
            for name, values in self._repeated.items():
                setattr(p, name, list(values))
            chosen = slice(batch * p.batch_size, (batch + 1) * p.batch_size)
            p.prompts, p.negative_prompts = p.all_prompts[chosen], p.all_negative_prompts[chosen]
            p.seeds, p.subseeds = p.all_seeds[chosen], p.all_subseeds[chosen]
            p.rng = _seeded(p)

    def _generation(self, p: Any, unet: Model, first: Reading, hires: Reading | None) -> Generation:
        tokens = self._settings.attention.enabled
        table = block_table(unet, p.width, p.height) if needs_table(self._settings) else []
        steps = max(first.steps, hires.steps if hires is not None else 0)
        request = DumpRequest(
            prompts=tuple(p.all_prompts),
            negative_prompts=tuple(p.all_negative_prompts),
            seeds=tuple(p.all_seeds),
            sampler=str(p.sampler_name),
            steps=steps,
            model=str(getattr(p, "sd_model_name", None) or ""),
            guidance=getattr(p, "cfg_scale", None),
            blocks={row.block: asdict(row) for row in table},
        )
        return Generation(
            request,
            p.width,
            p.height,
            first.texts(tokens=tokens),
            first.steering,
            None if hires is None else (hires.texts(tokens=tokens), hires.steering),
        )

    def _ready(self) -> _Opened:
        assert self._opened is not None
        return self._opened

    def _tell_of_brackets(self) -> None:
        if not self._panel.layer_prompt.enabled and LEFT_OUT not in self._warnings:
            self._warnings.append(LEFT_OUT)

    def _show_base_prompts(self, p: Any) -> None:
        """Let the parameters of images without per-block prompts be those that make them."""
        for name in LISTS:
            if getattr(p, name, None):
                setattr(p, name, [self._ready().first.base(text) for text in getattr(p, name)])

    def _begin_pass(self, p: Any, reading: Reading, *, hires: bool) -> None:
        if not self.is_plain:
            reading.encode(self._images, encoder_state(p, hires=hires))
        self._hires = hires
        counter = compat.step_counter(compat.sampler_name(p, hires=hires))
        self._host.clock.begin(self._images.start, counter, hires=hires)

    def _hook(self, p: Any, state: object, denoiser: Any) -> None:
        """Put the hooks on the model; within a pass it is another one where a refiner has taken over."""
        module = compat.live_unet(shared.sd_model)
        changed = self._hooked is not None
        self._unhook()
        opened = self._ready()
        reading = opened.hires if self._hires and opened.hires is not None else opened.first
        if changed and not self.is_plain:
            reading.encode(self._images, state)
        if not self.is_plain:
            for name, branch in PROMPTS:
                reading.hear(self._images, branch, getattr(p, ("hr_" if self._hires else "") + name))
        unet = describe(module)
        hooks, clock = self._hooks.enter_context(HookSet()), self._host.clock
        hooks.before(denoiser.inner_model, clock.see_pass)
        hooks.after(denoiser.inner_model, clock.end_pass)
        hooks.before(module, clock.see_call)
        session = opened.session
        run = session.plain_run(unet) if self.is_plain else session.run(unet, hires=self._hires)
        self._hooks.enter_context(run)
        if self.is_plain and opened.plain is not None:
            self._hooks.enter_context(opened.plain.run(unet, hires=self._hires))
        self._hooked = id(module), state

    def _see_rows(self, params: Any, denoiser: Any) -> None:
        uncond = compat.rows_of(params.text_uncond)
        parts = compat.part_counts(denoiser, compat.rows_of(params.text_cond), len(self._images))
        self._host.clock.see_denoiser(denoiser.step, parts, uncond, len(params.x))

    def _give_up(self, error: Exception) -> None:
        """Look no more; where texts per block are asked for, let the U-Net's next call end the job."""
        self._unhook()
        problem = error if isinstance(error, DumpUNetError) else HostError(f"{type(error).__name__}: {error}")
        module = compat.live_unet(shared.sd_model)
        self._hooked = id(module), encoder_state(self._p, hires=self._hires)
        steers = any(reading.steering is not None for _, reading in self._ready().readings)
        if steers and not self.is_plain:
            self._hooks.enter_context(HookSet()).before(module, partial(_raise, problem))
        elif str(problem) not in map(str, self._ready().session.problems):
            self._ready().session.problems.append(problem)

    def _unhook(self) -> None:
        self._hooks.close()
        self._hooked = None
        self._host.clock.pause()

    def _close(self) -> list[DumpUNetError]:
        """Take everything off, finish what is queued; returns what went wrong."""
        self._unhook()
        problems: list[DumpUNetError] = []
        if self._opened is not None:
            opened, self._opened = self._opened, None
            opened.stack.close()
            sessions = (opened.session, opened.plain)
            problems = [problem for one in sessions if one is not None for problem in one.problems]
            problems += self._unseen(opened)
        self._ears.close()
        return problems

    def _hidden(self, outcome: Outcome) -> list[str]:
        """Say where pictures are that the page does not show."""
        if not self._gallery.count or self._shows != "saved":
            return []
        if outcome.saved:
            return [
                f"{outcome.saved} pictures were saved beside their images, as another script makes the gallery."
            ]
        return [
            "another script makes the gallery, and the images were not saved, so there is no place for pictures."
        ]

    def _unseen(self, opened: _Opened) -> list[DumpUNetError]:
        """Say why there is less than was asked for, where the sampler took fewer steps than it was expected to."""
        reached = self._host.clock.reached
        if shared.state.interrupted or shared.state.skipped or self._refusal is not None:
            return []
        if not any(reached.values()):
            return [HostError("the webui did not sample, or its U-Net was replaced, so nothing was seen")]
        if 0 < reached[False] < opened.first.steps:
            return [
                HostError(
                    f"sampling ended with step {reached[False]}, so nothing was seen of steps "
                    f"{reached[False] + 1}-{opened.first.steps}"
                )
            ]
        return [HostError(said) for said in self._of_tiles(opened)]

    def _of_tiles(self, opened: _Opened) -> Iterator[str]:
        """Say what was not looked at where the image was made of tiles."""
        clock = self._host.clock
        looks = self._settings.features.enabled or self._settings.attention.enabled
        if clock.tile is not None and looks:
            height, width = clock.tile
            yield (
                f"the image was made of tiles, and maps are of the first one alone ({width} x {height} cells of "
                "latents), not of the whole image"
            )
        if clock.has_regions and (looks or any(reading.steering for _, reading in opened.readings)):
            yield "regions of the image had prompts of their own, which were left as they are and not looked at"


def without_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Take out what only counts with per-block prompts, from the parameters of an image that has none."""
    return {
        name: value
        for name, value in parameters.items()
        if not name.startswith(wire.PREFIX) and value != TITLE
    }


def _rank(attention: AttentionSettings, p: Any, tag: Tag) -> int:
    """Find where a word or point stands: in the order typed, or where all words are shown, in that of the prompt."""
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


def _fill_negatives(p: Any, batch: int) -> None:
    """Give every image a negative prompt: Dynamic Prompts writes a single one beside the prompts of a Jinja loop.

    The webui would end the second batch with an error. The ones that there are come again in turn.
    """
    wanted = len(p.all_prompts)
    for name, usual in NEGATIVES.items():
        given = getattr(p, name, None)
        if given is not None and len(given) < wanted:
            setattr(p, name, list(islice(cycle(given or [getattr(p, usual)]), wanted)))
    if len(p.negative_prompts) < len(p.prompts):
        p.negative_prompts = p.all_negative_prompts[batch * p.batch_size : (batch + 1) * p.batch_size]


def _raise(error: Exception, *_: object, **__: object) -> None:
    raise error


def _seeded(p: Any) -> Any:
    """Make the source of noise for the seeds of a batch, as the webui does."""
    return rng.ImageRNG(
        p.rng.shape,
        p.seeds,
        subseeds=p.subseeds,
        subseed_strength=p.subseed_strength,
        seed_resize_from_h=p.seed_resize_from_h,
        seed_resize_from_w=p.seed_resize_from_w,
    )
