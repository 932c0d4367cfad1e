"""Find the words of a prompt among its tokens, which are the columns of a cross-attention map."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from lib_dumpunet.errors import SettingsError

CONTINUED = "…"
"""Label of a token that only continues a character begun by the token before it."""

LISTED = 40
"""The most words of the prompt that an error lists."""

_FUNCTION_WORDS = """
a an the this that these those it its his her their and or but nor of on in into onto at to from by with without for as
is are was were be been being has have had
's 't 're 've 'm 'll 'd
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English words without content of their own; the last row is what CLIP splits off from "it's" and "don't"."""

# Prefixes of the Unicode names of characters in scripts written without spaces between words. Korean has spaces, but
# attaches particles to words.
UNSPACED = (
    "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "HANGUL", "HALFWIDTH HANGUL", "THAI", "LAO",
    "KHMER", "MYANMAR",
)  # fmt: skip


@dataclass(frozen=True)
class Token:
    """One token, and so one column of an attention map.

    Attributes:
        piece: UTF-8 bytes, possibly part of a character, in the tokenizer's (lower) case; empty for the second and
            later vectors of an embedding, which belong to the piece before them.
        ends_word: whether a word ends with this piece.
        mark: "start", "end" or "pad" for tokens that are not part of the prompt.
    """

    piece: bytes = b""
    ends_word: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Word:
    """A word or phrase of the prompt, and the columns of all its occurrences in order."""

    text: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class _Line:
    """A prompt's characters without the spaces between words, the columns of each character, and where words end.

    ``ends`` counts characters: 3 means that a word ends with the third. Bytes that are not text, with which a truncated
    prompt may begin or end, are lone surrogates in ``text``, one each, so that character sizes in bytes stay right.
    """

    text: str
    columns: tuple[tuple[int, ...], ...]
    ends: frozenset[int]


@dataclass(frozen=True)
class _Phrase:
    """Words without the spaces between them; ``gaps`` are the indices of characters that follow a space."""

    text: str
    gaps: frozenset[int]


def labels(tokens: Sequence[Token]) -> tuple[str, ...]:
    """Label each token by its piece, and tokens without one as ``<start>``, ``<end>`` and ``<pad>``.

    A character split into several tokens, and an embedding of several vectors, labels the first of its tokens; the
    others are "…".
    """
    begun = [""] * len(tokens)
    line = _read(tokens)
    for character, columns in zip(line.text, line.columns, strict=True):
        begun[columns[0]] += character
    return tuple(
        f"<{token.mark}>" if token.mark else _shown(text) or CONTINUED
        for token, text in zip(tokens, begun, strict=True)
    )


def find_word(tokens: Sequence[Token], text: str, *, field: str = "words") -> Word:
    """Find a word or phrase in a prompt, ignoring case and the amount of white space.

    An occurrence must begin and end at the tokenizer's word boundaries, so "cat" is not in "caterpillar"; in scripts
    written without spaces it may be anywhere. It may span tokens without text, such as those between chunks.

    Raises:
        SettingsError: if the text is empty or not in the prompt; the message lists the prompt's words.
    """
    line, phrase = _read(tokens), _phrase(text)
    found = {column for place in _places(line, phrase) for column in _columns(line, place)}
    if not found:
        as_phrase = " as a phrase, word after word" if phrase.gaps else ""
        problem = (
            f"{text!r} is not in the prompt{as_phrase}" if phrase.text else "there is no word to look for"
        )
        raise SettingsError(problem, remedy=_remedy(tokens), field=field)
    return Word(_normal(" ".join(text.split())), tuple(sorted(found)))


def content_words(tokens: Sequence[Token]) -> tuple[Word, ...]:
    """List the distinct words of a prompt in order, except English function words."""
    return tuple(word for word in _distinct(tokens) if word.text.casefold() not in FUNCTION_WORDS)


def all_words(tokens: Sequence[Token]) -> tuple[str, ...]:
    """List the distinct words of a prompt in order, without punctuation."""
    return tuple(word.text for word in _distinct(tokens))


def _read(tokens: Sequence[Token]) -> _Line:
    owners: list[tuple[int, ...]] = []
    byte_ends = set()
    for column, token in enumerate(tokens):
        if not token.mark:
            if not token.piece and owners:
                owners[-1] += (column,)
            owners += [(column,)] * len(token.piece)
            if token.ends_word:
                byte_ends.add(len(owners))
    text = b"".join(token.piece for token in tokens if not token.mark).decode("utf-8", "surrogateescape")
    sizes = [len(character.encode("utf-8", "surrogateescape")) for character in text]
    bounds = _running_sums(sizes)
    return _Line(
        text,
        tuple(
            tuple(dict.fromkeys(chain.from_iterable(owners[start:end]))) for start, end in pairwise(bounds)
        ),
        frozenset(index for index, bound in enumerate(bounds) if bound in byte_ends),
    )


def _running_sums(sizes: Iterable[int]) -> list[int]:
    sums = [0]
    for size in sizes:
        sums.append(sums[-1] + size)
    return sums


def _phrase(text: str) -> _Phrase:
    words = [_comparable(_normal(word)) for word in text.split()]
    return _Phrase("".join(words), frozenset(_running_sums(len(word) for word in words)[1:-1]))


def _normal(text: str) -> str:
    """Normalise ``text`` as CLIP's tokenizers do before splitting it."""
    return unicodedata.normalize("NFC", text).lower()


def _comparable(text: str) -> str:
    """Unify the two small sigmas: tokenizers differ in whether a final Σ becomes ς or σ."""
    return text.replace("ς", "σ")


def _places(line: _Line, phrase: _Phrase) -> Iterator[range]:
    """Yield the characters of each occurrence."""
    text = _comparable(line.text)
    start = text.find(phrase.text) if phrase.text else -1
    while start >= 0:
        place = range(start, start + len(phrase.text))
        if _may_cut(line, place.start) and _may_cut(line, place.stop) and _same_words(line, phrase, start):
            yield place
        start = text.find(phrase.text, start + 1)


def _may_cut(line: _Line, index: int) -> bool:
    """Return whether an occurrence may begin or end before character ``index``."""
    if index in (0, len(line.text)):
        return True
    if unicodedata.category(line.text[index]).startswith("M"):  # a mark belongs to the letter before it
        return False
    return index in line.ends or _is_unspaced(line, index)


def _same_words(line: _Line, phrase: _Phrase, start: int) -> bool:
    """Compare word boundaries, which distinguish "no where", "now here" and "nowhere".

    The tokenizer also splits words at punctuation and digits, where the phrase need not have a space.
    """
    for offset in range(1, len(phrase.text)):
        index = start + offset
        gap, end = offset in phrase.gaps, index in line.ends
        between_letters = line.text[index - 1].isalpha() and line.text[index].isalpha()
        if gap != end and (gap or between_letters) and not _is_unspaced(line, index):
            return False
    return True


def _is_unspaced(line: _Line, index: int) -> bool:
    """Return whether a character next to the boundary before ``index`` is in a script without spaces."""
    return any(unicodedata.name(c, "").startswith(UNSPACED) for c in line.text[index - 1 : index + 1])


def _distinct(tokens: Sequence[Token]) -> tuple[Word, ...]:
    """List distinct words, ignoring case, with the columns of all their occurrences."""
    line = _read(tokens)
    words: dict[str, Word] = {}
    for start, end in pairwise(sorted({0, *line.ends, len(line.text)})):
        text = _shown(line.text[start:end])
        if any(character.isalnum() for character in text):
            earlier = words.get(text.casefold(), Word(text, ()))
            columns = {*earlier.columns, *_columns(line, range(start, end))}
            words[text.casefold()] = Word(earlier.text, tuple(sorted(columns)))
    return tuple(words.values())


def _columns(line: _Line, place: range) -> set[int]:
    return {column for index in place for column in line.columns[index]}


def _shown(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _remedy(tokens: Sequence[Token]) -> str:
    words = all_words(tokens)
    if not words:
        return "The prompt has no words."
    rest = f" and {len(words) - LISTED} more" if len(words) > LISTED else ""
    return f"Its words are: {', '.join(words[:LISTED])}{rest}."
