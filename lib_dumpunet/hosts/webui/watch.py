"""Install hooks on the model that samples for a job, following the denoiser's callbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

from modules import shared

from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.reading import Report
from lib_dumpunet.hosts.webui import compat
from lib_dumpunet.hosts.webui.chunks import Chunks
from lib_dumpunet.hosts.webui.clock import DenoiserClock
from lib_dumpunet.hosts.webui.family import family_of, live_unet
from lib_dumpunet.hosts.webui.passes import NAMES, PREFIXES
from lib_dumpunet.hosts.webui.reading import Reading, encoder_state
from lib_dumpunet.hosts.webui.steps import step_counter
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model

log = logging.getLogger("dumpunet")


@dataclass(frozen=True)
class Batch:
    """A batch of a job in one pass.

    Attributes:
        images: numbers of its images.
        reading: what their blocks read.
        hires: whether this is the second pass of a hires fix.
        encodes: whether to encode the texts of blocks.
        must_steer: whether images would be wrong without per-block texts.
        hooks: installs capturing and steering hooks on a model.
    """

    p: Any
    images: range
    reading: Reading
    hires: bool
    encodes: bool
    must_steer: bool
    hooks: Callable[[Model], AbstractContextManager[None]]

    @property
    def state(self) -> object:
        """The state of the text encoder for its texts."""
        return encoder_state(self.p, hires=self.hires)

    def encode(self, state: object) -> None:
        """Encode the texts of blocks."""
        if self.encodes:
            self.reading.encode(self.images, state)

    def hear(self) -> None:
        """Note the texts that the webui actually encoded."""
        if self.encodes:
            for name, branch in NAMES.items():
                said = getattr(self.p, PREFIXES[self.hires] + name)
                self.reading.hear(self.images, branch, said)


class Watch:
    """Follows the sampler of one job.

    Errors in capturing never affect the image. Errors in steering end the job, because an image with the wrong texts
    would be worse than none.
    """

    def __init__(self, clock: DenoiserClock, report: Report) -> None:
        self._clock, self._report = clock, report
        self._batch: Batch | None = None
        self._hooks = ExitStack()
        self._hooked: object = None

    def begin(self, batch: Batch) -> None:
        """Begin a pass, and encode the texts of its blocks."""
        self.rest()
        self._batch = batch
        counter = step_counter(batch.p, hires=batch.hires)
        self._clock.begin(batch.images.start, counter, hires=batch.hires)
        batch.encode(batch.state)

    def see_denoiser(self, params: Any) -> None:
        """Note the rows of the next evaluation; install the hooks if they are missing or the model has changed."""
        batch = self._batch
        denoiser: Any = None if batch is None else compat.denoiser_of(params, batch.p)
        if batch is None or not compat.is_own(denoiser, batch.p):
            self._clock.pause()
            return
        try:
            state = batch.state
            if self._hooked != (id(live_unet(shared.sd_model)), state):
                self._hook(batch, state, denoiser)
            uncond = compat.rows_of(params.text_uncond)
            parts = compat.part_counts(denoiser, compat.rows_of(params.text_cond), len(batch.images))
            has_chunks = family_of(shared.sd_model).has_chunks
            chunks = Chunks(batch.images.start, parts, params) if has_chunks else None
            self._clock.see_denoiser(denoiser.step, parts, uncond, len(params.x), chunks)
        except Exception as error:  # the webui would swallow it, and sample without steering
            log.debug("following the sampler failed", exc_info=True)
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """Stop capturing; if images need steering, make the U-Net's next call end the job."""
        batch = self._batch
        assert batch is not None
        self._unhook()
        problem = error if isinstance(error, DumpUNetError) else HostError(f"{type(error).__name__}: {error}")
        module = live_unet(shared.sd_model)
        self._hooked = id(module), batch.state
        if not batch.must_steer:
            self._report(problem)
            return

        def refuse(*_: object) -> None:
            raise problem

        self._hooks.enter_context(HookSet()).before(module, refuse)

    def rest(self) -> None:
        """Remove the hooks until the next pass."""
        self._unhook()
        self._batch = None

    def _hook(self, batch: Batch, state: object, denoiser: Any) -> None:
        """Install the hooks on the current model, which changes within a pass if a refiner takes over."""
        module = live_unet(shared.sd_model)
        changed = self._hooked is not None
        self._unhook()
        if changed:
            batch.encode(state)
        batch.hear()
        hooks, clock = self._hooks.enter_context(HookSet()), self._clock
        hooks.before(denoiser.inner_model, clock.see_pass)
        hooks.after(denoiser.inner_model, clock.end_pass)
        hooks.before(module, clock.see_call)
        self._hooks.enter_context(batch.hooks(describe(module)))
        self._hooked = id(module), state

    def _unhook(self) -> None:
        self._hooks.close()
        self._hooked = None
        self._clock.pause()
