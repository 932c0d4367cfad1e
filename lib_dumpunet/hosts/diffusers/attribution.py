"""Find the tokens of each batch row's text by comparing the U-Net's embeddings with the text encoder's outputs.

The order in which prompts are encoded tells nothing: users encode the negative prompt first, both in one batch, or long
before the call.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lib_dumpunet.errors import HostError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.reading import Report
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock
from lib_dumpunet.hosts.diffusers.tokens import tokens_of
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.prompt.texts import Tokens

log = logging.getLogger("dumpunet")

MOST_HEARD = 64
"""Number of latest calls of the text encoder to remember."""


@dataclass(frozen=True)
class _Heard:
    """A call of the text encoder: its input "text token", and each layer's output "text token dim", the last first."""

    ids: Tensor
    states: tuple[Tensor, ...]


class Attribution:
    """Finds the tokens of each image's prompt and negative prompt, at their first U-Net call."""

    def __init__(
        self, pipe: Any, clock: SchedulerClock, texts: dict[BatchRow, Tokens], report: Report
    ) -> None:
        self._clock, self._texts, self._report = clock, texts, report
        self._encoder = getattr(pipe, "text_encoder", None) or getattr(pipe, "text_encoder_2", None)
        self._tokenizer = getattr(pipe, "tokenizer", None) or getattr(pipe, "tokenizer_2", None)
        self._heard: deque[_Heard] = deque(maxlen=MOST_HEARD)
        self._known: set[BatchRow] = set()

    def install(self, hooks: HookSet) -> None:
        """Install a hook on the text encoder, if the pipeline has one."""
        if self._encoder is not None:
            hooks.around(self._encoder, self._hear)

    def _hear(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        ids = args[0] if args else kwargs.get("input_ids")
        layers = getattr(output, "hidden_states", None) or ()
        states = (getattr(output, "last_hidden_state", None), *reversed(layers))
        if isinstance(ids, Tensor):
            kept = tuple(state.detach() for state in states if isinstance(state, Tensor))
            self._heard.append(_Heard(ids.detach(), kept))

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Find the tokens of images that are new in this call.

        If that fails, ``report`` gets the error, the images have no words, and the pipeline's call continues.
        """
        rows = self._clock.now().rows
        new = {row: place for place, row in enumerate(rows) if row not in self._known and not row.part}
        context = args[2] if len(args) > 2 else kwargs.get("encoder_hidden_states")
        if not new or not isinstance(context, Tensor):
            return
        self._known.update(new)
        try:
            for row, place in new.items():
                ids = self._ids(context[place].detach())
                if ids:
                    self._texts[row] = tokens_of(self._tokenizer, ids)
        except Exception as error:
            log.debug("the tokens of the prompt could not be read", exc_info=True)
            self._report(
                HostError(
                    f"the prompt's words could not be read ({error})", remedy="The image is not affected."
                )
            )

    def _ids(self, context: Tensor) -> list[int]:
        """Return the encoder's input ids for an embedding "token dim", of all its chunks; empty if none matches."""
        ids: list[int] = []
        while len(ids) < len(context):
            chunk = next(self._matching(context[len(ids) :]), None)
            if chunk is None:
                return []
            ids += chunk
        return ids

    def _matching(self, context: Tensor) -> Iterator[list[int]]:
        """Yield the ids of encoded texts with which an embedding begins, latest first.

        With two encoders, the first one's output comes first along "dim", and its tokens are used.
        """
        for heard in reversed(self._heard):
            for state in self._variants(heard):
                tokens, width = state.shape[1:]
                if tokens > len(context) or width > context.shape[1]:
                    continue
                same = (state.to(context) == context[:tokens, :width]).flatten(1).all(1).nonzero()
                if len(same):
                    yield heard.ids[int(same[0])].tolist()

    def _variants(self, heard: _Heard) -> Iterator[Tensor]:
        """Yield the outputs that pipelines may use: a layer's output as is, or with the final norm (``clip_skip``)."""
        yield from heard.states
        encoder = self._encoder
        norm = getattr(getattr(encoder, "text_model", encoder), "final_layer_norm", None)
        if norm is not None:
            for state in heard.states[1:]:
                yield norm(state)
