"""Give blocks texts of their own while the U-Net runs: what their cross-attention layers read is replaced by hooks."""

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
from lib_dumpunet.hooks.reading import FirstCall, Report
from lib_dumpunet.models.model import Model
from lib_dumpunet.models.ports import Argument, Arguments
from lib_dumpunet.ports import BatchRow, Clock, ModelCall
from lib_dumpunet.prompt.plan import PromptPlan
from lib_dumpunet.prompt.template import Share

UNREACHED = (
    "the text of {blocks} was not read in the first U-Net call, so the image is as if it had not been given"
)

_Shares = tuple[tuple[Share, ...] | None, ...]


@dataclass(frozen=True)
class Steering:
    """The texts of each block, and what the host's encoder made of them.

    Attributes:
        at: gives the context "token dim" of a row's text in a sampling step; the row is told, as only its part of the
            text is meant.
        fill: lengthens a context "token dim" to a number of tokens, as the host does beside longer ones.
    """

    plan: PromptPlan
    at: Callable[[str, int, BatchRow], Tensor]
    fill: Callable[[Tensor, int], Tensor]


@contextmanager
def steer(model: Model, steering: Steering, clock: Clock, report: Report) -> Iterator[None]:
    """Let each block's cross-attention read the block's own text.

    The host passes the main text of each row to the U-Net; rows and blocks that get no other are left as they are.
    ``report`` hears of blocks that the first call did not reach.

    Raises:
        HostError: out of the U-Net's call, if the clock expects another batch than comes. An image with the texts of
            another would be worse than none.
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
    """Lengthen a context "token dim" to a number of tokens, by chunks of no text; ``filler`` "token dim" is one."""
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
        # Beside an IP-Adapter, diffusers passes a pair: the text, and what was made of images.
        text, *beside = context if isinstance(context, tuple) else (context,)
        if not isinstance(text, Tensor):
            raise HostError(
                f"the text that block {self.block} reads is not where it was expected",
                remedy="Something else has replaced it; take that off, or leave out per-block prompts.",
            )
        own: Any = self._call.context(self.block, model_call, text)
        if own is None:
            return None
        return argument.replaced(args, kwargs, (own, *beside) if beside else own)


class _Call:
    """What was made for the U-Net call that is under way: blocks with the same texts share one tensor."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering
        self._model_call: ModelCall | None = None
        self._passed: Tensor | None = None
        self._made: dict[_Shares, Tensor] = {}

    def context(self, block: str, model_call: ModelCall, passed: Tensor) -> Tensor | None:
        """Return the context "row token dim" of a block in place of the one passed; None if that is the right one."""
        if model_call != self._model_call or passed is not self._passed:
            self._model_call, self._passed, self._made = model_call, passed, {}
        if len(model_call.rows) != len(passed):
            raise HostError(
                f"the U-Net's batch has {len(passed)} rows where {len(model_call.rows)} were expected"
            )
        shares = tuple(self._steering.plan.own(row, block, model_call.step) for row in model_call.rows)
        if not any(shares):
            return None
        if shares not in self._made:
            self._made[shares] = self._stack(shares, model_call, passed)
        return self._made[shares]

    def forget(self, _: Tensor) -> None:
        """Let go of what was made: memory is short when the image is decoded."""
        self._model_call, self._passed, self._made = None, None, {}

    def _stack(self, shares: _Shares, model_call: ModelCall, passed: Tensor) -> Tensor:
        contexts = [
            context if own is None else self._mix(own, model_call.step, row)
            for own, row, context in zip(shares, model_call.rows, passed, strict=True)
        ]
        tokens = max(map(len, contexts))
        return torch.stack([self._steering.fill(context, tokens).to(passed) for context in contexts])

    def _mix(self, shares: Sequence[Share], step: int, row: BatchRow) -> Tensor:
        """Add texts up by their weights, in float32: "token dim"."""
        contexts = [self._steering.at(share.text, step, row) for share in shares]
        if len(contexts) == 1:
            return contexts[0]
        tokens = max(map(len, contexts))
        weighed = [
            share.weight * self._steering.fill(context, tokens).float()
            for share, context in zip(shares, contexts, strict=True)
        ]
        return torch.stack(weighed).sum(0)
