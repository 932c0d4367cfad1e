"""Plan the texts of a request: what each block of each image reads in each step, and each image's main text.

SDXL's pooled text embedding is not per block. It uses an image's *main text*: the text that most blocks with
cross-attention read. Each of these blocks votes in each step, with the weights of its shares; on a tie the base prompt
(without brackets) wins.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lib_dumpunet.blocks import spans
from lib_dumpunet.captures import Branch
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.prompt.template import Acting, Bracket, Share, Template, heaviest

log = logging.getLogger("dumpunet")


@dataclass(frozen=True)
class _Reading:
    """The texts that blocks with cross-attention read from one template, cached."""

    template: Template
    attending: Sequence[str]
    steps: int
    _mixtures: dict[Acting, tuple[Share, ...]] = field(default_factory=dict)
    _shares: dict[tuple[str, int], tuple[Share, ...]] = field(default_factory=dict)

    def shares(self, block: str, step: int) -> tuple[Share, ...]:
        """Return what ``Template.shares`` returns, from a cache."""
        key = (block, step)
        if key not in self._shares:
            acting = self.template.acting(block, step)
            if acting not in self._mixtures:
                self._mixtures[acting] = self.template.mix(acting)
            self._shares[key] = self._mixtures[acting]
        return self._shares[key]

    @cached_property
    def main(self) -> str:
        """The text that most blocks read."""
        votes: dict[str, list[float]] = {}
        for block in self.attending:
            for step in range(1, self.steps + 1):
                for share in self.shares(block, step):
                    votes.setdefault(share.text, []).append(share.weight)
        totals = {text: math.fsum(weights) for text, weights in votes.items()}
        most = max(totals.values(), default=0.0)
        # Weights are rounded fractions, so equal totals may differ in the last digits.
        winners = [text for text, total in totals.items() if math.isclose(total, most, rel_tol=1e-9)]
        return winners[0] if len(winners) == 1 else self.template.erased

    @cached_property
    def steered(self) -> frozenset[str]:
        """Blocks that read anything but the main text in some step."""
        main = (Share(self.main, 1.0),)
        steps = range(1, self.steps + 1)
        return frozenset(b for b in self.attending if any(self.shares(b, step) != main for step in steps))


@dataclass(frozen=True)
class PromptPlan:
    """The prompts and negative prompts of a request, by image; a single prompt applies to all images.

    Attributes:
        uncond: empty without guidance.
        attending: the blocks with cross-attention, in forward order.
        steps: the sampler's number of steps.
    """

    cond: tuple[Template, ...]
    uncond: tuple[Template, ...]
    attending: tuple[str, ...]
    steps: int

    @property
    def has_brackets(self) -> bool:
        """Whether any prompt has brackets."""
        return any(template.has_brackets for template in self._readings)

    @property
    def plain(self) -> PromptPlan:
        """The same prompts with all brackets removed."""
        cond, uncond = (tuple(t.plain for t in templates) for templates in (self.cond, self.uncond))
        return PromptPlan(cond, uncond, self.attending, self.steps)

    def template(self, row: BatchRow) -> Template:
        """Return the parsed prompt of an image."""
        return self._reading(row).template

    def main(self, row: BatchRow) -> str:
        """Return the main text of an image, which is used for whatever is not per block."""
        return self._reading(row).main

    def shares(self, row: BatchRow, block: str, step: int) -> tuple[Share, ...]:
        """Return the texts that a block reads in a step, from 1, and their weights, as ``Template.shares``."""
        return self._reading(row).shares(block, step)

    def own(self, row: BatchRow, block: str, step: int) -> tuple[Share, ...] | None:
        """Return the texts that a block reads in a step; None if it reads only the main text."""
        reading = self._reading(row)
        shares = reading.shares(block, step)
        return None if shares == (Share(reading.main, 1.0),) else shares

    def text(self, row: BatchRow, block: str, step: int) -> str:
        """Return the text of the largest weight, as ``Template.text_for``."""
        return heaviest(self.shares(row, block, step))

    def texts(self, branch: Branch) -> tuple[str, ...]:
        """List every distinct text needed for the prompts or negative prompts.

        Main texts come first, in order of images; the others follow in the order in which sampling uses them. Texts
        that only blocks without cross-attention would read are left out.
        """
        templates = dict.fromkeys(self._templates(branch))
        readings = [self._readings[template] for template in templates]
        used = (
            share.text
            for step in range(1, self.steps + 1)
            for block in self.attending
            for reading in readings
            for share in reading.shares(block, step)
        )
        return tuple(dict.fromkeys([*(reading.main for reading in readings), *used]))

    @cached_property
    def steered(self) -> tuple[str, ...]:
        """Blocks that read anything but the main text in some step of some image, in forward order."""
        blocks = frozenset[str]().union(*(reading.steered for reading in self._readings.values()))
        return tuple(block for block in self.attending if block in blocks)

    @cached_property
    def _readings(self) -> dict[Template, _Reading]:
        return {t: _Reading(t, self.attending, self.steps) for t in (*self.cond, *self.uncond)}

    @cached_property
    def _by_row(self) -> dict[Branch, list[_Reading]]:
        return {
            "cond": [self._readings[template] for template in self.cond],
            "uncond": [self._readings[template] for template in self.uncond],
        }

    def _templates(self, branch: Branch) -> tuple[Template, ...]:
        return self.cond if branch == "cond" else self.uncond

    def _reading(self, row: BatchRow) -> _Reading:
        readings = self._by_row[row.branch]
        return readings[0 if len(readings) == 1 else row.image]


def plan_prompts(
    cond: Sequence[Template], uncond: Sequence[Template], attending: Sequence[str], steps: int
) -> PromptPlan:
    """Plan what blocks read, and check it against the model and the number of steps.

    Logs one warning per prompt field for steps past the last one, which are left out, and one for blocks that are given
    a text but have no cross-attention.

    Raises:
        PromptSyntaxError: with the position, if all steps of an item are past the last one.
    """
    plan = PromptPlan(tuple(cond), tuple(uncond), tuple(attending), steps)
    distinct = dict.fromkeys((*plan.cond, *plan.uncond))
    for template in distinct:
        check_steps(template, steps)
    fields: dict[str, list[Template]] = {}
    for template in distinct:
        fields.setdefault(_label(template), []).append(template)
    for label, templates in fields.items():
        _warn_of_steps(label, templates, steps)
        _warn_of_blocks(label, templates, plan.attending, steps)
    return plan


def check_steps(template: Template, steps: int) -> None:
    """Check that each item of a prompt acts in some step.

    Raises:
        PromptSyntaxError: if all steps of an item are past the last one.
    """
    for bracket in template.brackets:
        for item in bracket.items:
            if item.steps.ranges:
                item.steps.within(steps, template.fail, item.steps_at)


def _warn_of_steps(label: str, templates: Sequence[Template], steps: int) -> None:
    items = [item for template in templates for bracket in template.brackets for item in bracket.items]
    past = dict.fromkeys(item.steps.text for item in items if item.steps.goes_past(steps))
    if past:
        log.warning(
            "%ssteps past the end are left out of %s; sampling takes %d steps", label, ", ".join(past), steps
        )


def _warn_of_blocks(label: str, templates: Sequence[Template], attending: Sequence[str], steps: int) -> None:
    idle = {
        block
        for template in templates
        for bracket in template.brackets
        for block in _idle(bracket, template, attending, steps)
    }
    if idle:
        log.warning(
            "%sno cross-attention in %s, so the text given there is not used. Blocks with cross-attention: %s.",
            label,
            spans(tuple(block for block in templates[0].order if block in idle)),
            spans(tuple(attending)) or "none",
        )


def _idle(bracket: Bracket, template: Template, attending: Sequence[str], steps: int) -> Iterator[str]:
    """Yield blocks without cross-attention that are named singly, or whose text no block with cross-attention reads."""
    for item in bracket.items:
        if item.single and item.blocks:
            yield from item.blocks.difference(attending)
    every = range(1, steps + 1)
    acting = {block: {bracket.acting(block, step) for step in every} for block in template.order}
    reached = {item.text for block in attending for item in acting.get(block, ()) if item}
    for block in template.order:
        if block not in attending and any(item and item.text not in reached for item in acting[block]):
            yield block


def _label(template: Template) -> str:
    return f"{template.field}: " if template.field else ""
