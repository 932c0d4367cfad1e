"""Read per-block prompts: ``a (~: IN00-OUT11: cute ; M00: excellent :~) girl``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lark import Token, Tree

from lib_dumpunet.blocks import SD1, BlockOrder
from lib_dumpunet.errors import DumpUNetError, PromptSyntaxError, Spot
from lib_dumpunet.prompt.grammar import Grammar, Mismatch, complaint, one_of
from lib_dumpunet.prompt.selection import Fail, blocks_of

TEMPLATE = Grammar("layer_prompt.lark", "template")
OPEN, CLOSE = "(~:", ":~)"
# What the webui takes for a LoRA, hypernetwork or the like: <name:arguments>.
EXTRA_NETWORK = re.compile(r"<\w+:[^<>]+>")


@dataclass(frozen=True)
class Bracket:
    """One ``(~: ... :~)``: the text of each named block, and the text of all others."""

    texts: Mapping[str, str]
    otherwise: str

    def text_for(self, block: str) -> str:
        """Text that a block gets at this place."""
        return self.texts.get(block, self.otherwise)


@dataclass(frozen=True)
class Template:
    """A prompt that may differ from block to block: plain texts and brackets, in order."""

    source: str
    parts: tuple[str | Bracket, ...]

    def text_for(self, block: str) -> str:
        """Prompt of one block."""
        return "".join(part if isinstance(part, str) else part.text_for(block) for part in self.parts)

    @property
    def erased(self) -> str:
        """The base prompt: the source with every bracket taken out."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def has_brackets(self) -> bool:
        """Tell whether any text is given per block."""
        return any(isinstance(part, Bracket) for part in self.parts)


def parse_prompt(text: str, order: Iterable[str] = SD1, *, field: str = "") -> Template:
    """Read a prompt with per-block brackets, for a model with the blocks of ``order``.

    Raises:
        PromptSyntaxError: with the position, if a bracket does not follow the grammar or names an unknown block.
    """
    names = BlockOrder(tuple(order))

    def fail(problem: str, remedy: str, position: int) -> DumpUNetError:
        return PromptSyntaxError(problem, remedy=remedy, field=field, spot=Spot(text, position))

    try:
        tree = TEMPLATE.parse(text)
    except Mismatch as error:
        raise _explain(error, text, fail) from None
    parts = (_bracket(p, names, fail) if isinstance(p, Tree) else str(p) for p in tree.children)
    return Template(text, tuple(parts))


def _bracket(tree: Tree, order: BlockOrder, fail: Fail) -> Bracket:  # type: ignore[type-arg]
    texts: dict[str, str] = {}
    otherwise = ""
    for pair in (child for child in tree.children if isinstance(child, Tree)):
        spec, *rest = pair.children
        prompt = "".join(_prompt(token, fail) for token in rest if isinstance(token, Token))
        if spec.data == "otherwise":
            otherwise = prompt
        else:
            texts.update(dict.fromkeys(blocks_of(spec, order, fail), prompt))
    return Bracket(texts, otherwise)


def _prompt(token: Token, fail: Fail) -> str:
    network = EXTRA_NETWORK.search(token)
    if network:
        raise fail(
            f"{network[0]} cannot be given per block, as extra networks act on the whole U-Net",
            f"Put it outside of {OPEN} {CLOSE}.",
            (token.start_pos or 0) + network.start(),
        )
    return token.replace("\\;", ";")


def _explain(error: Mismatch, text: str, fail: Fail) -> DumpUNetError:
    position = error.position
    inside = text.rfind(OPEN, 0, position)
    if inside >= 0 and text.startswith(OPEN, position):
        return fail(f"brackets {OPEN} {CLOSE} do not nest", f"Close the first one with {CLOSE}.", position)
    if text.startswith(CLOSE, position) and "'(~:'" in error.expected:
        return fail(f"{CLOSE} closes nothing", f"Open a bracket with {OPEN}, or leave it out.", position)
    if position == len(text):
        return fail(
            f"this bracket is not closed; the text ends where {one_of(error.expected)} is expected",
            f"Close it with {CLOSE}.",
            inside,
        )
    return fail(complaint(text, position), f"Expected {one_of(error.expected)}.", position)
