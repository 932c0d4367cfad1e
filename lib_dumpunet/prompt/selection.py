"""Parse choices of blocks and steps: ``IN00-OUT11(+2),M00`` and ``1,5-20(+5)``."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lark import Token, Tree

from lib_dumpunet.blocks import SD1, BlockOrder
from lib_dumpunet.errors import DumpUNetError, SettingsError, SourcePosition
from lib_dumpunet.prompt.grammar import Grammar, Mismatch, describe_mismatch, one_of, own_name

BLOCKS = Grammar("selection.lark", "blocks")
STEPS = Grammar("selection.lark", "steps")
# Far above any number of steps or blocks, and short enough that int() is never slow.
MANY_DIGITS = 9
ENDLESS = 10**MANY_DIGITS
"""The end of an open range of steps such as 11-."""

Fail = Callable[[str, str, int], DumpUNetError]
"""Makes the error for a problem, its remedy, and the position in the text."""

log = logging.getLogger("dumpunet")


def select_blocks(text: str, order: Iterable[str] = SD1, *, field: str = "Layers") -> tuple[str, ...]:
    """Parse a choice of blocks; empty text chooses all.

    Returns:
        The chosen names in forward order, each once.
    Raises:
        SettingsError: with the position, for text outside the grammar or a block that ``order`` lacks.
    """
    names = BlockOrder(tuple(order))
    fail = _failure(text, field)
    tree = _parse(BLOCKS, text, fail)
    items = [item for child in tree.children if isinstance(child, Tree) for item in child.children]
    chosen = {name for item in items for name in block_range(item, names, fail)} if items else set(names)
    return tuple(name for name in names if name in chosen)


@dataclass(frozen=True)
class StepChoice:
    """Chosen sampling steps before their total is known; without ranges, all steps."""

    text: str
    ranges: tuple[range, ...]
    field: str

    def __contains__(self, step: object) -> bool:
        return not self.ranges or any(step in r for r in self.ranges)

    def up_to(self, total: int) -> tuple[int, ...]:
        """List the chosen steps from 1 to ``total``; log a warning if some are past the end.

        Raises:
            SettingsError: if no step is left.
        """
        chosen = self.left(total)
        if self.goes_past(total):
            log.warning(
                "%s: %r goes past the last step; sampling takes %d steps", self.field, self.text, total
            )
        return chosen

    def left(self, total: int) -> tuple[int, ...]:
        """List the chosen steps from 1 to ``total``, without a warning.

        Raises:
            SettingsError: if no step is left.
        """
        return self.within(total, _failure(self.text, self.field), 0)

    def within(self, total: int, fail: Fail, position: int) -> tuple[int, ...]:
        """List the chosen steps from 1 to ``total``; if no step is left, raise ``fail``'s error at ``position``."""
        chosen = tuple(step for step in range(1, total + 1) if step in self)
        if not chosen:
            raise fail(
                f"no step is left, as sampling takes {total}", f"Choose steps from 1 to {total}.", position
            )
        return chosen

    def goes_past(self, total: int) -> bool:
        """Return whether a step past ``total`` is named; choosing all steps does not count."""
        return self.largest > total

    @property
    def largest(self) -> int:
        """The largest step that is named; 0 if none is."""
        return max((r[0] if r.stop == ENDLESS else r[-1] for r in self.ranges), default=0)


def parse_steps(text: str, *, field: str = "Image saving steps") -> StepChoice:
    """Parse a choice of sampling steps; empty text chooses all.

    Raises:
        SettingsError: with the position, for text outside the grammar, or step 0.
    """
    fail = _failure(text, field)
    # Accept a leading @, as in a bracket; a space in its place keeps the positions of errors right.
    plain = text.replace("@", " ", 1) if text.lstrip().startswith("@") else text
    tree = _parse(STEPS, plain, fail)
    items = [item for child in tree.children if isinstance(child, Tree) for item in child.children]
    return StepChoice(text, tuple(step_range(item, fail) for item in items), field)


def select_steps(text: str, total: int, *, field: str = "Image saving steps") -> tuple[int, ...]:
    """Parse a choice of sampling steps from 1 to ``total``; empty text chooses all.

    Raises:
        SettingsError: as ``parse_steps`` and ``StepChoice.up_to``.
    """
    return parse_steps(text, field=field).up_to(total)


def block_range(item: Tree, order: BlockOrder, fail: Fail) -> tuple[str, ...]:  # type: ignore[type-arg]
    """Resolve a ``block_item`` of a parse tree, a block or a range."""
    ends = [_known(t, order, fail) for t in _tokens(item, "BLOCK")]
    low, high = min(ends), max(ends)
    return order.names[low : high + 1 : _stride(item, fail)]


def step_range(item: Tree, fail: Fail) -> range:  # type: ignore[type-arg]
    """Resolve a ``step_item`` of a parse tree, a step or a range, which may be open."""
    ends = []
    for token in (t for step in _parts(item, "step") for t in _tokens(step, "NUMBER")):
        ends.append(_number(token, fail))
        if ends[-1] == 0:
            raise fail("there is no step 0", "Steps are counted from 1.", token.start_pos or 0)
    stop = ENDLESS if _parts(item, "endless") else max(ends) + 1
    return range(min(ends), stop, _stride(item, fail))


def _stride(item: Tree, fail: Fail) -> int:  # type: ignore[type-arg]
    for stride in _parts(item, "stride"):
        (token,) = _tokens(stride, "NUMBER")
        number = _number(token, fail)
        if number == 0:
            raise fail("a range cannot advance by 0", "Use (+1) or more.", token.start_pos or 0)
        return number
    return 1


def _known(token: Token, order: BlockOrder, fail: Fail) -> int:
    name = token.upper()
    if name in order:
        return order.index(name)
    letters, digits = name.rstrip("0123456789"), name.lstrip("INOUTM")
    padded = f"{letters}{digits.lstrip('0').rjust(2, '0')}"
    hint = f"Did you mean {padded}?" if padded in order else f"The model has {order}."
    if name in SD1:  # a loop over SD 1.x's blocks was probably pasted for SDXL
        hint += f" As a list for a loop: {json.dumps(list(order))}"
    raise fail(f"the model has no block {name}", hint, token.start_pos or 0)


def _number(token: Token, fail: Fail) -> int:
    if len(token) > MANY_DIGITS:
        raise fail("the number is too large", f"Use at most {MANY_DIGITS} digits.", token.start_pos or 0)
    return int(token)


def _tokens(tree: Tree, kind: str) -> list[Token]:  # type: ignore[type-arg]
    """List the tokens of one kind below a tree, in order."""
    return [t for t in tree.scan_values(lambda v: isinstance(v, Token)) if own_name(t.type) == kind]


def _parts(tree: Tree, rule: str) -> list[Tree]:  # type: ignore[type-arg]
    """List the children of a tree that belong to a rule."""
    return [child for child in tree.children if isinstance(child, Tree) and own_name(child.data) == rule]


def _failure(text: str, field: str) -> Fail:
    def fail(problem: str, remedy: str, position: int) -> DumpUNetError:
        return SettingsError(problem, remedy=remedy, field=field, source=SourcePosition(text, position))

    return fail


def _parse(grammar: Grammar, text: str, fail: Fail) -> Tree:  # type: ignore[type-arg]
    try:
        return grammar.parse(text)
    except Mismatch as error:
        wanted = grammar.meant(text, error.position) or f"Expected {one_of(error.expected)}."
        raise fail(describe_mismatch(text, error.position), wanted, error.position) from None
