"""Hooks on a block's attention layers, which collect the values of one call and pass them to the readers.

If another extension runs a layer in parts, it is read once all parts are complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.hooks.calls import Out, Read, Seen, SeenInParts, tag_of
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.probabilities import split_heads
from lib_dumpunet.hooks.reading import Picker, Report, copy_rows, guarded, to_cpu
from lib_dumpunet.hooks.streams import CallStreams
from lib_dumpunet.hooks.subcalls import Place, SubCalls
from lib_dumpunet.kinds import Kind
from lib_dumpunet.models.model import Block
from lib_dumpunet.models.ports import AttentionLayer, UpdatePort
from lib_dumpunet.ports import BatchRow, ModelCall


class PairTap:
    """Hooks on one attention layer that read it once query and key of the same call are there."""

    def __init__(self, layer: AttentionLayer, attention: nn.Module, out: Out, reads: Sequence[Read]) -> None:
        self.block, self.attention = layer.block, attention
        self.fired = False
        self._layer, self._out, self._reads = layer, out, reads
        self._picker = Picker(out.want.steps, out.clock, ("cond", *out.want.branches))
        self._shape = (0, 0)
        self._q: Tensor | None = None
        self._k: Tensor | None = None
        self._calls = SubCalls()
        self._parts: list[tuple[Tensor, Tensor, Place]] = []
        self._stop: Report

    def install(self, hooks: HookSet, stop: Report) -> None:
        """Install the hooks; ``stop`` gets errors."""
        self._stop = stop
        hooks.before(self._layer.entry.module, self._enter)
        if self.attention is self._layer.cross_attention and not self._layer.joined:
            self._calls.install(hooks, self.attention)
            hooks.after(self.attention, self._end)
        hooks.after(self.attention.to_q, self._see_q)  # type: ignore[arg-type]
        hooks.after(self.attention.to_k, self._see_k)  # type: ignore[arg-type]

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note height and width, and discard leftovers of an earlier call that failed."""
        self._q = self._k = None
        self._parts.clear()
        with guarded(self.block, self._stop):
            self._shape = map_shape(self._layer, self._out.streams, args, kwargs)

    def _see_q(self, q: Tensor) -> None:
        self._q = q
        self._complete()

    def _see_k(self, k: Tensor) -> None:
        self._k = k
        self._complete()

    def _complete(self) -> None:
        if self._q is None or self._k is None:
            return
        q, k, self._q, self._k = self._q, self._k, None, None
        self.fired = True
        with guarded(self.block, self._stop), _exactly(q.device):
            if not self._calls.is_whole:
                if self._picker.is_wanted:  # place() synchronises with the GPU
                    self._parts.append((q, k, self._calls.place()))
                return
            model_call, rows = self._picker.pick(len(q))
            for index, row in rows.items():
                self._see_layer(self._seen(model_call, row, q[index], k[index]))

    def _end(self, _: Tensor) -> None:
        """Read a layer that was run in parts, now that all parts are complete."""
        parts, self._parts = self._parts, []
        if not parts:
            return
        with guarded(self.block, self._stop), _exactly(parts[0][0].device):
            count, tokens = self._calls.shape
            model_call, rows = self._picker.pick(count)
            for index, row in rows.items():
                own = [
                    (self._seen(model_call, row, q[index - place.row], k[index - place.row]), place)
                    for q, k, place in parts
                    if 0 <= index - place.row < len(q)
                ]
                if own:
                    first = own[0][0]
                    what = (self._layer, model_call, row, first.q, first.k, first.scale, self._shape)
                    self._see_layer(SeenInParts(*what, parts=tuple(own), tokens=tokens))

    def _see_layer(self, seen: Seen) -> None:
        for read in self._reads:
            read(self._out, seen)

    def _seen(self, model_call: ModelCall, row: BatchRow, q: Tensor, k: Tensor) -> Seen:
        heads = int(self.attention.heads)  # type: ignore[arg-type]
        query, key = split_heads(q, heads), split_heads(k, heads)
        scale = float(getattr(self.attention, "scale", query.shape[-1] ** -0.5))
        what = (self._layer, model_call, row)
        if not self._layer.joined:
            return Seen(*what, query, self._once(key, model_call, row), scale, self._shape)
        streams = self._out.streams.now
        assert streams is not None
        image, text = streams.image_tokens, streams.text_tokens
        return Seen(*what, query[:, image], key, scale, self._shape, text, image)

    def _once(self, key: Tensor, model_call: ModelCall, row: BatchRow) -> Tensor:
        """Return the key "head token dim" of a text that the host repeated, without the copies.

        Attention to a token is the sum over its copies, which is what it would be with one copy.
        """
        length_of = self._out.want.length_of
        if length_of is None or self.attention is not self._layer.cross_attention:
            return key
        tokens = length_of(row, self.block, model_call.step)
        return key if key.shape[1] % tokens else key[:, :tokens]


class OutputTap:
    """Hooks that capture a cross-attention layer's output before its projection: the input of ``to_out``."""

    def __init__(self, layer: AttentionLayer, out: Out, kind: Kind) -> None:
        self.block, self.attention, self._kind = layer.block, layer.cross_attention, kind
        self.fired = False
        self._layer, self._out = layer, out
        self._picker = Picker(out.want.steps, out.clock)
        self._shape = (0, 0)
        self._calls = SubCalls()
        self._parts: dict[int, Tensor] = {}
        self._stop: Report

    def install(self, hooks: HookSet, stop: Report) -> None:
        """Install the hooks; ``stop`` gets errors."""
        self._stop = stop
        hooks.before(self._layer.entry.module, self._enter)
        self._calls.install(hooks, self.attention)
        hooks.before(self.attention.to_out[0], self._see)  # type: ignore[index, arg-type]
        hooks.after(self.attention, self._end)

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._parts.clear()
        with guarded(self.block, self._stop):
            self._shape = map_shape(self._layer, self._out.streams, args, kwargs)

    def _see(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.fired = True
        with guarded(self.block, self._stop):
            attended = args[0] if args else next(iter(kwargs.values()))
            if self._layer.joined:
                streams = self._out.streams.now
                assert streams is not None
                attended = attended[:, streams.image_tokens]
            require_places(attended.shape[1], self._shape)
            if self._calls.is_whole:
                self._send(attended, len(attended))
                return
            if not self._picker.is_wanted:
                return
            place = self._calls.place()
            if place.tokens != self._calls.shape[1]:
                raise HostError(
                    "another extension makes each region read only part of the text, so there is no single output map"
                )
            self._parts |= {place.row + i: part for i, part in enumerate(attended)}

    def _end(self, _: Tensor) -> None:
        """Send the output of a layer that was run in parts, now that all parts are complete."""
        parts, self._parts = self._parts, {}
        if parts:
            with guarded(self.block, self._stop):
                count, _tokens = self._calls.shape
                if len(parts) != count:
                    raise HostError("another extension runs the layer only for some batch rows")
                self._send(torch.stack([parts[index] for index in range(count)]), count)

    def _send(self, attended: Tensor, count: int) -> None:
        model_call, rows = self._picker.pick(count)
        if not rows:
            return
        tensor, ready = copy_rows(attended, list(rows))
        for row, part in zip(rows.values(), tensor, strict=True):
            tag = tag_of(model_call, row, self._layer, self._kind)
            self._out.emit(Capture(tag, part.T.unflatten(1, self._shape), ready))


class UpdateTap:
    """Hooks on a block's transformers, usually one, that capture what they add to the residual stream in total."""

    def __init__(self, block: Block, out: Out, kind: Kind) -> None:
        self.block = block.name
        self.fired = False
        self._updates, self._out, self._kind = block.updates, out, kind
        self._picker = Picker(out.want.steps, out.clock)
        self._model_call: ModelCall
        self._rows: dict[int, BatchRow] = {}
        self._sum: Tensor | None = None
        self._stop: Report

    def install(self, hooks: HookSet, stop: Report) -> None:
        """Install the hooks; ``stop`` gets errors."""
        self._stop = stop
        for port in self._updates:
            hooks.around(port.output.module, partial(self._see, port))

    def _see(self, port: UpdatePort, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self.fired = True
        with guarded(self.block, self._stop):
            streams = self._out.streams.now
            before, after = port.input.read(args, kwargs, streams), port.output.read(output, streams)
            if port is self._updates[0]:
                self._model_call, self._rows = self._picker.pick(len(after))
                self._sum = None
            if self._rows:
                rows = list(self._rows)
                added = after.detach()[rows].float() - before.detach()[rows].float()
                self._sum = added if self._sum is None else self._sum + added
                if port is self._updates[-1]:
                    self._send(self._sum)

    def _send(self, added: Tensor) -> None:
        tensor, ready = to_cpu(added)
        for row, part in zip(self._rows.values(), tensor, strict=True):
            tag = Tag(row.image, self._model_call.step, self.block, self._kind, hires=self._model_call.hires)
            self._out.emit(Capture(tag, part, ready))


def map_shape(
    layer: AttentionLayer, streams: CallStreams, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[int, int]:
    """Return height and width of a layer's maps, from the image at its entry."""
    height, width = layer.entry.read(args, kwargs, streams.now).shape[-2:]
    return int(height), int(width)


@contextmanager
def _exactly(device: torch.device) -> Iterator[None]:
    """Turn off autocast and inference mode: autocast would multiply float32 in half precision, and sums that outlive a
    call must not be inference tensors.
    """
    try:
        plain: AbstractContextManager[object] = torch.autocast(device.type, enabled=False)
    except RuntimeError:  # a device that has no autocast
        plain = nullcontext()
    with torch.inference_mode(False), torch.no_grad(), plain:
        yield


def require_places(queries: int, shape: tuple[int, int]) -> None:
    """Check that queries fill a map of height and width ``shape``.

    Raises:
        HostError: if they do not.
    """
    if queries != shape[0] * shape[1]:
        raise HostError(
            f"attention has {queries} queries for a map of {shape[1]}x{shape[0]}; token merging or another extension "
            "drops some"
        )
