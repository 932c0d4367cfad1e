"""The tokenizer: every word of the captions is one token, and CLIPTokenizer agrees."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from lib_dumpunet.tiny import MODEL
from lib_dumpunet.tiny.scenes import WORDS, sample_scene
from lib_dumpunet.tiny.tokenizer import LENGTH, build_tokenizer, encode_caption, read_vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("word", WORDS)
def test_caption_word_is_one_token(tokenizer: CLIPTokenizer, word: str) -> None:
    ids = tokenizer(word).input_ids
    assert len(ids) == 3
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == word


def test_quick_encoding_gives_the_ids_of_clip_tokenizer(folder: Path, tokenizer: CLIPTokenizer) -> None:
    vocabulary = read_vocabulary(folder)
    captions = [sample_scene(random.Random(seed)).caption for seed in range(50)]
    slow = tokenizer(captions, padding="max_length", max_length=LENGTH).input_ids
    assert [encode_caption(caption, vocabulary) for caption in captions] == slow


def test_other_text_falls_apart_into_letters(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.tokenize("zebra") == ["z", "e", "b", "r", "a</w>"]
    assert tokenizer.decode(tokenizer("zebra é 9!").input_ids, skip_special_tokens=True) == "zebra é 9 !"


def test_bundled_tokenizer_is_the_one_that_is_built(folder: Path) -> None:
    built = read_vocabulary(folder)
    assert read_vocabulary(MODEL / "tokenizer") == built
