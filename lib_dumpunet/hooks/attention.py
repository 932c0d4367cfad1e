"""Read attention while the U-Net runs: queries and keys as the layers themselves make them, by hooks.

Every implementation of attention calls ``to_q`` and ``to_k`` as modules, and then ``to_out``, however it computes what
lies between. So their outputs, with LoRA, hypernetworks and per-block prompts applied, are the real ones under each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib_dumpunet.blocks import spans
from lib_dumpunet.captures import Branch, Capture, Kind, Tag
from lib_dumpunet.errors import HostError, UnsupportedModelError
from lib_dumpunet.hooks.heat import Heat
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.probabilities import cross_map, cross_mean, self_gaze, self_map, split_heads
from lib_dumpunet.hooks.reading import (
    NOTHING,
    Emit,
    FirstCall,
    Picker,
    Report,
    copy_rows,
    guarded,
    stopping,
    to_cpu,
)
from lib_dumpunet.hooks.subcalls import Place, SubCalls
from lib_dumpunet.ports import Clock, Moment, Row
from lib_dumpunet.unet.sites import AttentionLayer, Unet

log = logging.getLogger("dumpunet")

CROSS: frozenset[Kind] = frozenset({"k", "qk", "vqk", "word"})
SELF: frozenset[Kind] = frozenset({"self", "gaze", "point"})


def _same_text(row: Row, block: str, step: int) -> str:
    return ""


@dataclass(frozen=True)
class AttentionWant:
    """What to read of the attention layers of which blocks in which sampling steps.

    Args:
        lattice: points in a row and in a column of the lattice of ``self``.
        points: places "x y" of the image, as fractions of its width and height, for ``point``.
        branches: whose words to sum up: the prompt's, the negative prompt's, or both.
        text_of: tells the text that a row reads in a block and step; words of different texts are summed up apart.
    """

    blocks: tuple[str, ...]
    steps: Container[int]
    kinds: frozenset[Kind]
    lattice: int = 8
    points: tuple[tuple[float, float], ...] = ()
    branches: tuple[Branch, ...] = ("cond",)
    text_of: Callable[[Row, str, int], str] = _same_text


@contextmanager
def capture_attention(
    unet: Unet, want: AttentionWant, clock: Clock, emit: Emit, report: Report, heat: Heat
) -> Iterator[None]:
    """Emit attention of each wanted layer as it comes, and sum words and points up in ``heat``.

    Nothing that goes wrong here reaches the sampler: reading of cross- or of self-attention stops and ``report``
    hears of it.

    Raises:
        UnsupportedModelError: if the layers' projections are fused, so that queries and keys are not to be had.
    """
    layers = require_readable(unet, want)
    out = _Out(want, clock, emit, heat)
    cross: list[_PairTap | _OutputTap] = []
    if want.kinds & CROSS - {"vqk"}:
        cross += [_PairTap(layer, layer.cross_attention, out, _read_cross) for layer in layers]
    if "vqk" in want.kinds:
        cross += [_OutputTap(layer, out) for layer in layers]
    within = [_PairTap(layer, layer.self_attention, out, _read_self) for layer in layers]
    with _watching(unet, cross, report):
        if not want.kinds & SELF:
            yield
            return
        with _watching(unet, within, report):
            yield


def require_readable(unet: Unet, want: AttentionWant) -> list[AttentionLayer]:
    """List the layers that are wanted, and make sure that they can be read.

    Raises:
        UnsupportedModelError: if the layers' projections are fused, so that queries and keys are not to be had.
    """
    layers = [layer for site in unet.sites if site.block in want.blocks for layer in site.layers]
    cross = [layer.cross_attention for layer in layers if want.kinds & CROSS]
    within = [layer.self_attention for layer in layers if want.kinds & SELF]
    require_projections([*cross, *within], spans(want.blocks))
    if "vqk" in want.kinds and any("IPAdapter" in name for name in map(_processor, cross)):
        log.warning("V*Q*K: besides the text, what the IP-Adapter adds from its image is in it")
    return layers


def require_projections(attentions: Sequence[nn.Module], where: str) -> None:
    """Refuse attention layers that make query and key otherwise than by modules of their own.

    Raises:
        UnsupportedModelError: with the call that undoes it, where there is one.
    """
    # diffusers leaves the layers' `fused_projections` set when it undoes this; the processors tell the truth.
    if any(name.startswith("Fused") for name in map(_processor, attentions)):
        raise UnsupportedModelError(
            f"the attention projections of {where} are fused, so that queries and keys cannot be told apart",
            remedy="Call unfuse_qkv_projections() on the pipeline or the U-Net first.",
        )
    if not all(hasattr(a, "to_q") and hasattr(a, "to_k") and hasattr(a, "to_out") for a in attentions):
        raise UnsupportedModelError(
            f"the attention layers of {where} have no to_q, to_k and to_out",
            remedy="Attention cannot be read from this model; features can.",
        )


def _processor(attention: nn.Module) -> str:
    """Name what runs an attention layer of diffusers."""
    return type(getattr(attention, "processor", None)).__name__


@dataclass(frozen=True)
class _Out:
    """What is wanted, and where it goes."""

    want: AttentionWant
    clock: Clock
    emit: Emit
    heat: Heat

    def send(self, tag: Tag, tensor: Tensor) -> None:
        """Emit a tensor that was made here, or a view whose content will not change."""
        copy, ready = to_cpu(tensor)
        self.emit(Capture(tag, copy, ready))


@dataclass(frozen=True, eq=False)
class _Seen:
    """Query "head query dim" and key "head key dim" of one image in one layer; queries fill a map of ``shape``."""

    layer: AttentionLayer
    moment: Moment
    row: Row
    q: Tensor
    k: Tensor
    scale: float
    shape: tuple[int, int]

    def tag(self, kind: Kind) -> Tag:
        return _tag(self.moment, self.row, self.layer, kind)

    def keys(self) -> Tensor:
        """Give the keys "head token dim", as memory of their own."""
        return self.k.clone()

    def maps(self) -> Tensor:
        """Compute where each head looks: "head token query"."""
        return cross_map(self.q, self.k, self.scale)

    def mean(self) -> Tensor:
        """Average the maps over heads: "token query"."""
        return cross_mean(self.q, self.k, self.scale)


@dataclass(frozen=True, eq=False)
class _SeenInParts(_Seen):
    """A layer that was run in parts: ``q`` is that of the first; tokens that no part read have nothing."""

    parts: tuple[tuple[_Seen, Place], ...]
    tokens: int

    def keys(self) -> Tensor:
        return self._joined(1, [part.k for part, _ in self.parts])

    def maps(self) -> Tensor:
        return self._joined(1, [part.maps() for part, _ in self.parts])

    def mean(self) -> Tensor:
        return self._joined(0, [part.mean() for part, _ in self.parts])

    def _joined(self, dim: int, tensors: Sequence[Tensor]) -> Tensor:
        """Put each part's tokens, dimension ``dim``, where they are in the whole text."""
        shape = list(tensors[0].shape)
        shape[dim] = self.tokens
        result = tensors[0].new_zeros(shape)
        for tensor, (_, place) in zip(tensors, self.parts, strict=True):
            result.narrow(dim, place.token, place.tokens).copy_(tensor.narrow(dim, 0, place.tokens))
        return result


def _tag(moment: Moment, row: Row, layer: AttentionLayer, kind: Kind) -> Tag:
    return Tag(row.image, moment.step, layer.block, kind, layer.number, hires=moment.hires)


Read = Callable[[_Out, _Seen], None]


@contextmanager
def _watching(unet: Unet, taps: Sequence[_PairTap | _OutputTap], report: Report) -> Iterator[None]:
    with HookSet() as hooks:
        stop = stopping(hooks, report)
        for tap in taps:
            tap.install(hooks, stop)
        hooks.after(
            unet.module, FirstCall(taps, stop, NOTHING.format(blocks="the attention layers of {blocks}"))
        )
        yield


class _PairTap:
    """Hooks on one attention layer; it can be read when query and key of the same call have arrived."""

    def __init__(self, layer: AttentionLayer, attention: nn.Module, out: _Out, read: Read) -> None:
        self.block, self.attention = layer.block, attention
        self.fired = False
        self._layer, self._out, self._read = layer, out, read
        self._picker = Picker(out.want.steps, out.clock, ("cond", *out.want.branches))
        self._shape = (0, 0)
        self._q: Tensor | None = None
        self._k: Tensor | None = None
        self._calls = SubCalls()
        self._parts: list[tuple[Tensor, Tensor, Place]] = []
        self._stop: Report

    def install(self, hooks: HookSet, stop: Report) -> None:
        """Put the hooks on; ``stop`` is told of a fault."""
        self._stop = stop
        hooks.before(self._layer.transformer, self._enter)
        if self.attention is self._layer.cross_attention:
            self._calls.install(hooks, self.attention)
            hooks.after(self.attention, self._end)
        hooks.after(self.attention.to_q, self._see_q)  # type: ignore[arg-type]
        hooks.after(self.attention.to_k, self._see_k)  # type: ignore[arg-type]

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note height and width, and forget what an earlier call that broke off may have left."""
        self._q = self._k = None
        self._parts.clear()
        with guarded(self.block, self._stop):
            self._shape = map_shape(args, kwargs)

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
                if self._picker.is_wanted:  # finding the place makes a GPU wait
                    self._parts.append((q, k, self._calls.place()))
                return
            moment, rows = self._picker.pick(len(q))
            for index, row in rows.items():
                self._read(self._out, self._seen(moment, row, q[index], k[index]))

    def _end(self, _: Tensor) -> None:
        """Read a layer that was run in parts, now that all of them are there."""
        parts, self._parts = self._parts, []
        if not parts:
            return
        with guarded(self.block, self._stop), _exactly(parts[0][0].device):
            count, tokens = self._calls.shape
            moment, rows = self._picker.pick(count)
            for index, row in rows.items():
                own = [
                    (self._seen(moment, row, q[index - place.row], k[index - place.row]), place)
                    for q, k, place in parts
                    if 0 <= index - place.row < len(q)
                ]
                if own:
                    first = own[0][0]
                    what = (self._layer, moment, row, first.q, first.k, first.scale, self._shape)
                    self._read(self._out, _SeenInParts(*what, tuple(own), tokens))

    def _seen(self, moment: Moment, row: Row, q: Tensor, k: Tensor) -> _Seen:
        heads = int(self.attention.heads)  # type: ignore[arg-type]
        query, key = split_heads(q, heads), split_heads(k, heads)
        scale = float(getattr(self.attention, "scale", query.shape[-1] ** -0.5))
        return _Seen(self._layer, moment, row, query, key, scale, self._shape)


class _OutputTap:
    """A hook that sees what a cross-attention layer has got out of the text: what goes into ``to_out``."""

    def __init__(self, layer: AttentionLayer, out: _Out) -> None:
        self.block, self.attention = layer.block, layer.cross_attention
        self.fired = False
        self._layer, self._out = layer, out
        self._picker = Picker(out.want.steps, out.clock)
        self._shape = (0, 0)
        self._calls = SubCalls()
        self._parts: dict[int, Tensor] = {}
        self._stop: Report

    def install(self, hooks: HookSet, stop: Report) -> None:
        """Put the hooks on; ``stop`` is told of a fault."""
        self._stop = stop
        hooks.before(self._layer.transformer, self._enter)
        self._calls.install(hooks, self.attention)
        hooks.before(self.attention.to_out[0], self._see)  # type: ignore[index, arg-type]
        hooks.after(self.attention, self._end)

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._parts.clear()
        with guarded(self.block, self._stop):
            self._shape = map_shape(args, kwargs)

    def _see(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.fired = True
        with guarded(self.block, self._stop):
            attended = args[0] if args else next(iter(kwargs.values()))
            require_places(attended.shape[1], self._shape)
            if self._calls.is_whole:
                self._send(attended, len(attended))
                return
            if not self._picker.is_wanted:
                return
            place = self._calls.place()
            if place.tokens != self._calls.shape[1]:
                raise HostError(
                    "another extension has each region read a part of the text, so that there is no one map of what "
                    "comes out"
                )
            self._parts |= {place.row + i: part for i, part in enumerate(attended)}

    def _end(self, _: Tensor) -> None:
        """Send what a layer put out that was run in parts, now that all of them are there."""
        parts, self._parts = self._parts, {}
        if parts:
            with guarded(self.block, self._stop):
                count, _tokens = self._calls.shape
                if len(parts) != count:
                    raise HostError("another extension runs the layer for some rows alone")
                self._send(torch.stack([parts[index] for index in range(count)]), count)

    def _send(self, attended: Tensor, count: int) -> None:
        moment, rows = self._picker.pick(count)
        if not rows:
            return
        tensor, ready = copy_rows(attended, list(rows))
        for row, part in zip(rows.values(), tensor, strict=True):
            tag = _tag(moment, row, self._layer, "vqk")
            self._out.emit(Capture(tag, part.T.unflatten(1, self._shape), ready))


def map_shape(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
    """Read height and width off the arguments of a spatial transformer, whose first is "b c h w"."""
    hidden = args[0] if args else next(iter(kwargs.values()))
    return int(hidden.shape[-2]), int(hidden.shape[-1])


@contextmanager
def _exactly(device: torch.device) -> Iterator[None]:
    """Compute in the dtype of the operands, and make plain tensors, whatever mode the sampler runs in.

    Autocast would multiply float32 in half precision, and sums that outlive a call must not be inference tensors.
    """
    try:
        plain: AbstractContextManager[object] = torch.autocast(device.type, enabled=False)
    except RuntimeError:  # a device that has no autocast
        plain = nullcontext()
    with torch.inference_mode(False), torch.no_grad(), plain:
        yield


def require_places(queries: int, shape: tuple[int, int]) -> None:
    """Make sure that queries fill a map of height and width ``shape``.

    Raises:
        HostError: if they do not.
    """
    if queries != shape[0] * shape[1]:
        raise HostError(
            f"attention has {queries} queries for a map of {shape[1]}x{shape[0]}; token merging, or another extension, "
            "leaves some out"
        )


def _read_cross(out: _Out, seen: _Seen) -> None:
    require_places(seen.q.shape[1], seen.shape)
    kinds = out.want.kinds if seen.row.branch == "cond" else frozenset[Kind]()
    if "k" in kinds:
        out.send(seen.tag("k"), seen.keys())
    if "qk" in kinds:
        maps = seen.maps()
        out.send(seen.tag("qk"), maps.unflatten(2, seen.shape))
    if "word" in out.want.kinds and seen.row.branch in out.want.branches:
        maps = seen.mean().unflatten(1, seen.shape)
        out.heat.add(seen.row, "word", maps, out.want.text_of(seen.row, seen.layer.block, seen.moment.step))


def _read_self(out: _Out, seen: _Seen) -> None:
    if seen.row.branch != "cond":
        return
    height, width = seen.shape
    for count in (seen.q.shape[1], seen.k.shape[1]):
        require_places(count, seen.shape)
    if "self" in out.want.kinds:
        queries = _lattice(out.want.lattice, seen.shape).to(seen.q.device)
        maps = self_map(seen.q, seen.k, seen.scale, queries.flatten())
        out.send(seen.tag("self"), maps.unflatten(1, queries.shape).unflatten(-1, seen.shape))
    if "gaze" in out.want.kinds:
        gaze = self_gaze(seen.q, seen.k, seen.scale, seen.shape)
        out.send(seen.tag("gaze"), gaze.unflatten(0, seen.shape))
    if "point" in out.want.kinds:
        places = [_cell(y, height) * width + _cell(x, width) for x, y in out.want.points]
        queries = torch.tensor(places, device=seen.q.device)
        maps = self_map(seen.q, seen.k, seen.scale, queries).mean(0)
        out.heat.add(seen.row, "point", maps.unflatten(-1, seen.shape))


def _lattice(side: int, shape: tuple[int, int]) -> Tensor:
    """Spread points evenly over a map, in the middle of equal parts: indices "row column" of places."""
    rows, columns = ([(2 * i + 1) * length // (2 * side) for i in range(side)] for length in shape)
    return torch.tensor(rows)[:, None] * shape[1] + torch.tensor(columns)


def _cell(place: float, length: int) -> int:
    """Find the cell that a fraction of a length lies in."""
    return min(int(place * length), length - 1)
