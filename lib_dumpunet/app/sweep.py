"""``dumpunet sweep``: generate an image for each block, to find the blocks in which a text has an effect."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from lib_dumpunet.app.flags import read_settings
from lib_dumpunet.app.generate import add_making
from lib_dumpunet.app.models import hush_libraries, load, locate
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.settings import GenerateSettings

if TYPE_CHECKING:
    from PIL import Image

    from lib_dumpunet.app.results import ResultFolder
    from lib_dumpunet.hosts.diffusers.job import Job
    from lib_dumpunet.hosts.diffusers.sweep import Sweep, SweepOutcome

PLAIN = "plain"


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "sweep",
        help="try a text in each block, and rank the blocks by how much it changes the image",
        description="Generate an image for each block that has cross-attention, from a prompt with {block} in it such "
        'as "a girl, (~:{block}: bad anatomy :~)", and a plain one; rank the blocks by the distance of their images '
        "from the plain one.",
    )
    parser.add_argument("prompt", help="the prompt, with {block} in place of the block's name")
    parser.add_argument(
        "--blocks", default="", metavar="BLOCKS", help="blocks to try; empty means all with cross-attention"
    )
    parser.add_argument(
        "--groups",
        default="",
        metavar="GROUPS",
        help="groups to try as a whole, separated by commas: IN, M, OUT or ranges such as IN04-IN08",
    )
    add_making(parser)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the sweep and print the ranking; return the exit code."""
    sampling = read_settings(args, GenerateSettings)
    _check(args, sampling)
    if args.dry_run:
        from lib_dumpunet.app.dry_run import tell_sweep

        return tell_sweep(args, sampling, terminal)
    hush_libraries()
    from lib_dumpunet.app.results import open_results
    from lib_dumpunet.hosts.diffusers.sweep import (
        SweepOutcome,
        choose_targets,
        plan_sweep,
        run_sweep,
    )
    from lib_dumpunet.models.describe import describe

    pipe = load(args, terminal)
    targets = choose_targets(describe(pipe.unet), args.blocks, args.groups)
    sweep = plan_sweep(pipe, args.prompt, sampling, targets)
    folder = open_results(args.out)
    images = _Images(folder, sweep)
    outcome = SweepOutcome()
    try:
        with terminal.progress("Sampling") as progress:
            run_sweep(pipe, sweep, outcome, images.keep, progress)
    finally:  # also after an interrupt, for the results so far
        _save(folder, images, outcome)
        _tell(folder, sweep.plain, outcome, terminal)
    return 1 if outcome.problems else 0


def _check(args: argparse.Namespace, sampling: GenerateSettings) -> None:
    """Find the mistakes that need no model.

    Raises:
        SettingsError, PromptSyntaxError: for the first mistake.
    """
    from lib_dumpunet.prompt.reading import PLACE, read_templates, require_place
    from lib_dumpunet.resolve import attention_blocks

    facts = locate(args)
    order = facts.order
    require_place(args.prompt, sampling)
    prompt, negative = (text.replace(PLACE, order.names[0]) for text in (args.prompt, sampling.negative))
    read_templates([prompt], negative, order)
    attention_blocks(facts, args.blocks, field="--blocks")


class _Images:
    """Saves images, and keeps small copies for the sheet."""

    def __init__(self, folder: ResultFolder, sweep: Sweep) -> None:
        self._folder = folder
        self._jobs = {"": sweep.plain, **{target.name: job for target, job in sweep.jobs.items()}}
        self.by_name: dict[str, list[Image.Image]] = {}

    def keep(self, name: str, number: int, image: Image.Image) -> None:
        """Save an image; ``name`` is empty for the plain one."""
        from lib_dumpunet.image.gallery import reduced

        stem = f"{number:03}-{name or PLAIN}".replace("(+", "-").replace(")", "")
        self._folder.save_image(stem, image, {"parameters": self._jobs[name].parameters(number)})
        self.by_name.setdefault(name, []).append(reduced(image))


def _save(folder: ResultFolder, images: _Images, outcome: SweepOutcome) -> None:
    """Write the sheet and the table."""
    from lib_dumpunet.image.gallery import draw_gallery

    distances = {change.target.name: change.pixel_distance for change in outcome.changes}
    names = [name for name in images.by_name if not name or name in distances]
    several = len(images.by_name.get("", [])) > 1
    rows = (
        zip(*(images.by_name[name] for name in names), strict=False)
        if several
        else [[images.by_name[name][0] for name in names]]
    )
    cells = [
        (image, f"{name}  {distances[name]:.1f}" if name else PLAIN)
        for row in rows
        for name, image in zip(names, row, strict=True)
    ]
    if cells:
        sheet = draw_gallery(cells, len(names) if several else None)
        _attempt(outcome, partial(folder.save_sheet, "sweep", sheet, {}))
    if outcome.changes:
        _attempt(outcome, partial(folder.save_text, "sweep.csv", _csv(outcome)))


def _attempt(outcome: SweepOutcome, save: Callable[[], None]) -> None:
    try:
        save()
    except HostError as error:
        outcome.report(error)


def _csv(outcome: SweepOutcome) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["rank", "blocks", "pixel_distance", "latent_distance", "images"])
    for rank, change in enumerate(outcome.ranked(), 1):
        writer.writerow(
            [
                rank,
                change.target.name,
                f"{change.pixel_distance:.4f}",
                f"{change.latent_distance:.6f}",
                len(change.pixels),
            ]
        )
    return table.getvalue()


def _tell(folder: ResultFolder, job: Job, outcome: SweepOutcome, terminal: Terminal) -> None:
    problems: list[DumpUNetError] = outcome.problems
    for problem in problems:
        terminal.error(problem)
    ranked = outcome.ranked()
    width = max([len("blocks"), *(len(change.target.name) for change in ranked)])
    lines = [f"{'rank':>4}  {'blocks'.ljust(width)}  {'pixels':>7}  {'latents':>7}"]
    lines += [
        f"{rank:>4}  {change.target.name.ljust(width)}  {change.pixel_distance:7.2f}  {change.latent_distance:7.3f}"
        for rank, change in enumerate(ranked, 1)
    ]
    files = [*folder.sheets.values(), *folder.texts]
    terminal.result(
        [*lines, f"Results in {folder.path}", *(f"  {path}" for path in files)],
        {
            "folder": str(folder.path),
            "images": [str(path) for path in folder.images],
            "files": [str(path) for path in files],
            "seeds": list(job.seeds),
            "ranking": [
                {
                    "blocks": change.target.name,
                    "pixel_distance": change.pixel_distance,
                    "latent_distance": change.latent_distance,
                }
                for change in ranked
            ],
            "problems": [str(problem) for problem in problems],
        },
    )
