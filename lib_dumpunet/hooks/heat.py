"""Running sums of attention: one map for a whole run, whatever the number of steps and layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn.functional import interpolate

from lib_dumpunet.errors import HostError
from lib_dumpunet.ports import Row

Size = tuple[int, int]
HeatKind = Literal["word", "point"]


@dataclass
class _Sum:
    total: Tensor
    count: int = 1


class Heat:
    """Sums maps of one image as they come, on the device where they are, one sum for each resolution of the layers.

    The maps of "word" are "token h w", of all columns of the text; those of "point" are "point h w". They are added
    and taken on the sampling thread.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[Row, HeatKind], dict[Size, _Sum]] = {}

    @property
    def images(self) -> list[int]:
        """Images of which something has come that was not forgotten."""
        return sorted({row.image for row, _ in self._sums})

    def add(self, row: Row, kind: HeatKind, maps: Tensor) -> None:
        """Add one layer's maps "n h w", float32.

        Raises:
            HostError: if there were another number of maps before: the columns of two texts cannot be added.
        """
        sums = self._sums.setdefault((row, kind), {})
        before = next(iter(sums.values())).total if sums else maps
        if len(before) != len(maps):
            raise HostError(
                f"the text has {len(maps)} tokens where it had {len(before)} before, so words cannot be summed up"
            )
        size = (maps.shape[1], maps.shape[2])
        if size not in sums:
            sums[size] = _Sum(maps)
        else:
            sums[size].total += maps
            sums[size].count += 1

    def mean(self, row: Row, kind: HeatKind) -> Tensor | None:
        """Average what came, each layer with the same weight, at the finest layer's resolution, on the CPU.

        Coarser maps are interpolated. Returns "n h w", None if nothing came.
        """
        sums = self._sums.get((row, kind))
        if not sums:
            return None
        finest = max(sums, key=lambda size: size[0] * size[1])
        resized = (
            interpolate(part.total.cpu()[None], finest, mode="bilinear", align_corners=False)[0]
            for part in sums.values()
        )
        return sum(resized, start=sums[finest].total.new_zeros((), device="cpu")) / sum(
            part.count for part in sums.values()
        )

    def forget(self, image: int) -> None:
        """Let go of an image's sums: memory must not grow with the number of images."""
        self._sums = {key: value for key, value in self._sums.items() if key[0].image != image}
