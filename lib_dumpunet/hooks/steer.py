"""Give blocks their own texts while the U-Net runs: hooks replace the text that cross-attention layers read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lib_dumpunet.errors import HostError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.reading import FirstCall, Report, require_rows
from lib_dumpunet.models.model import Model
from lib_dumpunet.models.ports import Argument, Arguments
from lib_dumpunet.ports import BatchRow, Clock, ModelCall
from lib_dumpunet.prompt.plan import PromptPlan
from lib_dumpunet.prompt.template import Share

UNREACHED = "the text of {blocks} was not read in the first U-Net call, so the image was generated without it"

_Shares = tuple[tuple[Share, ...] | None, ...]
Join = Callable[[str, ModelCall, Sequence[Tensor | None], Tensor], Sequence[Tensor]]
"""Brings the rows of a block's text to one length, as the host does: takes the block's name, the U-Net call, the own
embedding "token dim" of each row, None if it has none, and the embeddings "row token dim" that the host passes."""


@dataclass(frozen=True)
class Steering:
    """The texts of each block, and their embeddings from the host's text encoder.

    Attributes:
        at: returns the embedding "token dim" of a text in a sampling step, for a batch row, which may use only one part
            of the text.
        fill: pads an embedding "token dim" to a number of tokens, as the host does to match longer ones.
        join: brings the rows of a call to one length; None pads all to the longest.
    """

    plan: PromptPlan
    at: Callable[[str, int, BatchRow], Tensor]
    fill: Callable[[Tensor, int], Tensor]
    join: Join | None = None


@contextmanager
def steer(model: Model, steering: Steering, clock: Clock, report: Report) -> Iterator[None]:
    """Let each block's cross-attention read the block's own text.

    The host passes the main text of each row to the U-Net; rows and blocks without their own text keep it. ``report``
    gets an error if the first call did not reach all blocks.

    Raises:
        HostError: from inside the U-Net's call, if the batch is not the one the clock expects. An image made with
            another image's text would be worse than none.
    """
    call = _Call(steering)
    with HookSet() as hooks:
        steered = [block for block in model.blocks if block.name in steering.plan.steered]
        taps = [_Tap(block.name, call, clock) for block in steered]
        for block, tap in zip(steered, taps, strict=True):
            for port in block.texts:
                hooks.replace(port.module, partial(tap, port.argument))
        if taps:
            hooks.after(model.module, FirstCall(taps, report, UNREACHED))
            hooks.after(model.module, call.forget)
        yield


def fill_up(context: Tensor, tokens: int, *, filler: Tensor) -> Tensor:
    """Pad an embedding "token dim" to ``tokens`` tokens with copies of ``filler``, the embedding of an empty chunk."""
    missing = tokens - len(context)
    if missing <= 0:
        return context
    filler = filler.to(context)
    return torch.cat([context, filler.repeat(-(-missing // len(filler)), 1)[:missing]])


class _Tap:
    """Replaces the text that one block reads."""

    def __init__(self, block: str, call: _Call, clock: Clock) -> None:
        self.block = block
        self.fired = False
        self._call, self._clock = call, clock

    def __call__(self, argument: Argument, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        self.fired = True
        model_call = self._clock.now()
        if model_call.step < 1:
            return None
        context = argument.of(args, kwargs)
        # With an IP-Adapter, diffusers passes a pair: text embeddings and image embeddings.
        text, *beside = context if isinstance(context, tuple) else (context,)
        if not isinstance(text, Tensor):
            raise HostError(
                f"the text that block {self.block} reads is not where it was expected",
                remedy="Something else has replaced it; turn that off, or do not use per-block prompts.",
            )
        own: Any = self._call.context(self.block, model_call, text)
        if own is None:
            return None
        return argument.replaced(args, kwargs, (own, *beside) if beside else own)


class _Call:
    """Embeddings made for the current U-Net call; blocks with the same texts share one tensor."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering
        self._model_call: ModelCall | None = None
        self._passed: Tensor | None = None
        self._made: dict[_Shares, Tensor] = {}

    def context(self, block: str, model_call: ModelCall, passed: Tensor) -> Tensor | None:
        """Return the embeddings "row token dim" that replace ``passed`` in a block; None to keep ``passed``."""
        if model_call != self._model_call or passed is not self._passed:
            self._model_call, self._passed, self._made = model_call, passed, {}
        require_rows(model_call, len(passed))
        shares = tuple(self._steering.plan.own(row, block, model_call.step) for row in model_call.rows)
        if not any(shares):
            return None
        if shares not in self._made:
            self._made[shares] = self._stack(block, shares, model_call, passed)
        return self._made[shares]

    def forget(self, _: Tensor) -> None:
        """Release the embeddings: memory is short when the image is decoded."""
        self._model_call, self._passed, self._made = None, None, {}

    def _stack(self, block: str, shares: _Shares, model_call: ModelCall, passed: Tensor) -> Tensor:
        own = [
            None if share is None else self._mix(share, model_call.step, row)
            for share, row in zip(shares, model_call.rows, strict=True)
        ]
        join = self._steering.join or self._pad
        return torch.stack([context.to(passed) for context in join(block, model_call, own, passed)])

    def _pad(self, _: str, __: ModelCall, own: Sequence[Tensor | None], passed: Tensor) -> list[Tensor]:
        contexts = [given if one is None else one for one, given in zip(own, passed, strict=True)]
        tokens = max(map(len, contexts))
        return [self._steering.fill(context, tokens) for context in contexts]

    def _mix(self, shares: Sequence[Share], step: int, row: BatchRow) -> Tensor:
        """Return the weighted sum of texts' embeddings, in float32: "token dim"."""
        contexts = [self._steering.at(share.text, step, row) for share in shares]
        if len(contexts) == 1:
            return contexts[0]
        tokens = max(map(len, contexts))
        weighed = [
            share.weight * self._steering.fill(context, tokens).float()
            for share, context in zip(shares, contexts, strict=True)
        ]
        return torch.stack(weighed).sum(0)
