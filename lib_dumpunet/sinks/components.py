"""The first three principal components of self-attention, with one basis for all steps and images of a run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.spool import Spool

COMPONENTS = 3
_Layer = tuple[str, int, tuple[int, ...]]


class ComponentsSink(Sink):
    """Reduce each position's self-attention to three components, so that similar positions get similar colours.

    All maps of a layer in a run share one basis, so that pictures of different steps are comparable. All maps must
    therefore have come before the first can be drawn; until then they wait on disk, in a file that the system removes
    however the run ends, and memory holds one sum for each layer.

    On ``close``, the components go to the sinks after this one.

    Args:
        folder: where to create the file; None for the system's folder for temporary files.
    Raises:
        HostError: if the file cannot be created.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._spool = Spool("the maps of self-attention", folder)
        self._lock = threading.Lock()
        self._moments: dict[_Layer, _Moments] = {}

    def accept(self, capture: Capture) -> None:
        """Set a map aside.

        Raises:
            HostError: if the disk is full, or the map contains NaN or infinity.
        """
        if capture.tag.kind != "pooled_self":
            return
        looks = capture.tensor.float()
        if not looks.isfinite().all():
            raise HostError(
                f"self-attention of {capture.tag.block} contains NaN or infinity at step {capture.tag.when}, "
                "so it has no components",
                remedy="The model overflows: try another dtype, such as bf16 or fp32.",
            )
        with self._lock:
            self._moments.setdefault(_layer(capture.tag, looks), _Moments()).add(
                looks.flatten(0, 1).flatten(1)
            )
        self._spool.put(capture.tag, looks)

    def close(self) -> Iterator[Capture]:
        """Yield the components of all maps.

        Raises:
            HostError: if the file cannot be read.
        """
        with closing(self._spool):
            bases = {layer: moments.basis() for layer, moments in self._moments.items()}
            for tag in self._spool.tags:
                looks = self._spool.read(tag)
                assert looks is not None
                maps = bases[_layer(tag, looks)].components(looks)
                yield Capture(replace(tag, kind="pca"), maps)


@dataclass(frozen=True)
class Basis:
    """Mean "part" and principal axes "part component" of a layer, scaled to a variance of 1 over the run."""

    mean: Tensor
    vectors: Tensor

    def components(self, looks: Tensor) -> Tensor:
        """Project "h w row column" onto the components: "component h w"."""
        parts = looks.flatten(2).double() - self.mean
        return (parts @ self.vectors).permute(2, 0, 1).float().contiguous()


@dataclass
class _Moments:
    """Count of positions, and sums over them of their parts and of products of their parts."""

    count: int = 0
    first: Tensor = field(default_factory=lambda: torch.zeros(()))
    second: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, looks: Tensor) -> None:
        """Add "position part"."""
        exact = looks.double()
        self.count += len(exact)
        self.first = self.first + exact.sum(0)
        self.second = self.second + exact.T @ exact

    def basis(self) -> Basis:
        """Return the axes of largest variance; the sign of each is fixed, so that runs are reproducible."""
        mean = self.first / self.count
        values, vectors = torch.linalg.eigh(self.second / self.count - mean[:, None] * mean)
        values, vectors = values.flip(0)[:COMPONENTS], vectors.flip(1)[:, :COMPONENTS]
        signs = torch.sign(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)))
        # A variance of 0 can come out as about 1e-16 by rounding.
        scales = torch.where(values > 1e-12, values.clamp(min=1e-12).rsqrt(), torch.zeros_like(values))
        scaled = vectors * signs * scales
        return Basis(mean, torch.nn.functional.pad(scaled, (0, COMPONENTS - scaled.shape[1])))


def _layer(tag: Tag, looks: Tensor) -> _Layer:
    """Return the key of maps that share a basis; images of different sizes may have different parts."""
    return tag.block, tag.layer, tuple(looks.shape[2:])
