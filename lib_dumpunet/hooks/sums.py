"""Running sums of attention maps, whose memory does not grow with the number of steps and layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lib_dumpunet.ports import BatchRow

Size = tuple[int, int]
SumKind = Literal["word", "point"]


@dataclass(frozen=True)
class AttentionSum:
    """The sum of the maps "n h w" of all layers and steps that read one text, and their count."""

    text: str
    total: Tensor
    count: int


@dataclass
class _Sum:
    total: Tensor
    count: int = 1


class AttentionSums:
    """Sums each image's maps on their device, separately for each text and map resolution.

    Maps of "word" are "token h w", with all tokens of the text; maps of "point" are "point h w". All methods run on the
    sampling thread.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[BatchRow, SumKind], dict[tuple[str, Size], _Sum]] = {}

    @property
    def images(self) -> list[int]:
        """Images that have sums, unless forgotten."""
        return sorted({row.image for row, _ in self._sums})

    def add(self, row: BatchRow, kind: SumKind, maps: Tensor, text: str = "") -> None:
        """Add one layer's maps "n h w", float32; ``text`` is the text that the layer read.

        The same text may be padded to more tokens in one block than in another, to match longer texts; its own tokens
        come first, so only the common ones are kept.
        """
        sums = self._sums.setdefault((row, kind), {})
        key = (text, (maps.shape[1], maps.shape[2]))
        if key not in sums:
            sums[key] = _Sum(maps)
        elif len(sums[key].total) == len(maps):
            sums[key].total += maps
            sums[key].count += 1
        else:
            columns = min(len(sums[key].total), len(maps))
            sums[key] = _Sum(sums[key].total[:columns] + maps[:columns], sums[key].count + 1)

    def sums(self, row: BatchRow, kind: SumKind) -> Iterator[AttentionSum]:
        """Yield each text's sum on the CPU, at the highest layer resolution; smaller maps are interpolated."""
        by_text: dict[str, list[_Sum]] = {}
        parts = self._sums.get((row, kind), {})
        finest = max((size for _, size in parts), key=lambda size: size[0] * size[1], default=(0, 0))
        for (text, _), part in parts.items():
            by_text.setdefault(text, []).append(part)
        for text, same in by_text.items():
            columns = min(len(part.total) for part in same)
            resized = [
                interpolate(part.total[None, :columns].cpu(), finest, mode="bilinear", align_corners=False)[0]
                for part in same
            ]
            total = sum(resized[1:], start=resized[0])
            yield AttentionSum(text, total, sum(part.count for part in same))

    def mean(self, row: BatchRow, kind: SumKind) -> Tensor | None:
        """Return the mean map of the first text, every layer with the same weight: "n h w"; None without maps."""
        for part in self.sums(row, kind):
            return part.total / part.count
        return None

    def forget(self, image: int) -> None:
        """Release an image's sums, so that memory does not grow with the number of images."""
        self._sums = {key: value for key, value in self._sums.items() if key[0].image != image}


def mean_of(parts: Sequence[tuple[AttentionSum, tuple[int, ...]]]) -> Tensor:
    """Average a word's token maps over sums of several texts: "h w"; every layer has the same weight."""
    totals = torch.stack([part.total[list(columns)].mean(0) for part, columns in parts])
    return totals.sum(0) / sum(part.count for part, _ in parts)
