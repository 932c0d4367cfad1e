"""CLIP's tokenizer for checkpoint files, which contain no vocabulary, without a network.

`clip_merges.txt` is the list of byte pairs that CLIP's text encoders were trained with: the first 48,894 lines of
`bpe_simple_vocab_16e6.txt` in the packages `clip` and `open-clip-torch` (MIT License, copyright 2021 OpenAI).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_dumpunet.tiny.tokenizer import BEGIN, END, LENGTH, WORD_END, byte_alphabet

MERGES = Path(__file__).with_name("clip_merges.txt")


def clip_tokenizer(pad: str) -> Any:
    """Make the tokenizer; `pad` is the padding token."""
    from transformers import CLIPTokenizer

    merges = [tuple(line.split(" ")) for line in MERGES.read_text("utf-8").splitlines()]
    letters = byte_alphabet()
    ends = [letter + WORD_END for letter in letters]
    tokens = [*letters, *ends, *("".join(merge) for merge in merges), BEGIN, END]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        pad_token=pad,
        model_max_length=LENGTH,
    )
