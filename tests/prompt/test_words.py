"""Words among tokens: in any language, however the tokenizer splits them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dumpunet.errors import SettingsError
from lib_dumpunet.prompt.words import Token, all_words, content_words, find_word, labels

START, END, PAD = Token(mark="start"), Token(mark="end"), Token(mark="pad")

# A letter run, a single digit, or anything else without a space: what CLIP's tokenizers take for a word.
RUN = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\w\s]|_)+")


def cut(text: str, size: int) -> list[Token]:
    """Tokenize a prompt like CLIP, but into pieces of ``size`` bytes."""
    tokens = []
    for run in RUN.findall(unicodedata.normalize("NFC", text).lower()):
        data = run.encode()
        tokens += [
            Token(data[first : first + size], ends_word=first + size >= len(data))
            for first in range(0, len(data), size)
        ]
    return tokens


def spread(tokens: Iterable[Token], chunk: int) -> list[Token]:
    """Put special tokens around every ``chunk`` tokens."""
    tokens = list(tokens)
    rows: list[Token] = []
    for first in range(0, len(tokens), chunk):
        rows += [START, *tokens[first : first + chunk], END, PAD]
    return rows


def text_of(tokens: list[Token], columns: tuple[int, ...]) -> str:
    """Join the pieces of some tokens."""
    return b"".join(tokens[column].piece for column in columns).decode("utf-8", "replace")


PROMPT = "A cute blackcat and a caterpillar, (PINK  hair), blue-eyed; don't\nΣΟΦΟΣ café"


@pytest.mark.parametrize(
    ("prompt", "phrase", "words"),
    [
        (PROMPT, "cute", "cute"),
        (PROMPT, "Cute", "cute"),
        (PROMPT, " cute\n", "cute"),
        (PROMPT, "a", "aa"),
        (PROMPT, "pink hair", "pinkhair"),
        (PROMPT, "Pink \u3000 HAIR", "pinkhair"),
        (PROMPT, "blue-eyed", "blue-eyed"),
        (PROMPT, "blue - eyed", "blue-eyed"),
        (PROMPT, "eyed", "eyed"),
        (PROMPT, "don't", "don't"),
        (PROMPT, "caterpillar, ( Pink", "caterpillar,(pink"),
        (PROMPT, "), blue", "),blue"),
        ("赤い猫", "赤い 猫", "赤い猫"),
        (PROMPT, "σοφος", "σοφος"),
        (PROMPT, "ΣΟΦΟΣ", "σοφος"),
        (PROMPT, "σοφοσ", "σοφος"),
        (PROMPT, "cafe\u0301", "café"),
        (PROMPT, "CAFÉ", "café"),
        ("cat, cat and a cat", "cat", "catcatcat"),
        ("very very old", "very very", "veryvery"),
        ("4k 8k", "4k", "4k"),
        ("now here", "now here", "nowhere"),
        ("nowhere", "nowhere", "nowhere"),
        ("赤い猫が", "猫", "猫"),
        ("赤い猫が", "赤い猫", "赤い猫"),
        ("猫と猫", "猫", "猫猫"),
        ("黒いTシャツ", "tシャツ", "tシャツ"),
        ("かわいいcatを", "cat", "cat"),
        ("귀여운 고양이는", "고양이", "고양이"),
        ("แมวดำ", "แมว", "แมว"),
        ("人々、時々", "々", "々々"),
        ("Ａ Ｂ", "ａ", "ａ"),
        ("кот и собака", "КОТ", "кот"),
        ("🐈🐈‍⬛ cat", "🐈🐈‍⬛", "🐈🐈‍⬛"),
    ],
)
def test_found(prompt: str, phrase: str, words: str) -> None:
    tokens = cut(prompt, 1)
    columns = find_word(tokens, phrase).columns
    # A single byte each, so that a column too many or too few shows.
    assert text_of(tokens, columns) == words


@pytest.mark.parametrize(
    ("prompt", "phrase"),
    [
        ("caterpillar", "cat"),
        ("blackcat", "cat"),
        ("concatenate", "cat"),
        ("now here", "nowhere"),
        ("nowhere", "now here"),
        ("no where", "now here"),
        ("pink hair", "hair pink"),
        ("wow!!", "! !"),
        ("хорошо", "хор"),
        ("हिन्दी", "न"),
        ("सी", "स"),
        ("cafe", "café"),
        ("", "cat"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 99])
def test_not_found(prompt: str, phrase: str, size: int) -> None:
    with pytest.raises(SettingsError, match="is not in the prompt"):
        find_word(cut(prompt, size), phrase)


def test_columns_are_all_that_hold_a_byte_of_it() -> None:
    tokens = [
        START,
        Token(b"a", ends_word=True),
        Token("赤".encode()[:2]),
        Token("赤い".encode()[2:] + "猫".encode()[:1]),
        Token("猫".encode()[1:2]),
        Token("猫が".encode()[2:], ends_word=True),
        END,
        PAD,
    ]
    assert find_word(tokens, "猫").columns == (3, 4, 5)
    assert find_word(tokens, "赤").columns == (2, 3)
    assert find_word(tokens, "が").columns == (5,)
    assert labels(tokens) == ("<start>", "a", "赤", "い猫", "…", "が", "<end>", "<pad>")


def test_words_that_the_tokenizer_ends_at_each_chinese_character() -> None:
    tokens = [Token(character.encode(), ends_word=True) for character in "a赤い猫b"]
    assert find_word(tokens, "赤い猫").columns == (1, 2, 3)
    assert find_word(tokens, "a赤い猫b").columns == (0, 1, 2, 3, 4)


def test_a_phrase_may_run_over_the_border_of_a_chunk() -> None:
    tokens = [START, Token(b"pink", True), END, START, Token(b"ha"), END, PAD, START, Token(b"ir", True), END]
    word = find_word(tokens, "Pink  hair")
    assert (word.text, word.columns) == ("pink hair", (1, 4, 8))
    assert all_words(tokens) == ("pink", "hair")


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_nothing_to_look_for(text: str) -> None:
    with pytest.raises(SettingsError) as error:
        find_word(cut("a red cat.", 9), text, field="Words")
    assert str(error.value) == "Words: there is no word to look for. Its words are: a, red, cat."


def test_the_error_lists_the_words() -> None:
    with pytest.raises(SettingsError) as error:
        find_word(cut("A cat, a DOG!", 2), "mouse")
    assert str(error.value) == "words: 'mouse' is not in the prompt. Its words are: a, cat, dog."
    with pytest.raises(SettingsError, match=r"prompt\. The prompt has no words\."):
        find_word([START, END, PAD], "mouse")
    with pytest.raises(SettingsError, match=r"word0, .*, word39 and 5 more\."):
        find_word([Token(f"word{n}".encode(), True) for n in range(45)], "mouse")


def test_content_words() -> None:
    tokens = spread(cut("The Cat of a cat's house, in a (red) HOUSE; it's 3 – 猫が", 3), 5)
    words = content_words(tokens)
    assert [word.text for word in words] == ["cat", "house", "red", "3", "猫が"]
    assert words[0].columns == find_word(tokens, "cat").columns
    assert text_of(tokens, words[1].columns) == "househouse"


def test_all_words_leave_punctuation_out() -> None:
    assert all_words(cut('a red cat, A big-red "dog" !!! :3', 2)) == ("a", "red", "cat", "big", "dog", "3")


def test_labels_of_bytes_that_are_no_text() -> None:
    assert labels([Token(b"\xe7"), Token(b"a\xff", True), Token()]) == ("\ufffd", "a\ufffd", "…")


@given(st.text().filter(lambda text: "…" not in text), st.integers(1, 9), st.integers(1, 9))
def test_labels_spell_the_prompt(text: str, size: int, chunk: int) -> None:
    tokens = spread(cut(text, size), chunk)
    names = labels(tokens)
    spelt = "".join(name for name, token in zip(names, tokens, strict=True) if not token.mark and name != "…")
    assert len(names) == len(tokens)
    assert spelt == "".join(RUN.findall(unicodedata.normalize("NFC", text).lower()))


@given(st.lists(st.sampled_from(["cat", "Pink", "café", "猫", "ж", "blue-eyed", ","]), min_size=2), st.data())
def test_every_phrase_of_a_prompt_is_found(words: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first + 1, len(words)))
    size, chunk = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    before, phrase = cut(" ".join(words[:first]), size), " ".join(words[first:last])
    own = cut(phrase, size)
    tokens = spread([*before, *own, *cut(" ".join(words[last:]), size)], chunk)
    places = [column for column, token in enumerate(tokens) if not token.mark]
    expected = places[len(before) : len(before) + len(own)]
    columns = find_word(tokens, phrase).columns
    assert set(expected) <= set(columns)
    assert all(left < right for left, right in pairwise(columns))
