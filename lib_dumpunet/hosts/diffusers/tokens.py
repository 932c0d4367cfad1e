"""Convert a transformers tokenizer's ids into tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lib_dumpunet.hosts.common.clip_vocab import piece
from lib_dumpunet.prompt.words import Token


def tokens_of(tokenizer: Any, ids: Sequence[int]) -> tuple[Token, ...]:
    """Return the token for each id of the text encoder's input.

    Args:
        tokenizer: a CLIPTokenizer of transformers, slow or fast.
        ids: the input, one or more chunks of start, pieces, end and padding.
    Returns:
        tokens, one for each id. After the end, everything is padding up to the next start: SD 1.x pads with the end
        token, SD 2.x and SDXL's second encoder with "!". An embedding of several vectors, which diffusers names <x>,
        <x>_1 and so on, is one word.
    """
    added = _added_tokens(tokenizer)
    names = tokenizer.convert_ids_to_tokens(list(ids))
    tokens: list[Token] = []
    ended = True
    before, vectors = "", 0
    for number, name in zip(ids, names, strict=True):
        if number in added and vectors and name == f"{before}_{vectors}":
            vectors += 1
            tokens[-1] = replace(tokens[-1], ends_word=False)
            tokens.append(Token(ends_word=True))
            continue
        before, vectors = name, int(number in added)
        if number == tokenizer.bos_token_id:
            tokens.append(Token(mark="start"))
            ended = False
        elif ended or number == tokenizer.eos_token_id:
            tokens.append(Token(mark="pad" if ended else "end"))
            ended = True
        else:
            tokens.append(added.get(number) or piece(name))
    return tuple(tokens)


def _added_tokens(tokenizer: Any) -> Mapping[int, Token]:
    """Return the tokens that the tokenizer never splits; each is a word.

    Textual inversion adds such tokens; where "!" is the padding token, a "!" in the prompt is the same token.
    """
    vocabulary = tokenizer.get_added_vocab()
    return {number: Token(name.lower().encode(), ends_word=True) for name, number in vocabulary.items()}
