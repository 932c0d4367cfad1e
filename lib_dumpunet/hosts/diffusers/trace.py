"""Trace the user's own pipeline, in three lines of a notebook."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lib_dumpunet.assemble import components_of
from lib_dumpunet.captures import Branch
from lib_dumpunet.errors import HostError, SettingsError
from lib_dumpunet.hooks.attention import require_readable
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.sums import AttentionSum, AttentionSums
from lib_dumpunet.hosts.diffusers.attribution import Attribution
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock
from lib_dumpunet.hosts.diffusers.embeddings import observe_embeddings
from lib_dumpunet.hosts.diffusers.pipelines import require_plain
from lib_dumpunet.hosts.diffusers.seen import Trace
from lib_dumpunet.hosts.diffusers.steered import Inputs
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.plan import Plan
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.resolve import Prompts, resolve
from lib_dumpunet.session import record
from lib_dumpunet.settings import AttentionSettings, FeatureSettings, Settings

log = logging.getLogger("dumpunet")

ARGUMENTS = {"layers": "layers", "steps": "steps", "kinds": "attention"}
"""The arguments of ``trace`` by setting."""


@contextmanager
def trace(
    pipe: Any,
    layers: str = "",
    steps: str = "",
    *,
    attention: str = "",
    features: bool = True,
    steered: Inputs | None = None,
) -> Iterator[Trace]:
    """Capture what the U-Net does while a pipeline runs, any number of times.

    All tensors stay in memory, so choose few blocks and steps, as in
    ``with trace(pipe, layers="OUT11", steps="1,20") as seen: pipe("a red circle")``.

    Args:
        pipe: a text-to-image, img2img or inpainting pipeline of Stable Diffusion 1.x, 2.x or XL.
        layers: blocks, such as ``"IN00-OUT11(+2)"``; empty means all.
        steps: sampling steps, such as ``"1,5-20(+5)"``; empty means all.
        attention: kinds of attention to capture, such as ``"qk,words"``: any of k, qk, vqk, self, update and words.
            The memory for words does not grow with the number of steps.
        features: whether to capture the outputs of blocks.
        steered: the inputs from ``steer``, if the pipeline is steered: then words are found in the text that each block
            reads.

    Raises:
        SettingsError: for a mistake in ``layers``, ``steps`` or ``attention``.
        UnsupportedModelError: if the pipeline's U-Net has an unknown layout.
        HostError: if the pipeline calls its U-Net in a way that cannot be followed.
    """
    require_plain(pipe)
    unet = describe(pipe.unet)
    clock = SchedulerClock(pipe)
    seen = Trace(steered=steered)
    prompts = Attribution(pipe, clock, seen.texts, seen.problems.append)
    plan = _plan(unet, layers, steps, attention, features=features)
    if plan.attention is not None:
        require_readable(unet, plan.attention)
        if steered is not None:
            plan = replace(plan, attention=replace(plan.attention, text_of=steered.text))
    with HookSet() as hooks, observe_embeddings(pipe, clock):
        prompts.install(hooks)
        hooks.before(unet.module, clock.see_call)
        hooks.before(unet.module, prompts.see_call)
        sinks = (*components_of(plan), seen)
        with record(unet, plan, clock, sinks, seen.problems) as recording:
            try:
                yield seen
            finally:
                seen.heat.update(_sums(recording.sums))
    if clock.trouble is not None:
        seen.problems.append(clock.trouble)
    if not seen.tensors and not seen.heat and not seen.problems:
        seen.problems.append(clock.passed_over or _nothing_seen(steps, clock.now().step))
    for problem in seen.problems:
        log.warning("%s", problem)


def _plan(unet: Model, layers: str, steps: str, attention: str, *, features: bool) -> Plan:
    """Resolve the arguments; words of all texts are captured, because the texts are not known yet."""
    names = tuple(part.strip() for part in attention.split(",") if part.strip())
    try:
        settings = Settings(
            FeatureSettings(enabled=features, layers=layers, steps=steps),
            AttentionSettings(kinds=names, layers=layers, steps=steps),
        )
        plan = resolve(settings, unet.facts, Prompts((), None))
    except SettingsError as error:
        error.field = ARGUMENTS.get(error.path[-1], error.field)
        raise
    for note in plan.notes:
        log.warning("%s", note)
    if plan.attention is None:
        return plan
    return replace(plan, attention=replace(plan.attention, branches=("cond", "uncond")))


def _sums(sums: AttentionSums) -> dict[BatchRow, tuple[AttentionSum, ...]]:
    branches: tuple[Branch, ...] = ("cond", "uncond")
    rows = (BatchRow(image, branch) for image in sums.images for branch in branches)
    return {row: parts for row in rows if (parts := tuple(sums.sums(row, "word")))}


def _nothing_seen(steps: str, last: int) -> HostError:
    if last:
        return HostError(
            f"none of the steps {steps} was sampled", remedy=f"The last step was {last}.", field="steps"
        )
    return HostError("the pipeline did not run", remedy="Call it inside the with statement.")
