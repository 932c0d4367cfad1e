"""Encode prompts as the AUTOMATIC1111 webui does: emphasis, ``BREAK``, and prompts of any length.

Emphasis multiplies the text encoder's output for a token. Prompts of any length are encoded in chunks of 75 tokens,
and the outputs are joined. For a prompt of one chunk without emphasis, the result equals that of the pipeline's
``encode_prompt`` bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib_dumpunet.errors import HostError
from lib_dumpunet.hosts.diffusers.chunks import CHUNK, Chunk, Piece, fill, lay_out
from lib_dumpunet.hosts.diffusers.emphasis import parse_emphasis
from lib_dumpunet.hosts.diffusers.tokens import tokens_of
from lib_dumpunet.prompt.words import Token

COMMA = ",</w>"
"""A comma in the vocabulary of CLIP's tokenizers."""


@dataclass(frozen=True)
class Encoded:
    """Encoded prompts, as the U-Net takes them.

    Attributes:
        embeds: "prompt token dim".
        pooled: "prompt dim"; None for all models except SDXL.
        tokens: for each prompt, the tokens of ``embeds``.
    """

    embeds: Tensor
    pooled: Tensor | None
    tokens: tuple[tuple[Token, ...], ...]


@dataclass(frozen=True)
class _Encoder:
    """A text encoder of a pipeline with its tokenizer."""

    pipe: Any
    tokenizer: Any
    model: Any

    def chunks(self, text: str) -> tuple[Chunk, ...]:
        """Tokenize a prompt and cut it into chunks."""
        sections = [
            [Piece(number, run.weight) for run in section for number in self._numbers(run.text)]
            for section in parse_emphasis(text)
        ]
        return lay_out(sections, self.tokenizer.convert_tokens_to_ids(COMMA))

    def ids(self, chunk: Chunk) -> list[int]:
        """Return a chunk's token ids with start and end tokens and padding."""
        tokenizer = self.tokenizer
        ids = [tokenizer.bos_token_id, *(piece.number for piece in chunk), tokenizer.eos_token_id]
        return ids + [tokenizer.pad_token_id] * (CHUNK - len(chunk))

    def encode(self, chunks: Sequence[Chunk]) -> tuple[Tensor, Tensor | None]:
        """Encode one chunk of each prompt; return the embeddings, and the pooled output if the encoder has one."""
        device = self.pipe._execution_device
        ids = torch.tensor([self.ids(chunk) for chunk in chunks], device=device)
        if _is_xl(self.pipe):
            output = self.model(ids, output_hidden_states=True)
            pooled = output[0] if output[0].ndim == 2 else None
            return _emphasise(output.hidden_states[-2], chunks), pooled
        mask = None
        if getattr(self.model.config, "use_attention_mask", False):
            mask = torch.tensor([_mask(chunk) for chunk in chunks], device=device)
        return _emphasise(self.model(ids, attention_mask=mask)[0], chunks), None

    def _numbers(self, text: str) -> list[int]:
        # The tokenizer would warn of texts longer than one chunk, also in maybe_convert_prompt.
        numbers: list[int] = self.tokenizer(
            self._with_all_vectors(text), add_special_tokens=False, verbose=False
        ).input_ids
        return numbers

    def _with_all_vectors(self, text: str) -> str:
        """Expand textual inversions of several vectors from their one word into the tokenizer's several tokens."""
        convert = getattr(self.pipe, "maybe_convert_prompt", None)
        if convert is None or not any(token in text for token in self.tokenizer.get_added_vocab()):
            return text
        converted: str = convert(text, self.tokenizer)
        return converted


def encode_prompts(pipe: Any, texts: Sequence[str]) -> Encoded:
    """Encode prompts for a Stable Diffusion 1.x, 2.x or XL pipeline.

    All prompts get as many chunks as the longest one; as in the webui, missing chunks are those of an empty prompt.
    The pooled output is that of the first chunk, without emphasis.
    """
    assert texts
    encoders = _encoders(pipe)
    layouts = [[encoder.chunks(text) for text in texts] for encoder in encoders]
    count = max(len(layout) for of_encoder in layouts for layout in of_encoder)
    filled = [[fill(layout, count) for layout in of_encoder] for of_encoder in layouts]
    with torch.no_grad():
        outputs = [_encode_all(encoder, by_text) for encoder, by_text in zip(encoders, filled, strict=True)]
    embeds = torch.cat([hidden for hidden, _ in outputs], dim=-1)
    first, last = encoders[0], encoders[-1]
    return Encoded(
        embeds.to(dtype=last.model.dtype, device=pipe._execution_device),
        outputs[-1][1],
        tuple(_tokens(first, layout) for layout in filled[0]),
    )


def tokenize(pipe: Any, text: str) -> tuple[Token, ...]:
    """Return a prompt's tokens without encoding it."""
    first = _encoders(pipe)[0]
    return _tokens(first, first.chunks(text))


def chunk_count(pipe: Any, text: str) -> int:
    """Count the chunks that a prompt takes, at least one."""
    return max(len(encoder.chunks(text)) for encoder in _encoders(pipe))


def _mask(chunk: Chunk) -> list[int]:
    """Return a chunk's attention mask, as the tokenizer would: 0 for padding."""
    text = len(chunk) + 2
    return [1] * text + [0] * (CHUNK + 2 - text)


def _is_xl(pipe: Any) -> bool:
    return hasattr(pipe, "text_encoder_2")


def _encoders(pipe: Any) -> list[_Encoder]:
    names = [("tokenizer", "text_encoder")]
    if _is_xl(pipe):
        names.append(("tokenizer_2", "text_encoder_2"))
    pairs = [tuple(getattr(pipe, name, None) for name in both) for both in names]
    encoders = [
        _Encoder(pipe, tokenizer, model)
        for tokenizer, model in pairs
        if tokenizer is not None and model is not None
    ]
    if not encoders:
        raise HostError(
            f"{type(pipe).__name__} has no tokenizer with a text encoder, so prompts cannot be encoded",
            remedy="Load the pipeline with both; pipelines that take no prompt cannot use per-block prompts.",
        )
    return encoders


def _tokens(encoder: _Encoder, layout: Sequence[Chunk]) -> tuple[Token, ...]:
    return tokens_of(encoder.tokenizer, [number for chunk in layout for number in encoder.ids(chunk)])


def _encode_all(encoder: _Encoder, layouts: Sequence[Sequence[Chunk]]) -> tuple[Tensor, Tensor | None]:
    """Encode prompts of equally many chunks.

    One batch has the first chunks of all prompts, the next one the second chunks: a batch of short prompts is then the
    same as the pipeline's, and so are all bits of the result.
    """
    outputs = [encoder.encode(chunks) for chunks in zip(*layouts, strict=True)]
    return torch.cat([hidden for hidden, _ in outputs], dim=1), outputs[0][1]


def _emphasise(hidden: Tensor, chunks: Sequence[Chunk]) -> Tensor:
    """Multiply the encoder's output, "prompt token dim", by the tokens' weights, and restore each chunk's mean.

    The webui restores the mean over all prompts of a batch; here, prompts do not affect each other.
    """
    rows = [[1.0, *(piece.weight for piece in chunk), *[1.0] * (CHUNK + 1 - len(chunk))] for chunk in chunks]
    weights = torch.tensor(rows, device=hidden.device)[..., None]
    plain = hidden.float()  # half precision is too coarse for a mean
    weighed = plain * weights
    scale = plain.mean((1, 2), keepdim=True) / weighed.mean((1, 2), keepdim=True)
    has_emphasis = (weights != 1).any(dim=1, keepdim=True)
    return torch.where(has_emphasis, (weighed * scale).to(hidden.dtype), hidden)
