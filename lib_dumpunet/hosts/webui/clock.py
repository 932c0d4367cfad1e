"""The clock of the webui: the sampling step and batch rows of each U-Net call.

Before it calls the model, the denoiser tells which rows it is going to evaluate, prompts first. It splits them into
passes, depending on text lengths and settings, so a cursor advances along the rows by the size of each pass. An
extension that builds images from tiles calls the U-Net several times in a pass, each time with all rows of the pass for
one or more tiles. Forge and its successors have no passes: they say what each call consists of (`chunks`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lib_dumpunet.hosts.webui.chunks import Chunks
from lib_dumpunet.ports import BatchRow, ModelCall

NEVER = ModelCall(0, ())


class DenoiserClock:
    """The clock of one job.

    Hooks must call ``see_pass`` before each call of the denoiser's model, ``end_pass`` after it, and ``see_call``
    before each U-Net call.
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
        """Height and width of the first tile in latent pixels, if the image is built from tiles."""
        self._sees_whole = False
        self.has_regions = False
        """Whether regions of an image had their own prompts."""
        self.chunks: Chunks | None = None
        """The evaluation, on a webui that says what calls consist of."""
        self.evaluation = 0
        self.reached = {False: 0, True: 0}
        """The last sampled step of the first pass (False) and the hires pass (True)."""

    def now(self) -> ModelCall:
        """Return the current U-Net call."""
        return self._model_call

    def begin(self, first: int, step_of: Callable[[int], int], *, hires: bool) -> None:
        """Begin a pass; ``first`` is the number of the batch's first image."""
        self._first, self._step_of, self._hires = first, step_of, hires
        self.pause()

    def pause(self) -> None:
        """Belong to no step until the denoiser's next callback: U-Net calls until then are not the job's."""
        self._step, self._pass, self._model_call, self.chunks = 0, (), NEVER, None

    def see_denoiser(
        self, evaluation: int, parts: Sequence[int], uncond: int, total: int, chunks: Chunks | None = None
    ) -> None:
        """Note the rows that are going to be evaluated.

        Args:
            evaluation: number of earlier evaluations in this pass.
            parts: number of rows of each image's prompt.
            uncond: number of rows of negative prompts, one for each image.
            total: number of rows of latents; InstructPix2Pix has an additional row for each image at the end, without
                text.
            chunks: identifies rows if calls consist of chunks.
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
        self._rows, self._cursor, self.chunks = tuple(rows), 0, chunks
        self._model_call = NEVER

    def see_pass(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a call of the denoiser's model: its latents "row c h w" and its text embeddings."""
        latents = args[0] if args else next(iter(kwargs.values()))
        self._pass = self._rows[self._cursor : self._cursor + len(latents)]
        self._cursor += len(latents)
        self._size, self._texts = tuple(latents.shape[2:]), _texts(kwargs.get("cond"))

    def end_pass(self, _: object) -> None:
        """Belong to no rows until the next pass."""
        self._pass, self._texts, self._model_call = (), None, NEVER

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a U-Net call by its first argument, the latents "row c h w".

        A tile's text is compared with the pass's: a region with its own text is not captured.
        """
        self._model_call = NEVER
        latents = args[0] if args else next(iter(kwargs.values()))
        if self._step and self.chunks is not None:
            kinds = (kwargs.get("transformer_options") or {}).get("cond_or_uncond", ())
            self._model_call = self._of_chunks(self.chunks, latents, kwargs.get("context"), kinds)
            return
        if not self._step or not self._pass:
            return
        height, width = latents.shape[2:]
        rows = self._pass
        if len(latents) != len(rows) or (height, width) != self._size:
            count = max(1, len(latents) // len(rows))
            if not _repeats(kwargs.get("context"), self._texts, count):
                self.has_regions = True
                # Before any call with the image's own texts, the rows cannot be identified, so none are given.
                if self.tile is None and not self._sees_whole:
                    self._model_call = ModelCall(self._step, (), self._hires)
                return
            rows *= count
            if not self._sees_whole:
                self.tile = self.tile or (height, width)
        else:
            self._sees_whole = True  # DemoFusion begins with the whole image, before it uses tiles
        self._model_call = ModelCall(self._step, rows, self._hires)

    def _of_chunks(self, chunks: Chunks, latents: Tensor, context: object, kinds: Sequence[int]) -> ModelCall:
        owners = chunks.owners(latents, context, kinds)
        if owners is None:
            self.has_regions = True
            # After all of the image's own texts, another text is one beside them; before, it is in place of them.
            return NEVER if chunks.is_complete else ModelCall(self._step, (), self._hires)
        if not owners.is_tile:
            self._sees_whole = True
        elif not self._sees_whole:
            self.tile = self.tile or (latents.shape[2], latents.shape[3])
        return ModelCall(self._step, owners.rows, self._hires, owners.is_other)


def _texts(cond: Any) -> Tensor | None:
    """Find the text embeddings "row token dim" in what the denoiser passes: a tensor, a list or a dictionary."""
    if isinstance(cond, Mapping):
        cond = cond.get("crossattn", cond.get("c_crossattn"))
    if isinstance(cond, Sequence) and len(cond) == 1:
        cond = cond[0]
    return cond if isinstance(cond, Tensor) else None


def _repeats(texts: object, passed: Tensor | None, count: int) -> bool:
    """Return whether text embeddings "row token dim" are those of the pass repeated ``count`` times."""
    if not isinstance(texts, Tensor) or passed is None:
        return False
    return torch.equal(texts, passed.repeat(count, 1, 1))
