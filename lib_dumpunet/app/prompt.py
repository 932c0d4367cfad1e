"""``dumpunet prompt``: show the text that each block reads from a per-block prompt."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

from lib_dumpunet.app.models import add_model_flags, hush_libraries, load, locate
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.blocks import ModelFacts, spans
from lib_dumpunet.hosts.diffusers import families
from lib_dumpunet.hosts.diffusers.find import facts_of_config
from lib_dumpunet.prompt.plan import plan_prompts
from lib_dumpunet.prompt.reading import read_prompt, warn_of_webui_syntax
from lib_dumpunet.prompt.template import Share, Template

MOST_STEPS = 1000
"""The most steps that sampling can have."""


class _Phase(NamedTuple):
    """Steps in which a block reads the same: the first and last step of each run, None for an open end."""

    runs: tuple[tuple[int, int | None], ...]
    shares: tuple[Share, ...]

    @property
    def when(self) -> str:
        """The steps in words, such as ``steps 1-4, from 6``; empty for all steps."""
        if self.runs == ((1, None),):
            return ""
        names = ", ".join(_span(first, last) for first, last in self.runs)
        if len(self.runs) > 1 or "-" in names:
            return f"steps {names}"
        return names.replace("from", "from step") if "from" in names else f"step {names}"


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "prompt",
        help="show the text that each block reads from a per-block prompt",
        description="Show the text that each block reads from a prompt with per-block brackets, such as "
        '"a (~: IN00-OUT11: cute ; M00*0.5@1-10: excellent :~) girl", in which steps, and the weights of texts that a '
        "strength mixes; or where the prompt is wrong. It is parsed as by generate; without --model, for the blocks "
        "of SD 1.x, SD 2.x and the bundled model. With --json, "
        "`blocks` has the texts of step 1, `shares` those of all steps.",
    )
    parser.add_argument("prompt", help="the prompt")
    add_model_flags(parser)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Print the texts, grouping blocks that read the same."""
    facts = facts_of_config(families.SD1.unet)
    if args.model:
        facts = locate(args)
        read_prompt(args.prompt, facts.order, "prompt")  # before a model is loaded
        if facts.layers is None:
            facts = _facts(args, terminal)
    template = read_prompt(args.prompt, facts.order, "prompt")
    warn_of_webui_syntax([args.prompt])
    # Only for its warnings about texts that no block reads.
    plan_prompts([template], [], facts.attending, min(_last_step(template), MOST_STEPS))
    order = facts.order
    phases = {block: _phases(template, block) for block in order}
    groups: dict[tuple[_Phase, ...], list[str]] = {}
    for block, own in phases.items():
        groups.setdefault(own, []).append(block)
    rows = [row for own, blocks in groups.items() for row in _rows(spans(tuple(blocks)), own)]
    rows.append(("base prompt", repr(template.erased)))
    width = max(len(name) for name, _ in rows)
    terminal.result(
        [f"{name.ljust(width)}  {text}" for name, text in rows],
        {
            "blocks": {block: template.text_for(block) for block in order},
            "base": template.erased,
            "shares": {block: [_as_data(phase) for phase in own] for block, own in phases.items()},
        },
    )
    return 0


def _phases(template: Template, block: str) -> tuple[_Phase, ...]:
    """Return the phases in which a block reads different texts; the last named step ends the last change."""
    end = _last_step(template)
    mix = cache(template.mix)  # many steps have the same items
    runs: dict[tuple[Share, ...], list[tuple[int, int | None]]] = {}
    for shares, group in groupby(range(1, end + 1), lambda step: mix(template.acting(block, step))):
        steps = list(group)
        runs.setdefault(shares, []).append((steps[0], None if steps[-1] == end else steps[-1]))
    return tuple(_Phase(tuple(own), shares) for shares, own in runs.items())


def _last_step(template: Template) -> int:
    """Return the first step after the last change."""
    named = (item.steps.largest for bracket in template.brackets for item in bracket.items)
    return min(max(named, default=0), MOST_STEPS) + 1


def _rows(blocks: str, phases: tuple[_Phase, ...]) -> Iterator[tuple[str, str]]:
    for phase in phases:
        name = f"{blocks}, {phase.when}" if phase.when else blocks
        for share in phase.shares:
            part = f"{100 * share.weight:.4g}% ".rjust(5) if len(phase.shares) > 1 else ""
            yield name, f"{part}{share.text!r}"
            name = ""


def _span(first: int, last: int | None) -> str:
    if last is None:
        return f"from {first}"
    return f"{first}-{last}" if last > first else str(first)


def _as_data(phase: _Phase) -> dict[str, Any]:
    return {"steps": phase.runs, "texts": [share._asdict() for share in phase.shares]}


def _facts(args: argparse.Namespace, terminal: Terminal) -> ModelFacts:
    hush_libraries()
    from lib_dumpunet.hosts.diffusers.loading import unet_config, unet_shell
    from lib_dumpunet.models.describe import describe

    config = unet_config(args.model)
    return describe(load(args, terminal).unet if config is None else unet_shell(config)).facts
