"""Encode the texts that blocks read into embeddings for the pipeline and the steering hooks, with their tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lib_dumpunet.captures import Branch
from lib_dumpunet.hooks.steer import Steering, fill_up
from lib_dumpunet.hosts.diffusers.text import chunk_count, encode_prompts
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.prompt.plan import PromptPlan
from lib_dumpunet.prompt.texts import Texts, Tokens


@dataclass(frozen=True)
class EncodedText:
    """An encoded text: embedding "token dim", pooled embedding "dim" if the model takes one, and tokens."""

    embeds: Tensor
    pooled: Tensor | None
    tokens: Tokens


class Encodings:
    """A cache of a pipeline's encoded texts."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._known: dict[str, EncodedText] = {}

    def learn(self, texts: Iterable[str]) -> None:
        """Encode texts that are not cached.

        Texts with the same number of chunks are encoded in one batch, as the pipeline does with all prompts, which it
        truncates to one chunk. The bits of a cached text are those from the batch it was encoded in.
        """
        by_chunks: dict[int, list[str]] = {}
        for text in dict.fromkeys(texts):
            if text not in self._known:
                by_chunks.setdefault(chunk_count(self._pipe, text), []).append(text)
        for same in by_chunks.values():
            encoded = encode_prompts(self._pipe, same)
            for number, text in enumerate(same):
                pooled = None if encoded.pooled is None else encoded.pooled[number]
                self._known[text] = EncodedText(encoded.embeds[number], pooled, encoded.tokens[number])

    def __getitem__(self, text: str) -> EncodedText:
        self.learn([text])
        return self._known[text]


@dataclass(frozen=True)
class Conditioning:
    """An encoded batch of prompts: arguments for the pipeline, the texts of blocks, and all tokens."""

    arguments: dict[str, Tensor]
    steering: Steering
    texts: Texts


def condition(encodings: Encodings, plan: PromptPlan, images: Sequence[int]) -> Conditioning:
    """Encode each distinct text that blocks read from the prompts of ``images``.

    Main texts are encoded in one batch, so that their bits are those of the pipeline; every other text is encoded
    alone, so that its bits do not depend on other texts.
    """
    branches: tuple[Branch, ...] = ("cond", "uncond") if plan.uncond else ("cond",)
    mains = {branch: [plan.main(BatchRow(image, branch)) for image in images] for branch in branches}
    for texts in mains.values():
        encodings.learn(texts)
    needed = {text: encodings[text].tokens for branch in branches for text in plan.texts(branch)}
    filler = encodings[""]
    tokens = max(len(encodings[text].embeds) for texts in mains.values() for text in texts)
    arguments: dict[str, Tensor] = {}
    for branch, texts in mains.items():
        arguments |= _arguments(
            "" if branch == "cond" else "negative_", [encodings[t] for t in texts], filler, tokens
        )
    return Conditioning(
        arguments,
        Steering(plan, lambda text, *_: encodings[text].embeds, partial(fill_up, filler=filler.embeds)),
        Texts(plan, needed, filler.tokens),
    )


def _arguments(prefix: str, texts: list[EncodedText], filler: EncodedText, tokens: int) -> dict[str, Tensor]:
    """Return the embeddings as arguments of the pipeline, a row for each image, padded to the same length."""
    rows = [fill_up(text.embeds, tokens, filler=filler.embeds) for text in texts]
    named = {f"{prefix}prompt_embeds": torch.stack(rows)}
    pooled = [text.pooled for text in texts if text.pooled is not None]
    if pooled:
        named[f"{prefix}pooled_prompt_embeds"] = torch.stack(pooled)
    return named
