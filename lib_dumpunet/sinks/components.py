"""The first three principal components of self-attention, by one basis for all steps and images of a run."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

import torch
from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.sinks.files import explain

COMPONENTS = 3
_Layer = tuple[str, int, tuple[int, ...]]


class ComponentsSink:
    """Turn what each place of a layer looks at into three numbers, so that places that look alike get like colours.

    The basis is that of all maps of the layer in a run, or pictures of different steps would not compare. So all must
    have come before the first can be drawn; until then they wait on disk, in a file that the system removes however
    the run ends, and memory holds one sum for each layer.

    The components go to the sinks behind this one, when it is closed.

    Args:
        folder: where the file is made; None for the system's folder for temporary files.
    Raises:
        HostError: if it cannot be made.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder or tempfile.gettempdir()
        self._lock = threading.Lock()
        with self._told():
            self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115  # close() closes it
                prefix="dumpunet-", dir=self._folder
            )
        self._stored: dict[Tag, tuple[int, torch.Size]] = {}
        self._moments: dict[_Layer, _Moments] = {}

    def accept(self, capture: Capture) -> None:
        """Put a map aside.

        Raises:
            HostError: the disk is full.
        """
        if capture.tag.kind != "gaze":
            return
        looks = capture.tensor.float()
        with self._lock, self._told():
            position = self._file.seek(0, 2)
            self._file.write(looks.contiguous().numpy().data)
            self._moments.setdefault(_layer(capture.tag, looks), _Moments()).add(
                looks.flatten(0, 1).flatten(1)
            )
            self._stored[capture.tag] = (position, looks.shape)

    def close(self) -> Iterator[Capture]:
        """Give the components of all maps.

        Raises:
            HostError: the file cannot be read.
        """
        with self._file, self._told():
            bases = {layer: moments.basis() for layer, moments in self._moments.items()}
            for tag in sorted(self._stored):
                looks = self._read(tag)
                maps = bases[_layer(tag, looks)].components(looks)
                yield Capture(Tag(tag.image, tag.step, tag.block, "pca", tag.site), maps)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem, remedy = explain(error)
            raise HostError(
                f"the components of self-attention could not be put aside in {self._folder}, {problem}",
                remedy=remedy,
            ) from error

    def _read(self, tag: Tag) -> Tensor:
        position, shape = self._stored[tag]
        self._file.seek(position)
        return torch.frombuffer(bytearray(self._file.read(4 * shape.numel())), dtype=torch.float32).view(
            shape
        )


@dataclass(frozen=True)
class Basis:
    """Mean "part" and components "part component" of a layer, which are scaled to a variance of 1 over the run."""

    mean: Tensor
    vectors: Tensor

    def components(self, looks: Tensor) -> Tensor:
        """Bring "h w row column" to "component h w"."""
        parts = looks.flatten(2).double() - self.mean
        return (parts @ self.vectors).permute(2, 0, 1).float().contiguous()


@dataclass
class _Moments:
    """Sums over places: how many, of their parts, and of the products of their parts."""

    count: int = 0
    first: Tensor = field(default_factory=lambda: torch.zeros(()))
    second: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, looks: Tensor) -> None:
        """Add "place part"."""
        exact = looks.double()
        self.count += len(exact)
        self.first = self.first + exact.sum(0)
        self.second = self.second + exact.T @ exact

    def basis(self) -> Basis:
        """Find the directions of the largest variance; the sign of each is set, so that a run gives the same again."""
        mean = self.first / self.count
        values, vectors = torch.linalg.eigh(self.second / self.count - mean[:, None] * mean)
        values, vectors = values.flip(0)[:COMPONENTS], vectors.flip(1)[:, :COMPONENTS]
        signs = torch.sign(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)))
        # Rounding leaves a variance of about 1e-16 where there is none.
        scales = torch.where(values > 1e-12, values.clamp(min=1e-12).rsqrt(), torch.zeros_like(values))
        scaled = vectors * signs * scales
        return Basis(mean, torch.nn.functional.pad(scaled, (0, COMPONENTS - scaled.shape[1])))


def _layer(tag: Tag, looks: Tensor) -> _Layer:
    """Tell which maps share a basis; those of a run with images of two sizes may differ in their parts."""
    return tag.block, tag.site, tuple(looks.shape[2:])
