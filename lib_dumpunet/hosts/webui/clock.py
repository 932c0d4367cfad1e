"""Time in the webui: which step, and whose rows, a U-Net call is about.

The denoiser tells, before it calls the model, which rows it is going to evaluate, prompts first; how it cuts them into
passes depends on the lengths of the texts and on settings. So a cursor goes along the rows by each pass's own size.
An extension that makes images of tiles calls the U-Net several times in a pass, each time with all rows of it for one
tile after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lib_dumpunet.errors import HostError
from lib_dumpunet.ports import BatchRow, ModelCall

NEVER = ModelCall(0, ())


class DenoiserClock:
    """The clock of one job.

    ``see_pass`` must see the arguments of each call of the denoiser's model before it runs, ``end_pass`` its end, and
    ``see_call`` those of each U-Net call.
    """

    def __init__(self) -> None:
        self._step_of: Callable[[int], int] = lambda evaluation: evaluation + 1
        self._first, self._hires = 0, False
        self._step = 0
        self._rows: tuple[BatchRow, ...] = ()
        self._cursor = 0
        self._pass: tuple[BatchRow, ...] = ()
        self._size: tuple[int, ...] = ()
        self._texts: Tensor | None = None
        self._model_call = NEVER
        self.tile: tuple[int, int] | None = None
        """Height and width in cells of the first tile, where an image is made of tiles."""
        self._sees_whole = False
        self.has_regions = False
        """Whether parts of an image had a text of their own."""
        self.evaluation = 0
        self.reached = {False: 0, True: 0}
        """The last step that was sampled, by pass: not hires, hires."""

    def now(self) -> ModelCall:
        """Return the U-Net call that is under way."""
        return self._model_call

    def begin(self, first: int, step_of: Callable[[int], int], *, hires: bool) -> None:
        """Begin a pass; ``first`` is the number of the batch's first image."""
        self._first, self._step_of, self._hires = first, step_of, hires
        self.pause()

    def pause(self) -> None:
        """Belong to no step, until the denoiser tells again: what calls the U-Net meanwhile is not the job."""
        self._step, self._pass, self._model_call = 0, (), NEVER

    def see_denoiser(self, evaluation: int, parts: Sequence[int], uncond: int, total: int) -> None:
        """Note what is going to be evaluated.

        Args:
            evaluation: how many there were in this pass before.
            parts: rows of each image's prompt.
            uncond: rows of the negative prompt, one for each image.
            total: rows of the latents; InstructPix2Pix has another one for each image at the end, without text.
        """
        self.evaluation = evaluation
        self._step = self._step_of(evaluation)
        self.reached[self._hires] = max(self.reached[self._hires], self._step)
        rows = [
            BatchRow(self._first + image, "cond", part)
            for image, count in enumerate(parts)
            for part in range(count)
        ]
        negative = [BatchRow(self._first + image, "uncond") for image in range(uncond)]
        while len(rows) < total and negative:
            rows += negative
        self._rows, self._cursor = tuple(rows), 0
        self._model_call = NEVER

    def see_pass(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a call of the denoiser's model: its latents "row c h w", and its texts."""
        latents = args[0] if args else next(iter(kwargs.values()))
        self._pass = self._rows[self._cursor : self._cursor + len(latents)]
        self._cursor += len(latents)
        self._size, self._texts = tuple(latents.shape[2:]), _texts(kwargs.get("cond"))

    def end_pass(self, _: object) -> None:
        """Belong to no rows until the next pass."""
        self._pass, self._texts, self._model_call = (), None, NEVER

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a U-Net call by its latents, the first argument "row c h w".

        A tile's text is compared with that of the pass: a region may have one of its own, and is not looked at.
        """
        self._model_call = NEVER
        if not self._step or not self._pass:
            return
        latents = args[0] if args else next(iter(kwargs.values()))
        height, width = latents.shape[2:]
        rows = self._pass
        if len(latents) != len(rows) or (height, width) != self._size:
            count = max(1, len(latents) // len(rows))
            if not _repeats(kwargs.get("context"), self._texts, count):
                self.has_regions = True
                # Without any call of the image's own texts it is not known what this is about: no row is told.
                if self.tile is None and not self._sees_whole:
                    self._model_call = ModelCall(self._step, (), self._hires)
                return
            rows *= count
            if not self._sees_whole:
                self.tile = self.tile or (height, width)
        else:
            self._sees_whole = True  # as DemoFusion begins, before it goes on with tiles
        self._model_call = ModelCall(self._step, rows, self._hires)


def _texts(cond: Any) -> Tensor | None:
    """Find the texts "row token dim" that the denoiser passes on: by themselves, in a list, or under a name."""
    if isinstance(cond, Mapping):
        cond = cond.get("crossattn", cond.get("c_crossattn"))
    if isinstance(cond, Sequence) and len(cond) == 1:
        cond = cond[0]
    return cond if isinstance(cond, Tensor) else None


def _repeats(texts: object, passed: Tensor | None, count: int) -> bool:
    """Return whether texts "row token dim" are those of a pass, a number of times."""
    if not isinstance(texts, Tensor) or passed is None:
        return False
    return torch.equal(texts, passed.repeat(count, 1, 1))


def not_followed() -> HostError:
    """Make the error of webuis that put rows together in their own way."""
    return HostError(
        "Forge and webuis made of it (reForge, Classic, Neo) put the rows of a batch together in a way that is not "
        "followed yet",
        remedy="Use AUTOMATIC1111's webui, or the studio.",
    )
