"""The first three principal components of self-attention, by one basis for all steps and images of a run."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

import torch
from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.files import explain

COMPONENTS = 3


class ComponentsSink:
    """Turn what each place of a layer looks at into three numbers, so that places that look alike get like colours.

    The basis is that of all maps of the layer in a run, or pictures of different steps would not compare. So all must
    have come before the first can be drawn; until then they wait on disk, in a file that the system removes however
    the run ends, and memory holds one sum for each layer.

    ``then`` are the sinks that get the components, when this one is closed; it must be closed before them.
    """

    def __init__(self, then: Sequence[Sink]) -> None:
        self._then = tuple(then)
        self._lock = threading.Lock()
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="dumpunet-")  # noqa: SIM115  # closed by close()
        self._stored: dict[Tag, tuple[int, torch.Size]] = {}
        self._moments: dict[tuple[str, int], _Moments] = {}

    def accept(self, capture: Capture) -> None:
        """Put a map aside.

        Raises:
            HostError: the disk is full.
        """
        if capture.tag.kind != "gaze":
            return
        looks = capture.tensor.float()
        with self._lock, _told():
            self._stored[capture.tag] = (self._file.seek(0, 2), looks.shape)
            self._file.write(looks.contiguous().numpy().data)
            self._moments.setdefault(_layer(capture.tag), _Moments()).add(looks.flatten(0, 1).flatten(1))

    def close(self) -> None:
        """Compute all components and hand them on.

        Raises:
            DumpUNetError: the first of what the other sinks raise.
        """
        with self._file, _told():
            bases = {layer: moments.basis() for layer, moments in self._moments.items()}
            for tag in sorted(self._stored):
                maps = bases[_layer(tag)].components(self._read(tag))
                capture = Capture(Tag(tag.image, tag.step, tag.block, "pca", tag.site), maps)
                for sink in self._then:
                    sink.accept(capture)

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


def _layer(tag: Tag) -> tuple[str, int]:
    return tag.block, tag.site


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem, remedy = explain(error)
        raise HostError(
            f"the components of self-attention could not be put aside, {problem}",
            remedy=f"{remedy.rstrip('.')}: temporary files go to {tempfile.gettempdir()}.",
        ) from error
