"""Read per-block prompts: ``a (~: IN00-OUT11: cute ; M00*0.5@1-10: excellent :~) girl``.

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
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from lark import Token, Tree

from lib_dumpunet.blocks import SD1, BlockOrder
from lib_dumpunet.errors import DumpUNetError, PromptSyntaxError, SourcePosition
from lib_dumpunet.prompt.grammar import Grammar, Mismatch, describe_mismatch, one_of
from lib_dumpunet.prompt.selection import MANY_DIGITS, Fail, StepChoice, block_range, step_range

TEMPLATE = Grammar("layer_prompt.lark", "template")
OPEN, CLOSE = "(~:", ":~)"
STRONGEST = 10
MOST_BRACKETS = 500
"""More would take long to read, and none has been seen that were meant."""
MOST_MIXED = 8
"""Brackets that may mix texts in one block: n of them make 2ⁿ texts, which all have to be encoded."""
# What the webui takes for a LoRA, hypernetwork or the like: <name:arguments>.
EXTRA_NETWORK = re.compile(r"<\w+:[^<>]+>")


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


def parse_prompt(text: str, order: Iterable[str] = SD1, *, field: str = "") -> Template:
    """Read a prompt with per-block brackets, for a model with the blocks of ``order``.

    Raises:
        PromptSyntaxError: with the position, if a bracket does not follow the grammar or names an unknown block, or if
            too many brackets mix texts in one block.
    """
    empty = Template(text, (), field, BlockOrder(tuple(order)))
    if text.count(OPEN) > MOST_BRACKETS:
        raise empty.fail(
            f"there are more than {MOST_BRACKETS} brackets",
            "Join some.",
            [found.start() for found in re.finditer(re.escape(OPEN), text)][MOST_BRACKETS],
        )
    try:
        tree = TEMPLATE.parse(text)
    except Mismatch as error:
        raise _explain(error, text, empty.fail) from None
    _check_lookalikes(text, empty.fail)
    parts = [_bracket(part, empty) if isinstance(part, Tree) else str(part) for part in tree.children]
    template = Template(text, tuple(parts), field, empty.order)
    starts = [part.meta.start_pos for part in tree.children if isinstance(part, Tree)]
    _check_mixing(template, starts)
    return template


def _check_lookalikes(text: str, fail: Fail) -> None:
    """Refuse what looks like the beginning of a bracket, as all of it would be read as text."""
    for found in NEARLY_OPEN.finditer(text):
        if found[0] != OPEN:
            raise fail(f"{found[0]!r} does not open a bracket", f"Write {OPEN} instead.", found.start())


def _check_mixing(template: Template, starts: Sequence[int]) -> None:
    for block in template.order:
        mixing = [start for b, start in zip(template.brackets, starts, strict=True) if b.mixes(block)]
        if len(mixing) > MOST_MIXED:
            raise template.fail(
                f"more than {MOST_MIXED} brackets mix texts in {block}",
                "Leave out a strength, or join brackets.",
                mixing[MOST_MIXED],
            )


def _bracket(tree: Tree, template: Template) -> Bracket:  # type: ignore[type-arg]
    items: list[Assignment] = []
    for pair in (child for child in tree.children if isinstance(child, Tree)):
        spec, *rest = pair.children
        prompt = "".join(_prompt(token, template.fail) for token in rest if isinstance(token, Token))
        for item in [spec] if spec.data == "otherwise" else spec.children:
            items.append(_assignment(item, prompt, template))
    return Bracket(tuple(items))


def _assignment(item: Tree, prompt: str, template: Template) -> Assignment:  # type: ignore[type-arg]
    parts = {part.data: part for part in item.children}
    start, end = item.meta.start_pos, item.meta.end_pos
    blocks, acting = parts.get("block_item"), parts.get("acting")
    steps = acting.children if acting else []
    return Assignment(
        blocks=frozenset(block_range(blocks, template.order, template.fail)) if blocks else None,
        single=blocks is not None and len(blocks.children) == 1,
        text=prompt,
        strength=_strength(parts.get("strength"), template.fail),
        steps=StepChoice(
            template.source[start:end].strip(),
            tuple(step_range(step, template.fail) for step in steps),
            template.field,
        ),
        steps_at=steps[0].meta.start_pos if steps else end,
    )


def _strength(tree: Tree | None, fail: Fail) -> Fraction:  # type: ignore[type-arg]
    if tree is None:
        return Fraction(1)
    (token,) = tree.children
    assert isinstance(token, Token)
    position = token.start_pos or 0
    if len(token) > MANY_DIGITS:
        raise fail("the number is too long", f"Use at most {MANY_DIGITS} characters.", position)
    strength = Fraction(token)
    if strength > STRONGEST:
        raise fail(f"a strength of {token} is too large", f"Use 0 to {STRONGEST}.", position)
    return strength


def _prompt(token: Token, fail: Fail) -> str:
    network = EXTRA_NETWORK.search(token)
    if network:
        raise fail(
            f"{network[0]} cannot be given per block, as extra networks act on the whole U-Net",
            f"Put it outside of {OPEN} {CLOSE}.",
            (token.start_pos or 0) + network.start(),
        )
    return token.replace("\\;", ";")


class _Hint(NamedTuple):
    """Says more of a mistake than the grammar can: patterns of the pair before its place, and of what stands there."""

    before: str
    there: str
    problem: str
    remedy: str


_ALONE = "_ stands alone, as it takes every block that nothing else in this bracket names"
_TWO_PAIRS = "Write two pairs: IN00: text ; _: text."
_STEPS_SO_FAR = r"@[\s0-9,()+-]*"
# Tried in order.
HINTS = (
    _Hint(r"^\s*_", ",", _ALONE, _TWO_PAIRS),
    _Hint(r",\s*$", "_", _ALONE, _TWO_PAIRS),
    _Hint(
        _STEPS_SO_FAR + "$",
        r"\*",
        "the strength stands before the steps",
        "Write M00*0.5@1-10, for instance.",
    ),
    _Hint("", r"\{block\}", "", "Name a block; {block} is for the command sweep, which tries each."),
    _Hint(r"@\s*$", "", "", "Expected steps such as 5 or 1-10."),
    _Hint("@[0-9]+$", r"\.[0-9]", "steps are whole numbers", "Write 1-10, for instance."),
    _Hint(_STEPS_SO_FAR + r"-\s*$", "", "", "Expected the last step of the range, such as 1-10."),
    _Hint(_STEPS_SO_FAR + r",\s*$", "", "", "Expected a number, as one more step, or a block such as IN00."),
    _Hint(r"-\s*$", "", "", "Expected the last block of the range, such as IN00-IN05."),
    _Hint(r"\*\s*$", "-", "a strength cannot be negative", f"Use 0 to {STRONGEST}."),
    _Hint(r"\*[0-9.\s]+$", "[%％]", "a strength is no percentage", "Write 0.5 for 50%."),
    _Hint(
        r"\*\s*[0-9]+,$", "[0-9]", "the decimals of a strength follow a point", "Write 0.5 instead of 0,5."
    ),
    _Hint(
        r"\*[0-9.\s]+$",
        r"-|\(\+",
        "the strength stands behind the range",
        "Write IN00-IN08(+2)*0.5, for instance.",
    ),
    _Hint(
        r"(?i)(_|(in|out|m)[0-9]+)\s*$",
        r"\.?[0-9]",
        "a strength has '*' before it, and steps have '@'",
        "Write M00*0.5 or M00@1-10, for instance.",
    ),
    _Hint(r"[\w.)]\s*$", re.escape(CLOSE), "':' and a text are missing", "Write M00: text, for instance."),
    _Hint(
        r"[\w.)]\s+$",
        r"(?!(in|out|m)\d)[^\W\d_]",
        "':' is missing before the text",
        "Write M00: text, for instance.",
    ),
)
_UNSEEN = r"[\u200b-\u200d\u2060\ufeff]*"
NEARLY_OPEN = re.compile(rf"[(（]{_UNSEEN}[~～〜]{_UNSEEN}[:：](?!{_UNSEEN}[~～〜])")
NEARLY_CLOSE = re.compile(r"[:：]\s*[~～〜]\s*[)）]")


def _explain(error: Mismatch, text: str, fail: Fail) -> DumpUNetError:
    position = error.position
    inside = text.rfind(OPEN, 0, position)
    if inside >= 0 and text.startswith(OPEN, position):
        return fail(f"brackets {OPEN} {CLOSE} do not nest", f"Close the first one with {CLOSE}.", position)
    if text.startswith(CLOSE, position) and "'(~:'" in error.expected:
        _check_lookalikes(text[:position], fail)
        return fail(f"{CLOSE} closes nothing", f"Open a bracket with {OPEN}, or leave it out.", position)
    if position == len(text):
        nearly = NEARLY_CLOSE.search(text, inside)
        if nearly:
            return fail(
                f"{nearly[0]!r} does not close the bracket", f"Write {CLOSE} instead.", nearly.start()
            )
        return fail(
            f"this bracket is not closed; the text ends where {one_of(error.expected)} is expected",
            f"Close it with {CLOSE}.",
            inside,
        )
    problem, remedy = _explain_spec(text, position)
    return fail(
        problem or describe_mismatch(text, position),
        remedy or f"Expected {one_of(error.expected)}.",
        position,
    )


def _explain_spec(text: str, position: int) -> tuple[str, str]:
    """Find the problem and the remedy of a mistake in a block-spec; empty where the grammar's words must do."""
    meant = TEMPLATE.meant(text, position)
    if meant:
        return "", meant
    start = max(text.rfind(OPEN, 0, position) + len(OPEN), text.rfind(";", 0, position) + 1)
    before = text[start:position]
    for hint in HINTS:
        if re.search(hint.before, before) and re.match(hint.there, text[position:], re.IGNORECASE):
            return hint.problem, hint.remedy
    return "", ""
