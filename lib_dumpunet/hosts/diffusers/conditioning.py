"""Turn what blocks are to read into what the pipeline and the hooks need: embeddings, and whose tokens they are."""

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
    """A text as the U-Net reads it: "token dim", its pooled output "dim" where the model takes one, and its tokens."""

    embeds: Tensor
    pooled: Tensor | None
    tokens: Tokens


class Encodings:
    """Texts of one pipeline, each encoded once whoever asks for it."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._known: dict[str, EncodedText] = {}

    def learn(self, texts: Iterable[str]) -> None:
        """Encode what is not known yet.

        Texts of the same number of chunks are one batch. So are all prompts of a pipeline, which cuts them to one
        chunk; but where a text is known already, its bits are those that it got beside others.
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
    """What a batch of prompts was encoded to: arguments of the pipeline, the texts of blocks, and all tokens."""

    arguments: dict[str, Tensor]
    steering: Steering
    texts: Texts


def condition(encodings: Encodings, plan: PromptPlan, images: Sequence[int]) -> Conditioning:
    """Encode all that the blocks read of the prompts of ``images``, each distinct text once.

    Main texts are one batch, as they are for the pipeline, so that their bits are its own; each of the others is one
    by itself, so that its bits do not depend on those beside it.
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
    """Name the embeddings as the pipeline does, a row for each image, all of the same length."""
    rows = [fill_up(text.embeds, tokens, filler=filler.embeds) for text in texts]
    named = {f"{prefix}prompt_embeds": torch.stack(rows)}
    pooled = [text.pooled for text in texts if text.pooled is not None]
    if pooled:
        named[f"{prefix}pooled_prompt_embeds"] = torch.stack(pooled)
    return named
