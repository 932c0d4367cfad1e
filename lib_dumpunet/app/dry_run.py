"""``--dry-run``: report what a command would generate and capture, and its size, without loading weights."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lib_dumpunet.app.models import hush_libraries
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.kinds import KINDS
from lib_dumpunet.settings import GenerateSettings, Settings

if TYPE_CHECKING:
    from lib_dumpunet.estimate import Estimate
    from lib_dumpunet.hosts.diffusers.job import Job


def tell_captures(
    args: argparse.Namespace, settings: Settings, sampling: GenerateSettings, terminal: Terminal
) -> int:
    """Print what a run with these settings would capture; return the exit code."""
    hush_libraries()
    from lib_dumpunet.hosts.diffusers.job import make_job
    from lib_dumpunet.hosts.diffusers.planned import estimate_job
    from lib_dumpunet.hosts.diffusers.shell import shell_pipeline

    shell = shell_pipeline(args.model, args.config)
    job = make_job(shell, args.prompt, sampling)
    found, notes = estimate_job(shell, job, settings, args.device, args.dtype)
    terminal.result([*_made(job), *_captured(found, settings), *notes], _data(job, found))
    return 0


def tell_sweep(args: argparse.Namespace, sampling: GenerateSettings, terminal: Terminal) -> int:
    """Print which images a sweep would generate; return the exit code."""
    hush_libraries()
    from lib_dumpunet.hosts.diffusers.shell import shell_pipeline
    from lib_dumpunet.hosts.diffusers.sweep import choose_targets, plan_sweep
    from lib_dumpunet.models.describe import describe

    shell = shell_pipeline(args.model, args.config)
    targets = choose_targets(describe(shell.unet), args.blocks, args.groups)
    sweep = plan_sweep(shell, args.prompt, sampling, targets)
    each = len(sweep.plain.prompts)
    total = each * (1 + len(targets))
    names = [target.name for target in targets]
    lines = [
        *_made(sweep.plain, total),
        f"  {each} without per-block prompts, {each} for each of {', '.join(names)}",
        "  captured   nothing except the images, which are compared",
    ]
    terminal.result(lines, {"images": total, "targets": names, "steps": sampling.steps})
    return 0


def _made(job: Job, images: int | None = None) -> list[str]:
    count = len(job.prompts) if images is None else images
    many = f"{count} image{'s' * (count != 1)}"
    return [
        f"Would generate {many} of {job.width}x{job.height}, {job.sampling.steps} steps each. Nothing was generated."
    ]


def _captured(found: Estimate, settings: Settings) -> list[str]:
    headings = {one.kind: KINDS[one.kind].heading for one in found.kinds}
    width = max([len("captured"), *map(len, headings.values())])
    lines = [
        f"  {headings[one.kind].ljust(width)}  {one.tensors:>6} tensors, {size(one.bytes):>9} in memory"
        for one in found.kinds
    ]
    if not lines:
        lines = [f"  {'captured'.ljust(width)}  nothing"]
    if found.disk:
        lines.append(f"  {'dump'.ljust(width)}  {size(found.disk)} on disk")
    if settings.explorer.enabled:
        limit = f"{settings.explorer.limit:g} MB"
        lines.append(f"  {'explorer'.ljust(width)}  a page of at most {limit} for each image")
    return lines


def _data(job: Job, found: Estimate) -> dict[str, Any]:
    return {
        "images": len(job.prompts),
        "width": job.width,
        "height": job.height,
        "steps": job.sampling.steps,
        "kinds": [asdict(one) for one in found.kinds],
        "memory": sum(one.bytes for one in found.kinds),
        "disk": found.disk,
    }


def size(count: float) -> str:
    """Format a number of bytes: 512 B, 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
