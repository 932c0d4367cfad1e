"""Time on diffusers: which sampling step, and whose rows, a U-Net call is about.

The scheduler is the authority. It knows its place in its own list of timesteps, while U-Net calls cannot be counted:
some samplers evaluate the U-Net twice a step, and a pipeline may be called several times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lib_dumpunet.captures import Branch
from lib_dumpunet.errors import HostError
from lib_dumpunet.hosts.diffusers.pipelines import hides_guidance, is_a
from lib_dumpunet.ports import BatchRow, ModelCall


class SchedulerClock:
    """The clock of one pipeline; ``see_call`` must see the arguments of each U-Net call before it runs."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._model_call = ModelCall(0, ())
        self._timesteps: Any = None
        self._begin = 0
        self._first = 0
        self._next = 0
        self._known: tuple[Tensor, Tensor | None] | None = None
        self._apart = False
        self._asked: Tensor | None = None
        self._answer: tuple[Branch, ...] | None = None
        self.trouble: HostError | None = None
        self.passed_over: HostError | None = None
        """What to say of calls that were not looked at, if there were no others."""

    def now(self) -> ModelCall:
        """Return the U-Net call that is under way."""
        return self._model_call

    def begin(self, image: int) -> None:
        """Number the images of the pipeline's next call from ``image`` on; without this, from the last one on."""
        self._next = image

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the latents and the timestep of a U-Net call.

        A call that cannot be placed belongs to no step, and the reason is kept in ``trouble``: someone else may use
        the same U-Net, and must not be disturbed.
        """
        try:
            self._model_call = self._place(args, kwargs)
        except HostError as error:
            self._model_call, self.trouble = ModelCall(0, ()), self.trouble or error

    def _place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModelCall:
        sample = args[0] if args else kwargs["sample"]
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        context = args[2] if len(args) > 2 else kwargs.get("encoder_hidden_states")
        scheduler = self._pipe.scheduler
        index = position(scheduler, timestep)
        if scheduler.timesteps is not self._timesteps:
            # `set_timesteps` makes a new tensor for each call of the pipeline, even one with the same steps.
            self._timesteps, self._begin = scheduler.timesteps, index
            self._first = self._next
        if sample.ndim != 4:
            raise HostError(f"the U-Net is called with latents of {sample.ndim} axes where 4 were expected")
        step = step_of(scheduler, index - self._begin)
        if not hides_guidance(self._pipe):
            guided = getattr(self._pipe, "do_classifier_free_guidance", False)
            branches = self._branches(context) if guided else None
            rows = self._ordered(len(sample)) if branches is None else self._rows(branches)
            return ModelCall(step, rows)
        if self._known is None:
            return ModelCall(step, self._compared(context))
        cond, uncond = self._known
        if len(sample) < len(cond):
            return self._probed(step, lambda: self._alone(context))
        rows = self._compared(context)
        if uncond is not None and len(rows) == len(cond) and not self._apart:
            return self._probed(step, lambda: rows)
        return ModelCall(step, rows)

    def _probed(self, step: int, rows: Callable[[], tuple[BatchRow, ...]]) -> ModelCall:
        """Place a call for some images alone, or for the prompts alone where there is guidance.

        Attend-and-Excite looks ahead so and throws away what comes out, hence nobody is to look at it.
        """
        self.passed_over = self._unknown()
        return ModelCall(0, ())

    def _alone(self, context: Any) -> tuple[BatchRow, ...]:
        """Find the rows of a call for some images alone by their texts "row token dim".

        Raises:
            HostError: if a text is none of theirs.
        """
        assert self._known is not None
        texts: dict[Branch, Tensor | None] = dict(zip(("cond", "uncond"), self._known, strict=True))
        return tuple(self._row_of(text, texts) for text in context)

    def _row_of(self, text: Tensor, texts: Mapping[Branch, Tensor | None]) -> BatchRow:
        for branch, known in texts.items():
            fitting = [i for i, one in enumerate(() if known is None else known) if _same(one, text)]
            if fitting and self._are_alike([BatchRow(i, branch) for i in fitting]):
                return BatchRow(fitting[0], branch)
        raise HostError(
            "the pipeline calls its U-Net for one image alone, and it cannot be told which it is",
            remedy="Make one image at a time.",
        )

    def _are_alike(self, rows: Sequence[BatchRow]) -> bool:
        """Return whether either of some rows will do."""
        return len(rows) == 1

    def know(self, cond: Tensor, uncond: Tensor | None, *, apart: bool = False) -> None:
        """Take the texts of the images to come, each "image token dim"; no ``uncond`` where nothing is guided.

        ``apart`` tells that prompts and negative prompts are evaluated in calls of their own.
        """
        self._known = cond.detach(), None if uncond is None else uncond.detach()
        self._apart, self._asked = apart, None

    def _ordered(self, batch: int) -> tuple[BatchRow, ...]:
        """Attribute the batch by the pipeline's order: the negative prompt's rows are in front of the prompt's.

        InstructPix2Pix has a third part, without text and picture, and the prompt's rows in front.
        """
        name = type(self._pipe).__name__
        try:
            guided = bool(self._pipe.do_classifier_free_guidance)
        except AttributeError:
            raise HostError(
                f"the U-Net was called by something else than this {name}",
                remedy="Trace the pipeline that makes the images.",
            ) from None
        parts: tuple[tuple[Branch, int], ...] = (("uncond", 0), ("cond", 0)) if guided else (("cond", 0),)
        if guided and is_a(self._pipe, "InstructPix2Pix"):
            parts = (("cond", 0), ("uncond", 0), ("uncond", 1))
        if batch % len(parts):
            raise HostError(f"a batch of {batch} rows does not divide into the {len(parts)} parts of {name}")
        images = range(self._first, self._first + batch // len(parts))
        self._next = images.stop
        return tuple(BatchRow(image, branch, part) for branch, part in parts for image in images)

    def _compared(self, context: Any) -> tuple[BatchRow, ...]:
        """Attribute the batch by its texts alone.

        Raises:
            HostError: if they are others than were heard of.
        """
        branches = self._branches(context)
        if branches is None:
            raise self._unknown()
        return self._rows(branches)

    def _branches(self, context: Any) -> tuple[Branch, ...] | None:
        """Tell prompts and negative prompts apart by their texts "row token dim", as many rows at a time as images.

        Where both are the same, either will do, and the pipeline's usual order decides. None where texts are others
        than were heard of.
        """
        if self._known is None or not isinstance(context, Tensor):
            return None
        # Comparing makes a GPU wait, and most pipelines pass the same tensor in each step.
        if context is not self._asked:
            self._asked, self._answer = context, self._matching(context, *self._known)
        return self._answer

    def _matching(self, context: Tensor, cond: Tensor, uncond: Tensor | None) -> tuple[Branch, ...] | None:
        texts: dict[Branch, Tensor | None] = {"uncond": uncond, "cond": cond}
        branches: list[Branch] = []
        for part in context.split(len(cond)):
            fitting = [b for b, text in texts.items() if text is not None and _same(part, text)]
            branches += [b for b in fitting if b not in branches][:1] or fitting[:1]
        return tuple(branches) if len(branches) * len(cond) == len(context) else None

    def _rows(self, branches: Sequence[Branch]) -> tuple[BatchRow, ...]:
        assert self._known is not None
        images = range(self._first, self._first + len(self._known[0]))
        self._next = images.stop
        return tuple(BatchRow(image, branch) for branch in branches for image in images)

    def _unknown(self) -> HostError:
        return HostError(
            f"whose rows {type(self._pipe).__name__} gives to the U-Net cannot be told by their texts",
            remedy="Use a plain pipeline of SD 1.x, 2.x or XL.",
        )


def _same(part: Tensor, text: Tensor) -> bool:
    return part.shape == text.shape and torch.equal(part, text.to(part))


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
