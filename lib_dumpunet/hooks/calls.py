"""What to capture from attention layers, and the queries and keys of one call of a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.hooks.probabilities import cross_map, cross_mean
from lib_dumpunet.hooks.reading import Emit, to_cpu
from lib_dumpunet.hooks.streams import CallStreams
from lib_dumpunet.hooks.subcalls import Place
from lib_dumpunet.hooks.sums import AttentionSums
from lib_dumpunet.kinds import Kind
from lib_dumpunet.models.ports import AttentionLayer
from lib_dumpunet.plan import AttentionRequest
from lib_dumpunet.ports import BatchRow, Clock, ModelCall


def all_keys() -> slice:
    """Return the slice of all keys, for a layer that attends to the text alone or to the image alone."""
    return slice(None)


@dataclass(frozen=True)
class Out:
    """What to capture, and where to send it."""

    want: AttentionRequest
    clock: Clock
    emit: Emit
    sums: AttentionSums
    streams: CallStreams

    def send(self, tag: Tag, tensor: Tensor) -> None:
        """Emit a tensor that nobody else changes."""
        copy, ready = to_cpu(tensor)
        self.emit(Capture(tag, copy, ready))


def tag_of(model_call: ModelCall, row: BatchRow, layer: AttentionLayer, kind: Kind) -> Tag:
    """Return the tag of a tensor of a layer and call."""
    return Tag(row.image, model_call.step, layer.block, kind, layer.number, hires=model_call.hires)


@dataclass(frozen=True, eq=False)
class Seen:
    """Query "head query dim" and key "head key dim" of one image in one layer; the queries form a map of ``shape``.

    ``text`` and ``image`` select the keys of each, if one sequence holds both.
    """

    layer: AttentionLayer
    model_call: ModelCall
    row: BatchRow
    q: Tensor
    k: Tensor
    scale: float
    shape: tuple[int, int]
    text: slice = field(default_factory=all_keys)
    image: slice = field(default_factory=all_keys)

    def tag(self, kind: Kind) -> Tag:
        """Return the tag of a tensor of this layer and call."""
        return tag_of(self.model_call, self.row, self.layer, kind)

    def keys(self) -> Tensor:
        """Return a copy of the text's keys: "head token dim"."""
        return self.k[:, self.text].clone()

    def maps(self) -> Tensor:
        """Compute the attention maps of the text's tokens: "head token query"."""
        return cross_map(self.q, self.k, self.scale)[:, self.text]

    def mean(self) -> Tensor:
        """Compute the attention maps averaged over heads: "token query"."""
        return cross_mean(self.q, self.k, self.scale)[self.text]


@dataclass(frozen=True, eq=False)
class SeenInParts(Seen):
    """A layer that was run in parts: ``q`` is the first part's; tokens that no part read get zeros."""

    parts: tuple[tuple[Seen, Place], ...] = ()
    tokens: int = 0

    def keys(self) -> Tensor:
        return self._joined(1, [part.k for part, _ in self.parts])

    def maps(self) -> Tensor:
        return self._joined(1, [part.maps() for part, _ in self.parts])

    def mean(self) -> Tensor:
        return self._joined(0, [part.mean() for part, _ in self.parts])

    def _joined(self, dim: int, tensors: Sequence[Tensor]) -> Tensor:
        """Join the parts along ``dim``, the token axis, each at its position in the whole text."""
        shape = list(tensors[0].shape)
        shape[dim] = self.tokens
        result = tensors[0].new_zeros(shape)
        for tensor, (_, place) in zip(tensors, self.parts, strict=True):
            result.narrow(dim, place.token, place.tokens).copy_(tensor.narrow(dim, 0, place.tokens))
        return result


Read = Callable[[Out, Seen], None]
"""Captures a kind from the query and key of one image in one layer."""
