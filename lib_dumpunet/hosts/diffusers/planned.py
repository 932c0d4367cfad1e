"""Estimate what a job captures, before anything is loaded or sampled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lib_dumpunet.assemble import Generation
from lib_dumpunet.estimate import BlockShape, Estimate, KindEstimate, estimate
from lib_dumpunet.hosts.diffusers.generate import dump_request
from lib_dumpunet.hosts.diffusers.job import Job, texts_of
from lib_dumpunet.hosts.diffusers.loading import block_table, pick_device, pick_dtype
from lib_dumpunet.models.describe import describe
from lib_dumpunet.prompt.plan import PromptPlan
from lib_dumpunet.resolve import needs_table, of_plain_run, resolve
from lib_dumpunet.settings import Settings


def estimate_job(
    pipe: Any, job: Job, settings: Settings, device: str, dtype: str
) -> tuple[Estimate, tuple[str, ...]]:
    """Estimate what a job captures, with a pipeline or its shell; also return notes about ignored settings.

    Raises:
        SettingsError: for the first mistake.
    """
    weights = pick_dtype(dtype, pick_device(device))
    table = block_table(pipe.unet.config, job.width, job.height)
    blocks = {row.block: BlockShape(_chw(row.input), _chw(row.output), row.heads) for row in table}
    found: list[Estimate] = []
    notes: tuple[str, ...] = ()
    for asked, prompts in ((settings, job.plan), (of_plain_run(settings), job.plan.plain)):
        if asked is not None:
            generation = _generation(pipe, job, prompts, asked)
            plan = resolve(asked, describe(pipe.unet).facts, generation.prompts)
            found.append(estimate(plan, blocks, generation, len(job.prompts), weights))
            notes = notes or plan.notes
    return _added(found), notes


def _generation(pipe: Any, job: Job, prompts: PromptPlan, settings: Settings) -> Generation:
    request = dump_request(pipe, job, with_table=needs_table(settings))
    return Generation(request, job.width, job.height, texts_of(pipe, prompts))


def _added(found: list[Estimate]) -> Estimate:
    kinds: dict[str, KindEstimate] = {}
    for one in (kind for each in found for kind in each.kinds):
        so_far = kinds.get(one.kind, KindEstimate(one.kind, 0, 0))
        kinds[one.kind] = replace(
            so_far, tensors=so_far.tensors + one.tensors, bytes=so_far.bytes + one.bytes
        )
    return Estimate(tuple(kinds.values()), sum(each.disk for each in found))


def _chw(shape: tuple[int, ...]) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, height, width
