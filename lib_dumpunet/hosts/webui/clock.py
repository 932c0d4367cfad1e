"""Time in the webui: which step, and whose rows, a U-Net call is about.

The denoiser tells, before it calls the U-Net, which rows it is going to evaluate, prompts first; how it cuts them into
calls depends on the lengths of the texts and on settings. So a cursor goes along the rows by each call's own size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lib_dumpunet.ports import Moment, Row

NEVER = Moment(0, ())


class DenoiserClock:
    """The clock of one job; ``see_call`` must see the arguments of each U-Net call before it runs."""

    def __init__(self) -> None:
        self._step_of: Callable[[int], int] = lambda evaluation: evaluation + 1
        self._first, self._hires = 0, False
        self._step = 0
        self._rows: tuple[Row, ...] = ()
        self._cursor = 0
        self._moment = NEVER
        self.evaluation = 0
        self.reached = {False: 0, True: 0}
        """The last step that was sampled, by pass: not hires, hires."""

    def now(self) -> Moment:
        """Tell the moment of the U-Net call that is under way."""
        return self._moment

    def begin(self, first: int, step_of: Callable[[int], int], *, hires: bool) -> None:
        """Begin a pass; ``first`` is the number of the batch's first image."""
        self._first, self._step_of, self._hires = first, step_of, hires
        self.pause()

    def pause(self) -> None:
        """Belong to no step, until the denoiser tells again: what calls the U-Net meanwhile is not the job."""
        self._step, self._moment = 0, NEVER

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
            Row(self._first + image, "cond", part)
            for image, count in enumerate(parts)
            for part in range(count)
        ]
        negative = [Row(self._first + image, "uncond") for image in range(uncond)]
        while len(rows) < total and negative:
            rows += negative
        self._rows, self._cursor = tuple(rows), 0
        self._moment = NEVER

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a U-Net call by its latents, the first argument "row c h w".

        Where there are more calls than rows, as with images that are made of tiles, the rows come again.
        """
        if not self._step:
            return
        count = len(args[0] if args else next(iter(kwargs.values())))
        if self._cursor >= len(self._rows):
            self._cursor = 0
        rows = self._rows[self._cursor : self._cursor + count]
        self._cursor += count
        self._moment = Moment(self._step, rows, self._hires)
