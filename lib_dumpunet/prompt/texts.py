"""The tokens of a request's prompts, and the words of them that heatmaps are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lib_dumpunet.captures import Branch
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.prompt.plan import PromptPlan
from lib_dumpunet.prompt.words import Token, Word, content_words, find_word

EVERYTHING = "*"
BETWEEN = Token(b"\xff", ends_word=True)
"""Stands between prompts, so that no phrase is found half in one and half in the next; no text has this byte."""
Tokens = tuple[Token, ...]
Schedule = tuple[tuple[int, str], ...]
"""Texts that follow each other, each with the last step, from 1, in which it is read."""


@dataclass(frozen=True)
class Texts:
    """What the blocks read of a request's prompts, and the tokens of each text, one for each column.

    Attributes:
        plan: None says that the host does not know.
        tokens: by text; a text that is not in it is not known.
        filler: tokens of the chunk that texts are filled up with beside longer ones.
        schedules: by text, what its first part says up to which steps, where the host's notation has that change.
    """

    plan: PromptPlan | None = None
    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    filler: Tokens = ()
    schedules: Mapping[str, Schedule] = field(default_factory=dict)

    def of(self, branch: Branch) -> list[Tokens]:
        """List the tokens of all texts of the prompts or negative prompts, each once, main texts first."""
        texts = () if self.plan is None else self.plan.texts(branch)
        read = dict.fromkeys(text for whole in texts for _, text in self.schedules.get(whole, ((0, whole),)))
        return [self.tokens[text] for text in read if text in self.tokens]

    def of_image(self, image: int, branch: Branch) -> list[Tokens]:
        """List the tokens of all texts that an image's blocks read, each once."""
        if self.plan is None:
            return []
        read: dict[str, None] = {}
        for block in self.plan.attending:
            for step in range(1, self.plan.steps + 1):
                read.setdefault(self.text(BatchRow(image, branch), block, step))
        return [self.tokens[text] for text in read if text in self.tokens]

    def text(self, row: BatchRow, block: str, step: int) -> str:
        """Return the text that a block reads in a step; of several that are mixed, the one of the largest weight."""
        whole = "" if self.plan is None else self.plan.text(row, block, step)
        schedule = self.schedules.get(whole, ())
        return next((text for last, text in schedule if step <= last), schedule[-1][1] if schedule else whole)

    def columns(self, row: BatchRow, block: str, step: int, count: int) -> Tokens:
        """Return what the ``count`` columns are that a block reads; nothing if that is not known."""
        tokens = self.tokens.get(self.text(row, block, step), ())
        while tokens and self.filler and len(tokens) < count:
            tokens += self.filler
        return tokens if len(tokens) == count else ()


@dataclass(frozen=True)
class WordChoice:
    """The words of a prompt that heatmaps are asked for; without phrases, all content words."""

    phrases: tuple[str, ...]
    field: str

    def find(self, tokens: Tokens) -> tuple[Word, ...]:
        """Find the words in one prompt; phrases that are only in others are left out."""
        if not self.phrases:
            return content_words(tokens)
        found = (self._find(tokens, phrase) for phrase in self.phrases)
        return tuple(word for word in found if word is not None)

    def missing(self, texts: Iterable[Tokens]) -> tuple[str, ...]:
        """List the phrases that are in none of the texts."""
        known = list(texts)
        return tuple(p for p in self.phrases if all(self._find(tokens, p) is None for tokens in known))

    def check(self, texts: Sequence[Tokens]) -> None:
        """Make sure that there is something to show, and that each phrase is in one of the prompts at least.

        Raises:
            SettingsError: with the words that there are.
        """
        distinct = list(dict.fromkeys(texts))
        if not any(distinct):
            raise SettingsError(
                "the tokens of the prompt are not known", remedy="Leave it out.", field=self.field
            )
        if not self.phrases and not any(map(content_words, distinct)):
            raise SettingsError(
                "the prompt has no words but function words",
                remedy="Name the words to show.",
                field=self.field,
            )
        everything = [token for tokens in distinct for token in (*tokens, BETWEEN)]
        for phrase in self.phrases:
            find_word(everything, phrase, field=self.field)

    def _find(self, tokens: Tokens, phrase: str) -> Word | None:
        try:
            return find_word(tokens, phrase, field=self.field)
        except SettingsError:
            return None


def parse_words(text: str, *, field: str) -> WordChoice:
    """Read words and phrases joined by commas; nothing, or ``*``, means all content words."""
    phrases = tuple(
        phrase for phrase in dict.fromkeys(" ".join(p.split()) for p in text.split(",")) if phrase
    )
    return WordChoice(() if EVERYTHING in phrases else phrases, field)
