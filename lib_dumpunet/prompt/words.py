"""The words of a prompt among its tokens: which columns of a cross-attention map belong to a word."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from lib_dumpunet.errors import SettingsError

CONTINUED = "…"
"""Label of a column that holds only the rest of a character that the column before it began."""

LISTED = 40
"""Words of the prompt that an error names at most."""

_FUNCTION_WORDS = """
a an the this that these those it its his her their and or but nor of on in into onto at to from by with without for as
is are was were be been being has have had
's 't 're 've 'm 'll 'd
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English words that show nothing by themselves; the last row is what CLIP cuts off from "it's" and "don't"."""

# Beginnings of the names that Unicode gives to characters of scripts written without spaces between words. Korean has
# spaces, but glues its particles to the word.
UNSPACED = (
    "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "HANGUL", "HALFWIDTH HANGUL", "THAI", "LAO",
    "KHMER", "MYANMAR",
)  # fmt: skip


@dataclass(frozen=True)
class Token:
    """One column of the text.

    Attributes:
        piece: UTF-8 bytes as the tokenizer cut them, which may be inside a character, in the tokenizer's (lower) case;
            empty for a further vector of an embedding, which belongs to the piece before it.
        ends_word: whether a word ends with this piece.
        mark: "start", "end" or "pad" for columns that hold no piece of the prompt.
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
    """A prompt's characters without the space between words, the columns that hold each, and where words end.

    ``ends`` counts characters: 3 says that a word ends with the third. Bytes that are no text, which a cut prompt may
    begin or end with, are lone surrogates in ``text``, one each, so that characters can be counted in bytes.
    """

    text: str
    columns: tuple[tuple[int, ...], ...]
    ends: frozenset[int]


@dataclass(frozen=True)
class _Phrase:
    """Words without the space between them; ``gaps`` are the characters before which there was space."""

    text: str
    gaps: frozenset[int]


def labels(tokens: Sequence[Token]) -> tuple[str, ...]:
    """Name each column by its piece, and columns that hold none as ``<start>``, ``<end>`` and ``<pad>``.

    A character that is cut over several columns, and an embedding of several vectors, is shown at the first of them;
    the others are "…".
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
    """Find a word or phrase in a prompt, in any letter case and with any white space between its words.

    An occurrence has to begin and end where words of the tokenizer do, so "cat" is not in "caterpillar"; in scripts
    written without spaces it may be anywhere. It may run over columns without text, such as those between chunks.

    Raises:
        SettingsError: with the words that there are, if it is not in the prompt or there is nothing to look for.
    """
    line, phrase = _read(tokens), _phrase(text)
    found = {column for place in _places(line, phrase) for column in _columns(line, place)}
    if not found:
        as_it_is = " as it stands, word after word" if phrase.gaps else ""
        problem = (
            f"{text!r} is not in the prompt{as_it_is}" if phrase.text else "there is no word to look for"
        )
        raise SettingsError(problem, remedy=_remedy(tokens), field=field)
    return Word(_normal(" ".join(text.split())), tuple(sorted(found)))


def content_words(tokens: Sequence[Token]) -> tuple[Word, ...]:
    """List the words of a prompt but for English function words, each once and in order."""
    return tuple(word for word in _distinct(tokens) if word.text.casefold() not in FUNCTION_WORDS)


def all_words(tokens: Sequence[Token]) -> tuple[str, ...]:
    """List the words of a prompt, each once and in order, without punctuation."""
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
    """Write ``text`` as CLIP's tokenizers do before they cut it."""
    return unicodedata.normalize("NFC", text).lower()


def _comparable(text: str) -> str:
    """Make one of the two small sigmas: tokenizers differ in whether Σ at the end of a word becomes ς or σ."""
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
    if unicodedata.category(line.text[index]).startswith("M"):  # a mark is part of the letter before it
        return False
    return index in line.ends or _is_unspaced(line, index)


def _same_words(line: _Line, phrase: _Phrase, start: int) -> bool:
    """Compare where words end: "no where" and "now here" have the same letters, and so has "nowhere".

    The tokenizer also ends words at punctuation and digits without a space, which the phrase may leave as they are.
    """
    for offset in range(1, len(phrase.text)):
        index = start + offset
        gap, end = offset in phrase.gaps, index in line.ends
        between_letters = line.text[index - 1].isalpha() and line.text[index].isalpha()
        if gap != end and (gap or between_letters) and not _is_unspaced(line, index):
            return False
    return True


def _is_unspaced(line: _Line, index: int) -> bool:
    """Return whether one of the characters beside the cut before ``index`` is in a script without spaces."""
    return any(unicodedata.name(c, "").startswith(UNSPACED) for c in line.text[index - 1 : index + 1])


def _distinct(tokens: Sequence[Token]) -> tuple[Word, ...]:
    """List words without regard to their case, with the columns of all occurrences."""
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
