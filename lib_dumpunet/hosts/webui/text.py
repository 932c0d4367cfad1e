"""Encode texts with the webui's own parser, so that emphasis, schedules, AND and embeddings work in brackets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from modules import devices, prompt_parser, shared
from torch import Tensor

from lib_dumpunet.captures import Branch
from lib_dumpunet.hosts.common.clip_vocab import piece
from lib_dumpunet.hosts.webui import compat
from lib_dumpunet.hosts.webui.family import family_of
from lib_dumpunet.prompt.texts import Schedule, Tokens
from lib_dumpunet.prompt.words import Token


class Scheduled(NamedTuple):
    """A text embedding "token dim", and the last evaluation, from 0, in which it is used."""

    last: int
    context: Tensor


Parts = tuple[tuple[Scheduled, ...], ...]
"""An encoded text: for each of its AND parts, a schedule."""


@dataclass(frozen=True)
class Timing:
    """What prompt schedules depend on.

    Attributes:
        evaluations: number of evaluations of the first pass, as the parser counts them.
        hires: number of evaluations of the hires pass; None in the first pass.
        per_step: evaluations per step.
        size: width and height of the image, which SDXL's conditioning includes.
    """

    evaluations: int
    hires: int | None
    per_step: int
    size: tuple[int, int]


def timing_of(p: Any, *, hires: bool) -> Timing:
    """Return the timing of a job's pass."""
    first = compat.evaluations_per_step(compat.sampler_name(p, hires=False))
    evaluations = compat.asked_steps(p, hires=False) * first
    if not hires:
        return Timing(evaluations, None, first, (p.width, p.height))
    per_step = compat.evaluations_per_step(compat.sampler_name(p, hires=True))
    steps = compat.asked_steps(p, hires=True)
    return Timing(evaluations, steps * per_step, per_step, (p.hr_upscale_to_x, p.hr_upscale_to_y))


class Encodings:
    """A cache of the encoded texts of one pass, for the current model and extra networks.

    Texts are encoded before sampling; only if a sampler takes more steps than expected, one may be encoded during it.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._known: dict[tuple[str, Branch], Parts] = {}
        self._state: object = None

    def learn(self, texts: Iterable[str], branch: Branch, state: object) -> None:
        """Encode texts that are not cached; the cache is cleared if the text encoder's ``state`` has changed."""
        if state != self._state:
            self._state, self._known = state, {}
        for text in texts:
            if (text, branch) not in self._known:
                self._known[text, branch] = self._encode(text, branch)

    def at(self, text: str, branch: Branch, part: int, evaluation: int) -> Tensor:
        """Return the embedding "token dim" of an AND part of a text; missing parts are replaced by the last one."""
        self.learn([text], branch, self._state)
        parts = self._known[text, branch]
        schedule = parts[min(part, len(parts) - 1)]
        # The webui uses the first entry if all are past.
        return next((entry.context for entry in schedule if evaluation <= entry.last), schedule[0].context)

    def _encode(self, text: str, branch: Branch) -> Parts:
        width, height = self._timing.size
        prompts = prompt_parser.SdConditioning(
            [text], width=width, height=height, is_negative_prompt=branch == "uncond"
        )
        how = (self._timing.evaluations, self._timing.hires, compat.use_old_scheduling())
        family_of(shared.sd_model).prepare_encoding(shared.sd_model)
        with torch.no_grad(), devices.autocast():
            if branch == "uncond":
                encoded = prompt_parser.get_learned_conditioning(shared.sd_model, prompts, *how)
            else:
                joined = prompt_parser.get_multicond_learned_conditioning(shared.sd_model, prompts, *how)
                encoded = [part.schedules for part in joined.batch[0]]
        return tuple(
            tuple(Scheduled(e.end_at_step, compat.context(e.cond)) for e in part) for part in encoded
        )


def fill(context: Tensor, tokens: int) -> Tensor:
    """Pad an embedding "token dim" as the webui does to match longer ones, by repeating its last token."""
    missing = tokens - len(context)
    return context if missing <= 0 else torch.cat([context, context[-1:].expand(missing, -1)])


def schedules(texts: Iterable[str], branch: Branch, timing: Timing) -> dict[str, Schedule]:
    """Return the schedule of each text's first AND part, in sampling steps."""
    return {text: tuple(_schedule(text, branch, timing)) for text in texts}


def _schedule(text: str, branch: Branch, timing: Timing) -> Iterator[tuple[int, str]]:
    first = text if branch == "uncond" else compat.prompt_parts(text)[0]
    for last, said in compat.schedule(first, timing.evaluations, timing.hires):
        yield last // timing.per_step + 1, said


def tokenize(texts: Iterable[str]) -> dict[str, Tokens]:
    """Return the tokens of each text; empty if the model's tokenizer is not known."""
    engine = _engine(shared.sd_model)
    if engine is None:
        return {}
    return {text: tuple(_columns(engine, text)) for text in texts}


def _engine(sd_model: Any) -> Any:
    """Return the first text encoder that tokenizes prompts."""
    encoders = family_of(sd_model).encoders(sd_model)
    return next((one for one in encoders if hasattr(one, "tokenize_line") and hasattr(one, "id_end")), None)


def _columns(engine: Any, text: str) -> Iterator[Token]:
    chunks, _ = engine.tokenize_line(text)
    for chunk in chunks:
        inserted = {column: token for fix in chunk.fixes for column, token in _embedding(fix)}
        yield Token(mark="start")
        ended = False
        # tokenize_line counts the offsets of embeddings without the start token.
        for column, number in enumerate(chunk.tokens[1:]):
            if column in inserted:
                yield inserted[column]
            elif ended or number == engine.id_end:
                yield Token(mark="pad" if ended else "end")
                ended = True
            else:
                yield piece(_name(engine, number))


def _embedding(fix: Any) -> Sequence[tuple[int, Token]]:
    """Return the tokens of a textual inversion: each vector is a token, and together they are a word."""
    vectors = int(fix.embedding.vectors)
    name = str(fix.embedding.name).lower().encode()
    whole = [Token(name if i == 0 else b"", ends_word=i == vectors - 1) for i in range(vectors)]
    return [(fix.offset + i, token) for i, token in enumerate(whole)]


def _name(engine: Any, number: int) -> str:
    if hasattr(engine, "tokenizer"):
        return str(engine.tokenizer.convert_ids_to_tokens(number))
    from open_clip.tokenizer import _tokenizer  # what the webui's OpenCLIP classes use internally

    return str(_tokenizer.decoder[number])
