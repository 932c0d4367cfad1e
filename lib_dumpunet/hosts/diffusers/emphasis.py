"""Parse the webui's prompt markup, emphasis and ``BREAK``, into texts and weights.

https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features#attentionemphasis
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import attrgetter
from typing import NamedTuple

EMPHASIS = {"(": 1.1, "[": 1 / 1.1}
OPENING = {")": "(", "]": "["}

_PART = re.compile(
    r"""
      \\ (?P<escaped> [()\[\]\\]? )
    | (?P<open> [(\[] )
    | : \s* (?P<weight> [+-]? (?: \d+ \.? \d* | \. \d+ ) ) \s* \)
    | (?P<close> [)\]] )
    | (?P<break> \b BREAK \b )
    | [^\\()\[\]:B]+
    | .  # a colon that does not begin a weight, a B that does not begin BREAK
    """,
    re.VERBOSE | re.DOTALL,
)


class Run(NamedTuple):
    """A text with one weight."""

    text: str
    weight: float


def parse_emphasis(text: str) -> tuple[tuple[Run, ...], ...]:
    """Parse a prompt's markup into the sections between ``BREAK``s, each a tuple of runs.

    ``(x)`` has the weight 1.1, ``[x]`` 1/1.1, ``(x:1.3)`` 1.3; nested brackets multiply. Every text is valid: an
    unclosed bracket acts to the end, and a closing bracket without a partner is text. So is a bracket or backslash
    after a backslash; other backslashes are removed.
    """
    reader = _Reader()
    for match in _PART.finditer(text):
        reader.take(match)
    reader.finish()
    bounds = [0, *reader.breaks, len(reader.runs)]
    return tuple(_merged(reader.runs[start:end]) for start, end in pairwise(bounds))


@dataclass
class _Reader:
    """The runs of a prompt so far; ``opened`` and ``breaks`` are indices of runs."""

    runs: list[Run] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    opened: dict[str, list[int]] = field(default_factory=lambda: {bracket: [] for bracket in EMPHASIS})

    def take(self, match: re.Match[str]) -> None:
        """Take the next match."""
        kind, text = match.lastgroup, match[0]
        if kind == "open":
            self.opened[text].append(len(self.runs))
        elif kind == "break":
            self.breaks.append(len(self.runs))
        elif kind == "close" and self.opened[OPENING[text]]:
            self._weigh(OPENING[text], EMPHASIS[OPENING[text]])
        elif kind == "weight" and self.opened["("]:
            self._weigh("(", float(match["weight"]))
        else:
            self.runs.append(Run(match["escaped"] if kind == "escaped" else text, 1.0))

    def finish(self) -> None:
        """Apply unclosed brackets to the end of the prompt."""
        for bracket, starts in self.opened.items():
            while starts:
                self._weigh(bracket, EMPHASIS[bracket])

    def _weigh(self, bracket: str, factor: float) -> None:
        start = self.opened[bracket].pop()
        self.runs[start:] = [Run(run.text, run.weight * factor) for run in self.runs[start:]]


def _merged(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Join neighbours of equal weight, so that the tokenizer gets a word with an escaped bracket whole."""
    groups = groupby(runs, key=attrgetter("weight"))
    return tuple(Run("".join(run.text for run in group), weight) for weight, group in groups)
