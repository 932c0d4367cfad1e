"""The meaning of per-block prompts: the texts that a block reads in a step, and their weights.

The pairs of a bracket assign texts to blocks and steps. Outside its steps, an item has no effect. In a given block and
step, the bracket's text comes from the last item that names both; otherwise from the last ``_`` that acts in the
step, which covers every block that no item names *in that step*; otherwise the text is empty, as if the bracket had
been erased.

An item of strength s mixes two prompts: one with its text (weight s) and one with the bracket erased (1 - s). If
several brackets do so in one block, every subset of them gives a prompt, and its weight is the product of s (bracket
kept) or 1 - s (bracket erased). The weights add up to 1. A strength above 1 exaggerates, and makes some weights
negative.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from lib_dumpunet.blocks import SD1, BlockOrder
from lib_dumpunet.errors import DumpUNetError, PromptSyntaxError, SourcePosition
from lib_dumpunet.prompt.selection import StepChoice

OPEN, CLOSE = "(~:", ":~)"
STRONGEST = 10


class Share(NamedTuple):
    """A text that a block reads, and its weight in the mix."""

    text: str
    weight: float


def heaviest(shares: Iterable[Share]) -> str:
    """Return the text with the largest weight; the first on a tie."""
    return max(shares, key=lambda share: share.weight).text


@dataclass(frozen=True, eq=False)
class Assignment:
    """One item of a block-spec with the text of its pair. Compared by identity: each has its own position in a prompt.

    Attributes:
        blocks: its blocks; None for ``_``, which covers those that no other item names in the step.
        single: whether the item names one block, not a range.
        steps: the steps in which it acts; ``steps.text`` is the item as written.
        steps_at: index of the prompt's character where the steps are, or would be.
    """

    blocks: frozenset[str] | None
    single: bool
    text: str
    strength: Fraction
    steps: StepChoice
    steps_at: int

    def options(self) -> Iterator[tuple[str, Fraction]]:
        """Yield the texts that may replace the bracket, with their weights: the item's text, and the empty one."""
        if self.strength != 0:
            yield self.text, self.strength
        if self.strength != 1:
            yield "", 1 - self.strength


Acting = tuple[Assignment | None, ...]
"""For each bracket of a prompt, in order, the item that acts in a block and a step; None where none does."""


@dataclass(frozen=True)
class Bracket:
    """The items of one ``(~: ... :~)``, in order."""

    items: tuple[Assignment, ...]

    def acting(self, block: str, step: int) -> Assignment | None:
        """Find the item that gives a block its text in a step; None if there is none."""
        otherwise = None
        for item in reversed(self.items):
            if step in item.steps:
                if item.blocks is not None and block in item.blocks:
                    return item
                if item.blocks is None and otherwise is None:
                    otherwise = item
        return otherwise

    def mixes(self, block: str) -> bool:
        """Return whether a block may get more than one text from this bracket at once."""
        return any(
            item.strength not in (0, 1) for item in self.items if item.blocks is None or block in item.blocks
        )


@dataclass(frozen=True)
class Template:
    """A prompt that may vary by block and step: plain texts and brackets, in order.

    Attributes:
        field: the field that the prompt was typed in, for messages.
        order: the blocks of the model that the prompt was parsed for.
    """

    source: str
    parts: tuple[str | Bracket, ...] = dataclasses.field(compare=False, repr=False)
    field: str = ""
    order: BlockOrder = SD1

    def shares(self, block: str, step: int) -> tuple[Share, ...]:
        """Return the texts that a block reads in a step (counted from 1), with weights that add up to 1.

        Equal texts are merged, and those of weight 0 left out, so a single text has exactly the weight 1.0. The text
        with all brackets comes first.
        """
        return self.mix(self.acting(block, step))

    def text_for(self, block: str, step: int = 1) -> str:
        """Return the text with the largest weight; on a tie, the one with the texts of more brackets."""
        return heaviest(self.shares(block, step))

    def acting(self, block: str, step: int) -> Acting:
        """Find each bracket's item that acts in a block and a step."""
        return tuple(bracket.acting(block, step) for bracket in self.brackets)

    def mix(self, acting: Acting) -> tuple[Share, ...]:
        """Join the texts of acting items with those between brackets; weights are those of ``shares``."""
        chosen = iter(acting)
        # Fractions, so that weights add up to exactly 1.
        weights = {"": Fraction(1)}
        for part in self.parts:
            if isinstance(part, str):
                weights = {text + part: weight for text, weight in weights.items()}
            elif item := next(chosen):
                weights = _branch(weights, item)
        return tuple(Share(text, float(weight)) for text, weight in weights.items() if weight)

    @property
    def erased(self) -> str:
        """The base prompt: the source without its brackets."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def plain(self) -> Template:
        """The base prompt as a prompt of its own."""
        return Template(self.erased, (self.erased,), self.field, self.order)

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        """The brackets, in order."""
        return tuple(part for part in self.parts if isinstance(part, Bracket))

    @property
    def has_brackets(self) -> bool:
        """Whether the prompt has per-block brackets."""
        return bool(self.brackets)

    def fail(self, problem: str, remedy: str, position: int) -> DumpUNetError:
        """Make the error for a problem at a position of the source."""
        return PromptSyntaxError(
            problem, remedy=remedy, field=self.field, source=SourcePosition(self.source, position)
        )


def _branch(weights: dict[str, Fraction], item: Assignment) -> dict[str, Fraction]:
    """Append each of an item's texts to each text so far, and merge equal results."""
    longer: dict[str, Fraction] = {}
    for text, weight in weights.items():
        for more, share in item.options():
            longer[text + more] = longer.get(text + more, Fraction()) + weight * share
    return longer
