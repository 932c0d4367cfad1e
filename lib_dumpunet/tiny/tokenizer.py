"""A tokenizer in CLIP's format, with one token for every word of the captions."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .scenes import WORDS

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77  # tokens of a prompt, as in SD 1.x
WORD_END = "</w>"

Merge = tuple[str, str]


def build_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> None:
    """Write the four files that transformers' CLIPTokenizer loads.

    Byte-pair merges are learnt from ``words``, those of the captions, until each is one token; any other text is
    split into letters, so that every prompt can be tokenized.
    """
    merges = _learn_merges(words)
    letters = byte_alphabet()
    ends = [letter + WORD_END for letter in letters]
    vocabulary = dict.fromkeys([*letters, *ends, *("".join(merge) for merge in merges), BEGIN, END])
    special = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        **special,
    }
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: index for index, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def read_vocabulary(folder: Path) -> dict[str, int]:
    """Read the token ids of a folder that `build_tokenizer` wrote."""
    vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text("utf-8"))
    return vocabulary


def encode_caption(caption: str, vocabulary: dict[str, int]) -> list[int]:
    """Return the ids that CLIPTokenizer(padding="max_length") returns for known words, without its overhead."""
    ids = [vocabulary[BEGIN], *(vocabulary[word + WORD_END] for word in caption.split())]
    return ids + [vocabulary[END]] * (LENGTH - len(ids))


def byte_alphabet() -> list[str]:
    """Return CLIP's printable characters for the 256 bytes, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def _learn_merges(words: Sequence[str]) -> list[Merge]:
    pieces = [[*word[:-1], word[-1] + WORD_END] for word in words]
    merges: list[Merge] = []
    while any(len(piece) > 1 for piece in pieces):
        counts = Counter(pair for piece in pieces for pair in itertools.pairwise(piece))
        merges.append(min(counts, key=lambda pair: (-counts[pair], pair)))
        pieces = [_join(piece, merges[-1]) for piece in pieces]
    return merges


def _join(piece: list[str], merge: Merge) -> list[str]:
    joined: list[str] = []
    for token in piece:
        if joined and (joined[-1], token) == merge:
            joined[-1] += token
        else:
            joined.append(token)
    return joined
