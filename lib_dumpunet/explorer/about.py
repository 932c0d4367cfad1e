"""What a page shows besides maps: facts about the image, its prompt, and each block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

from lib_dumpunet.captures import Branch
from lib_dumpunet.explorer.collect import SUMMARY, Collected
from lib_dumpunet.explorer.layout import levels_of
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.prompt.plan import PromptPlan
from lib_dumpunet.prompt.template import CLOSE, Template
from lib_dumpunet.settings import ColorSettings

BRANCHES: Sequence[Branch] = ("cond", "uncond")
Frame = tuple[bool, int]
"""Whether the step is of a hires pass, and the step."""


@dataclass(frozen=True)
class About:
    """What a page shows besides maps.

    Attributes:
        order: names of the blocks, in forward order.
        attending: blocks with cross-attention.
        table: the block table, with kind and shapes by block; blocks may be missing.
        colors: initial colours of maps, by mode.
        average: the average that blocks show initially.
        parameters: returns an image's generation parameters by label.
        plan: returns what blocks read in a pass (True for the hires pass); None if it is not known.
        no_picture: text to show if there is no image.
    """

    order: Sequence[str]
    attending: Sequence[str]
    table: Mapping[str, Mapping[str, Any]]
    colors: Mapping[str, ColorSettings]
    average: str
    parameters: Callable[[int], Mapping[str, str]]
    plan: Callable[[bool], PromptPlan | None]
    no_picture: str = "The image was not finished."


def told_blocks(about: About, image: int, collected: Collected, frames: Sequence[Frame]) -> dict[str, Any]:
    """Describe each block: its position in the U, its layers, and what it reads in each step."""
    sizes = {layer.block: parts[SUMMARY].size for layer, parts in collected.layers.items() if not layer.hires}
    levels = levels_of(about.order, {**sizes, **_output_sizes(about.table)})
    plans = {hires: about.plan(hires) for hires in (False, True)}
    reader = _Reader(image)
    blocks = [
        {
            "name": name,
            "level": levels[name],
            "kind": about.table.get(name, {}).get("kind", ""),
            "input": about.table.get(name, {}).get("input"),
            "output": about.table.get(name, {}).get("output"),
            "heads": about.table.get(name, {}).get("heads", []),
            "attends": name in about.attending,
            "steered": [
                branch
                for branch in BRANCHES
                if any(_is_steered(p, image, branch, name) for p in plans.values())
            ],
            "reads": {
                branch: [reader.number(plans[hires], branch, name, step) for hires, step in frames]
                for branch in BRANCHES
            },
        }
        for name in about.order
    ]
    return {"blocks": blocks, "texts": list(reader.texts)}


def _is_steered(plan: PromptPlan | None, image: int, branch: Branch, block: str) -> bool:
    """Return whether a block reads anything but the main text in some step of this image."""
    if not _is_known(plan, branch) or block not in plan.attending:
        return False
    row, steps = BatchRow(image, branch), range(1, plan.steps + 1)
    return any(plan.own(row, block, step) is not None for step in steps)


def _is_known(plan: PromptPlan | None, branch: Branch) -> TypeGuard[PromptPlan]:
    """Return whether it is known what blocks read from the prompt or negative prompt."""
    return plan is not None and bool(plan.cond if branch == "cond" else plan.uncond)


class _Reader:
    """Numbers the texts that blocks read, so that the page contains each only once."""

    def __init__(self, image: int) -> None:
        self.texts: dict[str, int] = {}
        self._image = image

    def number(self, plan: PromptPlan | None, branch: Branch, block: str, step: int) -> int:
        """Return the number of the text that a block reads in a step; -1 if it reads none, or it is not known."""
        if not _is_known(plan, branch) or block not in plan.attending:
            return -1
        shares = plan.shares(BatchRow(self._image, branch), block, step)
        parts = [f"{100 * share.weight:.4g}% {share.text}" for share in shares]
        text = shares[0].text if len(shares) == 1 else " + ".join(parts)
        return self.texts.setdefault(text, len(self.texts))


def _output_sizes(table: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    return {name: (row["output"][1], row["output"][2]) for name, row in table.items() if row.get("output")}


def told_prompt(about: About, image: int) -> list[dict[str, Any]]:
    """Split both prompts into text that all blocks share and brackets."""
    plan = about.plan(False)
    if plan is None:
        return []
    told = []
    for branch, templates in (("cond", plan.cond), ("uncond", plan.uncond)):
        if templates:
            template = templates[0 if len(templates) == 1 else image]
            told.append({"branch": branch, "parts": pieces_of(template)})
    return told


def pieces_of(template: Template) -> list[tuple[str, bool]]:
    """Split a prompt into texts and brackets as written; True marks a bracket."""
    pieces: list[tuple[str, bool]] = []
    at = 0
    for part in template.parts:
        end = at + len(part) if isinstance(part, str) else template.source.index(CLOSE, at) + len(CLOSE)
        pieces.append((template.source[at:end], not isinstance(part, str)))
        at = end
    return pieces


def told_color(color: ColorSettings) -> dict[str, Any]:
    return {**asdict(color), "formula": list(color.formula) if color.formula else None}
