"""Capture attention while the U-Net runs, from the queries and keys that the layers themselves compute.

Every attention implementation calls ``to_q``, ``to_k`` and ``to_out`` as modules, however it computes attention in
between. So hooks on them see the actual values, with LoRA, hypernetworks and per-block prompts applied.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from lib_dumpunet.blocks import spans
from lib_dumpunet.errors import UnsupportedModelError
from lib_dumpunet.hooks.calls import Out, Read
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.readers import READERS, Source
from lib_dumpunet.hooks.reading import NOTHING, Emit, FirstCall, Report, stopping
from lib_dumpunet.hooks.streams import CallStreams
from lib_dumpunet.hooks.sums import AttentionSums
from lib_dumpunet.hooks.taps import OutputTap, PairTap, UpdateTap
from lib_dumpunet.kinds import Kind
from lib_dumpunet.models.model import Model
from lib_dumpunet.models.ports import AttentionLayer
from lib_dumpunet.plan import AttentionRequest
from lib_dumpunet.ports import Clock

log = logging.getLogger("dumpunet")


@contextmanager
def capture_attention(
    model: Model, want: AttentionRequest, clock: Clock, emit: Emit, report: Report, sums: AttentionSums
) -> Iterator[None]:
    """Emit captures of each wanted attention layer, and add words and points to ``sums``.

    Errors never reach the sampler: capturing cross-attention or self-attention stops, and ``report`` gets the error.

    Raises:
        UnsupportedModelError: if the layers' projections are fused or missing, so that queries and keys are not
            available.
    """
    layers = require_readable(model, want)
    streams = CallStreams(model)
    out = Out(want, clock, emit, sums, streams)
    cross: list[PairTap | OutputTap | UpdateTap] = []
    if wanted := _reads(want, "cross"):
        cross += [PairTap(layer, layer.cross_attention, out, wanted) for layer in layers]
    cross += [OutputTap(layer, out, kind) for kind in _kinds(want, "output") for layer in layers]
    blocks = [block for block in model.blocks if block.name in want.blocks and block.updates]
    cross += [UpdateTap(block, out, kind) for kind in _kinds(want, "transformer") for block in blocks]
    within = [PairTap(layer, layer.self_attention, out, _reads(want, "self")) for layer in layers]
    with HookSet() as hooks:
        streams.install(hooks)
        with _watching(model, cross, report):
            if not _kinds(want, "self"):
                yield
                return
            with _watching(model, within, report):
                yield


def _kinds(want: AttentionRequest, *sources: Source) -> list[Kind]:
    return [kind for kind, reader in READERS.items() if kind in want.kinds and reader.source in sources]


def _reads(want: AttentionRequest, source: Source) -> list[Read]:
    return [read for kind in _kinds(want, source) if (read := READERS[kind].read) is not None]


def require_readable(model: Model, want: AttentionRequest) -> list[AttentionLayer]:
    """List the wanted attention layers, and check that they can be read.

    Raises:
        UnsupportedModelError: if the layers' projections are fused or missing, so that queries and keys are not
            available.
    """
    layers = [layer for block in model.blocks if block.name in want.blocks for layer in block.layers]
    cross = [layer.cross_attention for layer in layers if _kinds(want, "cross", "output")]
    within = [layer.self_attention for layer in layers if _kinds(want, "self")]
    require_projections([*cross, *within], spans(want.blocks))
    if _kinds(want, "output") and any("IPAdapter" in name for name in map(_processor, cross)):
        log.warning("V*Q*K: it also contains what the IP-Adapter adds from its image")
    return layers


def require_projections(attentions: Sequence[nn.Module], where: str) -> None:
    """Refuse attention layers without separate modules for query and key.

    Raises:
        UnsupportedModelError: if they have none; for fused projections, the message names the call that unfuses them.
    """
    # diffusers leaves the layers' `fused_projections` set after unfusing, but the processors change back.
    if any(name.startswith("Fused") for name in map(_processor, attentions)):
        raise UnsupportedModelError(
            f"the attention projections of {where} are fused, so queries and keys cannot be read separately",
            remedy="Call unfuse_qkv_projections() on the pipeline or the U-Net first.",
        )
    if not all(hasattr(a, "to_q") and hasattr(a, "to_k") and hasattr(a, "to_out") for a in attentions):
        raise UnsupportedModelError(
            f"the attention layers of {where} have no to_q, to_k and to_out",
            remedy="Attention cannot be read from this model; features can.",
        )


def _processor(attention: nn.Module) -> str:
    """Return the class name of a diffusers attention layer's processor."""
    return type(getattr(attention, "processor", None)).__name__


@contextmanager
def _watching(
    model: Model, taps: Sequence[PairTap | OutputTap | UpdateTap], report: Report
) -> Iterator[None]:
    with HookSet() as hooks:
        stop = stopping(hooks, report)
        for tap in taps:
            tap.install(hooks, stop)
        hooks.after(
            model.module, FirstCall(taps, stop, NOTHING.format(blocks="the attention layers of {blocks}"))
        )
        yield
