"""A tokenizer's ids as the core's tokens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from lib_dumpunet.hosts.diffusers.tokens import tokens_of
from lib_dumpunet.prompt.words import Token, all_words, find_word, labels
from tests.pipelines import tokenizer_folder


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return CLIPTokenizer.from_pretrained(tokenizer_folder())


def padded(tokenizer: Any, text: str) -> list[int]:
    """Make the input of a text encoder."""
    return tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids


def test_pieces_and_special_columns(tokenizer: Any) -> None:
    tokens = tokens_of(tokenizer, padded(tokenizer, "Red cat é"))
    assert len(tokens) == 77
    assert tokens[:8] == (
        Token(mark="start"),
        Token(b"red", ends_word=True),
        Token(b"c"),
        Token(b"a"),
        Token(b"t", ends_word=True),
        Token(b"\xc3"),
        Token(b"\xa9", ends_word=True),
        Token(mark="end"),
    )
    assert set(tokens[8:]) == {Token(mark="pad")}


@pytest.mark.parametrize("padding", ["<|endoftext|>", "!"])
def test_all_after_the_end_is_padding_up_to_the_next_chunk(tokenizer: Any, padding: str) -> None:
    start, end, pad = (
        tokenizer.convert_tokens_to_ids(name) for name in ("<|startoftext|>", "<|endoftext|>", padding)
    )
    red = tokenizer("red!!", add_special_tokens=False).input_ids
    tokens = tokens_of(tokenizer, [start, *red, end, pad, pad] * 2)
    assert labels(tokens) == ("<start>", "red", "!", "!", "<end>", "<pad>", "<pad>") * 2


def test_padding_that_is_also_text() -> None:
    """SD 2.x pads with "!", which is then a token without a word's end everywhere."""
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder(), pad_token="!")
    ids = padded(tokenizer, "red! star")
    assert ids[2] == ids[-1] == tokenizer.pad_token_id
    tokens = tokens_of(tokenizer, ids)
    assert labels(tokens)[:6] == ("<start>", "red", "!", "star", "<end>", "<pad>")
    assert all_words(tokens) == ("red", "star")


def test_full_chunks_have_no_padding(tokenizer: Any) -> None:
    marks = [token.mark for token in tokens_of(tokenizer, padded(tokenizer, "red " * 80) * 2)]
    assert marks == ["start", *[""] * 75, "end"] * 2


def test_textual_inversions_are_words_whatever_their_vectors() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder())
    tokenizer.add_tokens(["<My-Stylé>", "<My-Stylé>_1", "<My-Stylé>_2", "other"])
    text = "red<My-Stylé> <My-Stylé>_1 <My-Stylé>_2 star other <My-Stylé>"
    tokens = tokens_of(tokenizer, padded(tokenizer, text))
    assert labels(tokens)[:9] == (
        *("<start>", "red", "<my-stylé>", "…", "…", "star", "other", "<my-stylé>", "<end>"),
    )
    assert find_word(tokens, "<my-stylé>").columns == (2, 3, 4, 7)
    assert find_word(tokens, "red <My-Stylé>").columns == (1, 2, 3, 4)
    assert find_word(tokens, "<my-stylé> star").columns == (2, 3, 4, 5)
    assert all_words(tokens) == ("red", "<my-stylé>", "star", "other")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_pieces_hold_the_bytes_of_the_text(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assume(not set(ids) & set(tokenizer.all_special_ids))  # see the next test
    tokens = tokens_of(tokenizer, [tokenizer.bos_token_id, *ids])
    cut = b"".join(token.piece for token in tokens).decode()
    # The tokenizer's own way back, which puts a space after each word.
    assert cut.split() == tokenizer.decode(ids).replace(" ", "").split()


def test_a_name_of_an_end_in_a_text_is_an_end(tokenizer: Any) -> None:
    """The tokenizer takes it for a special token, so it is not a piece of the text."""
    ids = tokenizer("red <|endoftext|>", add_special_tokens=False).input_ids
    tokens = tokens_of(tokenizer, [tokenizer.bos_token_id, *ids])
    assert labels(tokens)[-1] == "<end>"
    assert b"".join(token.piece for token in tokens) == b"red"
