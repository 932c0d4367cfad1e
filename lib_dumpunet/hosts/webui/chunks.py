"""Whose the rows of a U-Net call are, on webuis that build a call from chunks: Forge and its successors.

A chunk has a row for each image, and all its rows are of one kind. The webui says which kind ("cond_or_uncond"), but
not which part of a prompt, and guidance methods make calls of their own, of the negative prompt called the prompt or of
another image. So each chunk's text is compared with the texts that are being evaluated, and the latents with the
image's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib_dumpunet.captures import Branch
from lib_dumpunet.hosts.webui import compat
from lib_dumpunet.ports import BatchRow

COND = 0
"""The prompt's kind among those of a call."""
CLOSE = 0.02
"""How far latents may be from the image's, relative to the largest: half precision rounds."""


class Owners(NamedTuple):
    """Whose the rows of a call are; ``is_tile`` if they show parts of the images, ``is_other`` if not the images."""

    rows: tuple[BatchRow, ...]
    is_tile: bool
    is_other: bool


class _Text(NamedTuple):
    """The texts of all images "image token dim", in one branch and part."""

    branch: Branch
    part: int
    context: Tensor


class Chunks:
    """One evaluation of the model.

    Args:
        first: number of the first image.
        parts: number of AND parts of each image's prompt; the image with the fewest decides for all.
        params: what the webui tells its callbacks. Other extensions may still change it, so it is read when the U-Net
            is called.
    """

    def __init__(self, first: int, parts: Sequence[int], params: Any) -> None:
        self._starts = [sum(parts[:image]) for image in range(len(parts))]
        self._params = params
        self.images = range(first, first + len(parts))
        self.parts = min(parts, default=0)
        self._last = self.parts
        """The part that came last; they come in descending order."""
        self._missing = set(range(self.parts))

    @property
    def is_complete(self) -> bool:
        """Whether all parts of the prompts have come."""
        return not self._missing

    @property
    def lengths(self) -> dict[Branch, int]:
        """The number of tokens of the prompts' texts and of the negative prompts'."""
        cond, uncond = self._params.text_cond, self._params.text_uncond
        found: dict[Branch, int] = {"cond": compat.context(cond).shape[1]}
        return found if uncond is None else {**found, "uncond": compat.context(uncond).shape[1]}

    def owners(self, latents: Tensor, context: object, kinds: Sequence[int]) -> Owners | None:
        """Identify the rows of a call by its latents "row c h w" and texts "row token dim"; None if that fails."""
        size = len(kinds) * len(self.images)
        if not size or len(latents) % size or not isinstance(context, Tensor) or len(context) != len(latents):
            return None
        tiles = len(latents) // size
        image = self._params.x
        is_tile = tiles > 1 or latents.shape[2:] != image.shape[2:]
        chunks, texts = context[:size].chunk(len(kinds)), list(self._texts())
        tests = [_is_text(chunk, text.context) for chunk in chunks for text in texts]
        tests.append((context.unflatten(0, (tiles, size)) == context[:size]).all())
        tests.append(
            context.new_ones((), dtype=torch.bool) if is_tile else _is_image(latents, image, len(kinds))
        )
        *same, repeats, is_own = torch.stack(tests).tolist()  # waits for the device, so once
        matches = [
            [text for text, is_same in zip(texts, same[start : start + len(texts)], strict=True) if is_same]
            for start in range(0, len(same), len(texts))
        ]
        owners = self._choose(kinds, matches, is_tile=is_tile) if repeats else None
        if owners is None:
            return None
        self._missing -= {owner.part for owner in owners if owner.branch == "cond" and is_own}
        rows = tuple(BatchRow(image, owner.branch, owner.part) for owner in owners for image in self.images)
        return Owners(rows * tiles, is_tile, not is_own)

    def _texts(self) -> Iterator[_Text]:
        cond = compat.context(self._params.text_cond)
        for part in range(self.parts):
            yield _Text("cond", part, cond[[start + part for start in self._starts]])
        if self._params.text_uncond is not None:
            yield _Text("uncond", 0, compat.context(self._params.text_uncond))

    def _choose(
        self, kinds: Sequence[int], matches: Sequence[Sequence[_Text]], *, is_tile: bool
    ) -> list[_Text] | None:
        """Choose one of the texts that each chunk matches; None if a chunk has none, or could be either of two."""
        has_all = kinds.count(COND) >= self.parts
        if has_all:
            self._last = self.parts
        chosen: list[_Text] = []
        for kind, found in zip(kinds, matches, strict=True):
            branch: Branch = "cond" if kind == COND else "uncond"
            named = [text for text in found if text.branch == branch] or found
            if not named or (len(named) > 1 and is_tile and not has_all):
                return None
            owner = next((text for text in reversed(named) if text.part < self._last), named[-1])
            if owner.branch == "cond":
                self._last = owner.part
            chosen.append(owner)
        return chosen


def _is_text(chunk: Tensor, text: Tensor) -> Tensor:
    """Compare a chunk's texts with others "image token dim", which may be repeated in it; return a boolean tensor."""
    copies, rest = divmod(chunk.shape[1], text.shape[1])
    if rest or chunk.shape[::2] != text.shape[::2]:
        return chunk.new_zeros((), dtype=torch.bool)
    return (chunk == text.to(chunk).repeat(1, copies, 1)).all()


def _is_image(latents: Tensor, image: Tensor, chunks: int) -> Tensor:
    """Return a boolean tensor: whether latents "chunk*image c h w" are a multiple of the image's.

    Inpainting models get channels after the image's.
    """
    given = latents[:, : image.shape[1]].float().flatten(1)
    own = image.to(given).repeat(chunks, 1, 1, 1).flatten(1)
    scale = (given * own).sum(1, keepdim=True) / (own * own).sum(1, keepdim=True)
    return (given - scale * own).abs().max() <= CLOSE * given.abs().max()
