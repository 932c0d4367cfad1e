"""What per-block prompts mean: which texts a block reads in a step, and with which weights.

The pairs of a bracket assign texts to blocks and steps. Outside of its steps an item is as if it had not been
written. For a block in a step, the last item that names both gives the text of this place; else the last ``_`` that
acts in the step, which takes every block that no item names *in that step*; else the bracket gives the empty string,
as if it had been erased.

An item of strength s mixes the prompt with its text (weight s) and the prompt with the bracket erased (1 - s). Where
several brackets do so in one block, the weights multiply: every subset of the brackets is a prompt, of the weight that
the product over the brackets of s or 1 - s gives it. They add up to 1; with a strength above 1, which exaggerates,
some are negative.
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
    """A text that a block reads, and its weight among those that are mixed."""

    text: str
    weight: float


def heaviest(shares: Iterable[Share]) -> str:
    """Return the text of the largest weight, on a tie the first."""
    return max(shares, key=lambda share: share.weight).text


@dataclass(frozen=True, eq=False)
class Assignment:
    """One item of a block-spec and the text of its pair. Each is a place in a prompt, so no two are equal.

    Attributes:
        blocks: None for ``_``: those that no other item names in the step.
        single: one block was named, not a range.
        steps: when it acts; its ``text`` is the item as it was written.
        steps_at: character of the prompt at which the steps are, or would be.
    """

    blocks: frozenset[str] | None
    single: bool
    text: str
    strength: Fraction
    steps: StepChoice
    steps_at: int

    def options(self) -> Iterator[tuple[str, Fraction]]:
        """Yield what may stand at the bracket's place, and the weight of each: the text, and nothing."""
        if self.strength != 0:
            yield self.text, self.strength
        if self.strength != 1:
            yield "", 1 - self.strength


Acting = tuple[Assignment | None, ...]
"""For each bracket of a prompt, in order, the item that acts in a block and a step; None where none does."""


@dataclass(frozen=True)
class Bracket:
    """One ``(~: ... :~)``: its items, in order."""

    items: tuple[Assignment, ...]

    def acting(self, block: str, step: int) -> Assignment | None:
        """Find the item that gives a block its text in a step."""
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
    """A prompt that may differ from block to block and from step to step: plain texts and brackets, in order.

    Attributes:
        field: where the prompt was written, for messages.
        order: the blocks of the model that it was read for.
    """

    source: str
    parts: tuple[str | Bracket, ...] = dataclasses.field(compare=False, repr=False)
    field: str = ""
    order: BlockOrder = SD1

    def shares(self, block: str, step: int) -> tuple[Share, ...]:
        """Return the texts that a block reads in a step, from 1, with weights that add up to 1.

        Equal texts are one share, and those of weight 0 are left out, so a single one has exactly the weight 1.0. The
        text of all brackets comes first.
        """
        return self.mix(self.acting(block, step))

    def text_for(self, block: str, step: int = 1) -> str:
        """Return the text of the largest weight, on a tie the one with the texts of more brackets."""
        return heaviest(self.shares(block, step))

    def acting(self, block: str, step: int) -> Acting:
        """Find the item of each bracket that acts in a block and a step."""
        return tuple(bracket.acting(block, step) for bracket in self.brackets)

    def mix(self, acting: Acting) -> tuple[Share, ...]:
        """Join the texts of acting items with those between brackets; weights as ``shares`` has them."""
        chosen = iter(acting)
        # Fractions: the weights of equal texts must add up to 1 exactly, not nearly.
        weights = {"": Fraction(1)}
        for part in self.parts:
            if isinstance(part, str):
                weights = {text + part: weight for text, weight in weights.items()}
            elif item := next(chosen):
                weights = _branch(weights, item)
        return tuple(Share(text, float(weight)) for text, weight in weights.items() if weight)

    @property
    def erased(self) -> str:
        """The base prompt: the source with every bracket taken out."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def plain(self) -> Template:
        """The base prompt as a prompt of its own."""
        return Template(self.erased, (self.erased,), self.field, self.order)

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        """The brackets alone."""
        return tuple(part for part in self.parts if isinstance(part, Bracket))

    @property
    def has_brackets(self) -> bool:
        """Whether any text is given per block."""
        return bool(self.brackets)

    def fail(self, problem: str, remedy: str, position: int) -> DumpUNetError:
        """Make the error for a problem at a position of the source."""
        return PromptSyntaxError(
            problem, remedy=remedy, field=self.field, source=SourcePosition(self.source, position)
        )


def _branch(weights: dict[str, Fraction], item: Assignment) -> dict[str, Fraction]:
    """Go on with each text by each option of an item, and join texts that have become equal."""
    longer: dict[str, Fraction] = {}
    for text, weight in weights.items():
        for more, share in item.options():
            longer[text + more] = longer.get(text + more, Fraction()) + weight * share
    return longer
