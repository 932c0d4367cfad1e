"""The clock for diffusers: the sampling step of a U-Net call, and what its batch rows are.

The step comes from the scheduler's index into its timesteps. Counting U-Net calls would be wrong: some samplers
evaluate the U-Net twice a step, and a pipeline may be called several times.
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
    """The clock of one pipeline; ``see_call`` must get the arguments of each U-Net call before it runs."""

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
        """Error to report if every call was one that is not captured."""

    def now(self) -> ModelCall:
        """Return the current U-Net call."""
        return self._model_call

    def begin(self, image: int) -> None:
        """Number the images of the pipeline's next call from ``image`` on; by default, numbers continue."""
        self._next = image

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Find the step and rows of a U-Net call from its arguments.

        If this fails, the call gets step 0 and no rows, and the error is kept in ``trouble``, not raised: the call may
        be that of other code that uses the same U-Net.
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
            raise HostError(f"the U-Net is called with latents of {sample.ndim} axes instead of 4")
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
        """Attribute a call for some images only, or for the prompts only although there is guidance.

        It is not captured: Attend-and-Excite makes such calls in advance and discards their results.
        """
        self.passed_over = self._unknown()
        return ModelCall(0, ())

    def _alone(self, context: Any) -> tuple[BatchRow, ...]:
        """Attribute the rows of a call for some images only by their text embeddings "row token dim".

        Raises:
            HostError: if an embedding does not match exactly one image.
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
            "the pipeline calls its U-Net for one image alone, and its text does not tell which one",
            remedy="Generate one image at a time.",
        )

    def _are_alike(self, rows: Sequence[BatchRow]) -> bool:
        """Return whether any of the rows will do."""
        return len(rows) == 1

    def know(self, cond: Tensor, uncond: Tensor | None, *, apart: bool = False) -> None:
        """Set the text embeddings of the next images, each "image token dim"; ``uncond`` is None without guidance.

        ``apart`` says that prompts and negative prompts are evaluated in separate calls.
        """
        self._known = cond.detach(), None if uncond is None else uncond.detach()
        self._apart, self._asked = apart, None

    def _ordered(self, batch: int) -> tuple[BatchRow, ...]:
        """Attribute the batch by the pipeline's order: the negative prompt's rows come before the prompt's.

        InstructPix2Pix puts the prompt's rows first and has a third part, without text and image.
        """
        name = type(self._pipe).__name__
        try:
            guided = bool(self._pipe.do_classifier_free_guidance)
        except AttributeError:
            raise HostError(
                f"the U-Net was not called by this {name}",
                remedy="Trace the pipeline that generates the images.",
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
        """Attribute the batch by its text embeddings alone.

        Raises:
            HostError: if the embeddings are not those of ``know``.
        """
        branches = self._branches(context)
        if branches is None:
            raise self._unknown()
        return self._rows(branches)

    def _branches(self, context: Any) -> tuple[Branch, ...] | None:
        """Tell prompts and negative prompts apart by their text embeddings "row token dim", one row for each image.

        If both are equal, the pipeline's usual order decides. None if the embeddings are not those of ``know``.
        """
        if self._known is None or not isinstance(context, Tensor):
            return None
        # Comparing synchronizes the GPU, and most pipelines pass the same tensor in each step.
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
            f"the U-Net's batch rows of {type(self._pipe).__name__} cannot be identified by their text",
            remedy="Use a plain pipeline of SD 1.x, 2.x or XL.",
        )


def _same(part: Tensor, text: Tensor) -> bool:
    return part.shape == text.shape and torch.equal(part, text.to(part))


def position(scheduler: Any, timestep: Any) -> int:
    """Return the index of the current U-Net call in the scheduler's timesteps.

    Raises:
        HostError: if the scheduler has no index and the timestep is not in its list.
    """
    for name in ("step_index", "counter"):
        value = getattr(scheduler, name, None)
        if value is not None:
            return int(value)
    # A scheduler has no index before its first `step` (DDIM: never); its timesteps are distinct then.
    if scheduler.timesteps is None:
        raise HostError("the U-Net was called outside a pipeline's sampling")
    timesteps = torch.as_tensor(scheduler.timesteps)
    value = torch.as_tensor(timestep).to(timesteps).flatten()[0]
    found = (timesteps == value).nonzero()
    if not len(found):
        raise HostError(f"timestep {value.item():g} is not one of {type(scheduler).__name__}'s timesteps")
    return int(found[0])


def step_of(scheduler: Any, index: int) -> int:
    """Convert an index of the timesteps, from 0, to the sampling step, from 1.

    Second-order schedulers list each timestep except the first twice. PNDM's linear multistep mode evaluates its
    first step twice.
    """
    if hasattr(scheduler, "counter"):
        return max(1, index)
    return index // int(scheduler.order) + 1
