"""Parse per-block prompts: ``a (~: IN00-OUT11: cute ; M00*0.5@1-10: excellent :~) girl``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from lark import Token, Tree

from lib_dumpunet.blocks import SD1, BlockOrder
from lib_dumpunet.prompt.diagnostics import check_lookalikes, explain
from lib_dumpunet.prompt.grammar import Grammar, Mismatch
from lib_dumpunet.prompt.selection import MANY_DIGITS, Fail, StepChoice, block_range, step_range
from lib_dumpunet.prompt.template import CLOSE, OPEN, STRONGEST, Assignment, Bracket, Template

TEMPLATE = Grammar("layer_prompt.lark", "template")
MOST_BRACKETS = 500
"""Limit of brackets in a prompt; more would take long to parse, and nobody needs as many."""
MOST_MIXED = 8
"""Limit of brackets that mix texts in one block: n of them make 2ⁿ texts to encode."""
# The webui's syntax for a LoRA, hypernetwork or similar: <name:arguments>.
EXTRA_NETWORK = re.compile(r"<\w+:[^<>]+>")


def parse_prompt(text: str, order: Iterable[str] = SD1, *, field: str = "") -> Template:
    """Parse a prompt with per-block brackets, for a model with the blocks of ``order``.

    Raises:
        PromptSyntaxError: with the position, if a bracket does not match the grammar or names an unknown block, or if
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
        raise explain(error, text, TEMPLATE, empty.fail) from None
    check_lookalikes(text, empty.fail)
    parts = [_bracket(part, empty) if isinstance(part, Tree) else str(part) for part in tree.children]
    template = Template(text, tuple(parts), field, empty.order)
    starts = [part.meta.start_pos for part in tree.children if isinstance(part, Tree)]
    _check_mixing(template, starts)
    return template


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
            f"{network[0]} cannot be given per block, because extra networks act on the whole U-Net",
            f"Put it outside {OPEN} {CLOSE}.",
            (token.start_pos or 0) + network.start(),
        )
    return token.replace("\\;", ";")
