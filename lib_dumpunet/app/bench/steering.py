"""Measure what per-block prompts cost, and whether the memory for difference maps grows with the number of steps."""

from __future__ import annotations

import torch

from lib_dumpunet.app.bench.memory import growth
from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.app.bench.sampling import WIDTHS, Watch, added_seconds, sampling_step
from lib_dumpunet.hooks.interventions import TextPerBlock
from lib_dumpunet.hooks.steer import Steering
from lib_dumpunet.models.model import Model
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.plan import PromptPlan

ROUNDS = 3
DIFFERENCE = ("a (~: OUT10: blue ; _: red :~) circle", "--difference", "--no-features")


def measure_steering(rounds: int = ROUNDS, widths: tuple[int, ...] = WIDTHS) -> list[Row]:
    """Measure CPU seconds of a step in which every block reads its own text, and peak memory of difference runs."""
    unet, run = sampling_step(widths)
    watch = watch_of(unet)
    added = added_seconds(run, {"steer": lambda: watch}, rounds)["steer"]
    return [
        Row("per-block prompts in all blocks, added to a step", added, "%", 1, at_least=False),
        growth("peak memory of differences", *DIFFERENCE),
    ]


def watch_of(unet: Model) -> Watch:
    """Give each block its own text, in the prompt and in the negative prompt."""
    pairs = [f"{block}: {number}" for number, block in enumerate(unet.order)]
    template = parse_prompt(f"(~:{';'.join(pairs)}:~)", unet.order)
    attending = unet.attending
    plan = PromptPlan((template,), (template,), tuple(attending), 1)
    contexts = {text: torch.randn(77, 768) for text in plan.texts("cond")}
    steering = Steering(plan, lambda text, *_: contexts[text], lambda context, _: context)
    return Watch(interventions=(TextPerBlock(steering),))
