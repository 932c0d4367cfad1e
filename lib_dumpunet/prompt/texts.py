"""The tokens of a request's prompts, and the words that heatmaps are wanted for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lib_dumpunet.captures import Branch
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.prompt.plan import PromptPlan
from lib_dumpunet.prompt.words import Token, Word, content_words, find_word

EVERYTHING = "*"
BETWEEN = Token(b"\xff", ends_word=True)
"""Separates prompts, so that no phrase is found across two of them; no text contains this byte."""
Tokens = tuple[Token, ...]
Schedule = tuple[tuple[int, str], ...]
"""Texts that replace each other during sampling, each with the last step, from 1, in which it is read."""


@dataclass(frozen=True)
class Texts:
    """The texts that blocks read, and the tokens of each.

    Attributes:
        plan: None if the host does not know it.
        tokens: by text; texts whose tokens are unknown are missing.
        filler: tokens of the empty chunk that pads texts to the length of longer ones.
        schedules: by text, how the host's prompt editing (``[a:b:0.5]``) changes its first part during sampling.
        length_of: returns how many tokens a row reads in a block and step before the host repeats them to match longer
            texts; None if the host does not repeat.
    """

    plan: PromptPlan | None = None
    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    filler: Tokens = ()
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    length_of: Callable[[BatchRow, str, int], int] | None = None

    def of(self, branch: Branch) -> list[Tokens]:
        """List the tokens of all distinct texts of the prompts or negative prompts, main texts first."""
        texts = () if self.plan is None else self.plan.texts(branch)
        read = dict.fromkeys(text for whole in texts for _, text in self.schedules.get(whole, ((0, whole),)))
        return [self.tokens[text] for text in read if text in self.tokens]

    def of_image(self, image: int, branch: Branch) -> list[Tokens]:
        """List the tokens of all distinct texts that an image's blocks read."""
        if self.plan is None:
            return []
        read: dict[str, None] = {}
        for block in self.plan.attending:
            for step in range(1, self.plan.steps + 1):
                read.setdefault(self.text(BatchRow(image, branch), block, step))
        return [self.tokens[text] for text in read if text in self.tokens]

    def text(self, row: BatchRow, block: str, step: int) -> str:
        """Return the text that a block reads in a step; if several are mixed, the one with the largest weight."""
        whole = "" if self.plan is None else self.plan.text(row, block, step)
        schedule = self.schedules.get(whole, ())
        return next((text for last, text in schedule if step <= last), schedule[-1][1] if schedule else whole)

    def columns(self, row: BatchRow, block: str, step: int, count: int) -> Tokens:
        """Return the ``count`` tokens that a block reads; empty if they are not known."""
        tokens = self.tokens.get(self.text(row, block, step), ())
        while tokens and self.filler and len(tokens) < count:
            tokens += self.filler
        return tokens if len(tokens) == count else ()


@dataclass(frozen=True)
class WordChoice:
    """The words and phrases to make heatmaps of; without any, all content words."""

    phrases: tuple[str, ...]
    field: str

    def find(self, tokens: Tokens) -> tuple[Word, ...]:
        """Find the words in one prompt; phrases that it does not contain are left out."""
        if not self.phrases:
            return content_words(tokens)
        found = (self._find(tokens, phrase) for phrase in self.phrases)
        return tuple(word for word in found if word is not None)

    def missing(self, texts: Iterable[Tokens]) -> tuple[str, ...]:
        """List the phrases that none of the texts contains."""
        known = list(texts)
        return tuple(p for p in self.phrases if all(self._find(tokens, p) is None for tokens in known))

    def check(self, texts: Sequence[Tokens]) -> None:
        """Check that there are words to show, and that each phrase is in at least one of the prompts.

        Raises:
            SettingsError: if not; for a phrase, the message lists the prompts' words.
        """
        distinct = list(dict.fromkeys(texts))
        if not any(distinct):
            raise SettingsError(
                "the tokens of the prompt are not known", remedy="Leave it out.", field=self.field
            )
        if not self.phrases and not any(map(content_words, distinct)):
            raise SettingsError(
                "the prompt has only function words",
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
    """Parse words and phrases separated by commas; an empty text, or ``*``, means all content words."""
    phrases = tuple(
        phrase for phrase in dict.fromkeys(" ".join(p.split()) for p in text.split(",")) if phrase
    )
    return WordChoice(() if EVERYTHING in phrases else phrases, field)
