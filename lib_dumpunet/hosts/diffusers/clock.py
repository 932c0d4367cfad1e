"""Time on diffusers: which sampling step, and whose rows, a U-Net call is about.

The scheduler is the authority. It knows its place in its own list of timesteps, while U-Net calls cannot be counted:
some samplers evaluate the U-Net twice a step, and a pipeline may be called several times.
"""

from __future__ import annotations

from typing import Any

import torch

from lib_dumpunet.errors import HostError, UnsupportedModelError
from lib_dumpunet.ports import Moment, Row


class SchedulerClock:
    """The clock of one pipeline; ``see_call`` must see the arguments of each U-Net call before it runs."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._moment = Moment(0, ())
        self._timesteps: Any = None
        self._begin = 0
        self._first = 0
        self._next = 0
        self.trouble: HostError | None = None

    def now(self) -> Moment:
        """Tell the moment of the U-Net call that is under way."""
        return self._moment

    def begin(self, image: int) -> None:
        """Number the images of the pipeline's next call from ``image`` on; without this, from the last one on."""
        self._next = image

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the latents and the timestep of a U-Net call.

        A call that cannot be placed belongs to no step, and the reason is kept in ``trouble``: someone else may use
        the same U-Net, and must not be disturbed.
        """
        try:
            self._moment = self._place(args, kwargs)
        except HostError as error:
            self._moment, self.trouble = Moment(0, ()), self.trouble or error

    def _place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Moment:
        sample = args[0] if args else kwargs["sample"]
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        scheduler = self._pipe.scheduler
        index = position(scheduler, timestep)
        if scheduler.timesteps is not self._timesteps:
            # `set_timesteps` makes a new tensor for each call of the pipeline, even one with the same steps.
            self._timesteps, self._begin = scheduler.timesteps, index
            self._first = self._next
        return Moment(step_of(scheduler, index - self._begin), self._rows(len(sample)))

    def _rows(self, batch: int) -> tuple[Row, ...]:
        """Attribute the batch: a pipeline puts the negative prompt's rows in front of the prompt's."""
        try:
            guided = bool(self._pipe.do_classifier_free_guidance)
        except AttributeError:
            raise HostError(
                f"the U-Net was called by something else than this {type(self._pipe).__name__}",
                remedy="Trace the pipeline that makes the images.",
            ) from None
        if guided and batch % 2:
            raise HostError(f"a batch of {batch} rows does not divide into prompt and negative prompt")
        images = range(self._first, self._first + (batch // 2 if guided else batch))
        self._next = images.stop
        cond = tuple(Row(image, "cond") for image in images)
        return tuple(Row(image, "uncond") for image in images) + cond if guided else cond


def require_plain(pipe: Any) -> None:
    """Make sure that a pipeline has a U-Net, whose rows are those of the prompts and negative prompts.

    Raises:
        HostError, UnsupportedModelError: if it is not so.
    """
    name = type(pipe).__name__
    if any(kind in name for kind in ("PAG", "InstructPix2Pix")):
        raise HostError(f"{name} adds rows of its own to the U-Net's batch", remedy="Use a plain pipeline.")
    if getattr(pipe, "unet", None) is None:
        raise UnsupportedModelError(f"{name} has no U-Net", remedy="Use a pipeline of SD 1.x, 2.x or XL.")


def position(scheduler: Any, timestep: Any) -> int:
    """Find the place of the running U-Net call in the scheduler's list of timesteps.

    Raises:
        HostError: if the scheduler does not know it and the timestep is none of its own.
    """
    for name in ("step_index", "counter"):
        value = getattr(scheduler, name, None)
        if value is not None:
            return int(value)
    # Before its first `step`, or (DDIM) always, a scheduler has no index; timesteps are distinct then.
    if scheduler.timesteps is None:
        raise HostError("the U-Net was called outside of a pipeline's sampling")
    timesteps = torch.as_tensor(scheduler.timesteps)
    value = torch.as_tensor(timestep).to(timesteps).flatten()[0]
    found = (timesteps == value).nonzero()
    if not len(found):
        raise HostError(f"timestep {value.item():g} is none of {type(scheduler).__name__}'s own")
    return int(found[0])


def step_of(scheduler: Any, index: int) -> int:
    """Turn a place among the timesteps, from 0, into the sampling step, from 1.

    Second-order schedulers list each timestep but the first twice. PNDM's linear multistep mode evaluates its first
    step twice, to get started.
    """
    if hasattr(scheduler, "counter"):
        return max(1, index)
    return index // int(scheduler.order) + 1
