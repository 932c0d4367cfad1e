"""``dumpunet generate``: generate images while capturing and steering the U-Net."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lib_dumpunet.app.flags import add_settings, options, read_explorer, read_settings
from lib_dumpunet.app.models import add_model_flags, load, locate
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.settings import (
    AttentionSettings,
    ColorSettings,
    DifferenceSettings,
    DumpSettings,
    ExplorerSettings,
    FeatureSettings,
    GenerateSettings,
    Settings,
)

if TYPE_CHECKING:
    from lib_dumpunet.app.results import ResultFolder


Like = TypeVar("Like", AttentionSettings, DifferenceSettings)
SHARED = tuple(option.flag for kind in (ColorSettings, DumpSettings) for option in options(kind))
"""Flags of colours and dumps, which features, attention and differences share on the command line."""


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "generate",
        help="generate images, with pictures of what the U-Net's blocks do",
        description="Generate images, with pictures (and files) of each U-Net block's output, of attention, of where "
        "words land, and of what per-block prompts change. Attention and differences use the blocks, steps and "
        "average of the features unless given their own.",
    )
    add_job(parser)
    add_settings(parser, FeatureSettings, skip=("enabled", "path"))
    add_settings(parser, AttentionSettings, skip=SHARED)
    add_settings(parser, DifferenceSettings, skip=SHARED)
    add_settings(parser, ExplorerSettings)
    return parser


def add_job(parser: argparse.ArgumentParser) -> None:
    """Add the prompts, and the flags of ``add_making``."""
    parser.add_argument("prompt", nargs="+", help="what the image shows; several prompts form one batch")
    add_making(parser)


def add_making(parser: argparse.ArgumentParser) -> None:
    """Add the flags for sampling, the model and the results."""
    parser.add_argument(
        "-o", "--out", metavar="FOLDER", help="folder for the results (default: dumpunet-out)"
    )
    add_model_flags(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="generate nothing; report what would be captured, and its size in memory and on disk",
    )
    add_settings(parser, GenerateSettings)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Generate with the settings from the flags."""
    sampling = read_settings(args, GenerateSettings)
    dump = read_settings(args, DumpSettings, enabled=args.dump is not None, path="")
    features = read_settings(args, FeatureSettings, dump=dump)
    attention = read_settings(args, AttentionSettings, color=features.color, dump=dump)
    attention = _like_features(attention, features, args, "attention")
    difference = read_settings(args, DifferenceSettings, color=features.color, dump=dump)
    difference = _like_features(difference, features, args, "difference")
    settings = Settings(features, attention, difference, read_explorer(args))
    return make(args, settings, sampling, terminal)


def make(args: argparse.Namespace, settings: Settings, sampling: GenerateSettings, terminal: Terminal) -> int:
    """Generate, or with --dry-run report what would be captured; return the exit code.

    Raises:
        SettingsError, PromptSyntaxError: for a mistake.
    """
    check_flags(args, settings, sampling)
    if args.dry_run:
        from lib_dumpunet.app.dry_run import tell_captures

        return tell_captures(
            args, into(Path(args.out or "dumpunet-out", "dump"), settings), sampling, terminal
        )
    pipe = load(args, terminal)
    return produce(pipe, args.prompt, sampling, settings, args.out, terminal)


def _like_features(settings: Like, features: FeatureSettings, args: argparse.Namespace, prefix: str) -> Like:
    """Use the features' blocks, steps and average where they are not given."""
    flags = {"layers": "blocks", "steps": "steps", "average": "average"}
    given = {name: getattr(args, f"{prefix}_{flag}") is not None for name, flag in flags.items()}
    return replace(settings, **{name: getattr(features, name) for name, own in given.items() if not own})


def check_flags(args: argparse.Namespace, settings: Settings, sampling: GenerateSettings) -> None:
    """Find the mistakes that need no model, before it is loaded.

    Raises:
        SettingsError, PromptSyntaxError: for the first mistake.
    """
    # Imported here because they import NumPy, which would slow down --help.
    from lib_dumpunet.prompt.plan import check_steps
    from lib_dumpunet.prompt.reading import read_templates
    from lib_dumpunet.resolve import Prompts, resolve

    facts = locate(args)
    templates = read_templates(args.prompt, sampling.negative, facts.order)
    for template in templates:
        check_steps(template, sampling.steps)
    size = (sampling.width, sampling.height) if sampling.width and sampling.height else None
    resolve(settings, facts, Prompts(templates, sampling.steps, size))


def produce(
    pipe: Any,
    prompts: list[str],
    sampling: GenerateSettings,
    settings: Settings,
    out: str | None,
    terminal: Terminal,
) -> int:
    """Generate into a folder and print the results; return the exit code."""
    from lib_dumpunet.app.collect import Collector
    from lib_dumpunet.app.results import open_results
    from lib_dumpunet.hosts.diffusers.generate import ResultHandlers, generate
    from lib_dumpunet.hosts.diffusers.job import check, make_job
    from lib_dumpunet.models.describe import describe
    from lib_dumpunet.sinks.files import told_once

    job = make_job(pipe, prompts, sampling)
    check(pipe, job, settings)
    folder = open_results(out)
    folder.keep_room(job.room)
    collector = Collector(folder, job, describe(pipe.unet).order, terminal.say)
    problems: list[DumpUNetError] = []
    try:
        with terminal.progress("Sampling") as progress:
            outlet = ResultHandlers(
                collector.image,
                collector.picture,
                progress,
                collector.plain,
                collector.page,
                stopped=lambda: folder.is_full,
            )
            problems += generate(pipe, job, into(folder.dump, settings), outlet).problems
    except KeyboardInterrupt:  # still print the results so far
        _tell(folder, collector.save_sheets(), {"seeds": list(job.seeds)}, terminal)
        raise
    finally:
        folder.give_room_back()
    problems = told_once([*problems, *collector.save_sheets()])
    if folder.is_full and len(folder.images) < len(job.prompts):
        terminal.say(f"Stopped after {len(folder.images)} of {len(job.prompts)} images: the disk is full.")
    _tell(folder, problems, {"seeds": list(job.seeds)}, terminal)
    return 1 if problems else 0


def _seeds(seeds: list[int]) -> str:
    """Describe the seeds, which are consecutive."""
    return f"seed       {seeds[0]}" if len(seeds) == 1 else f"seeds      {seeds[0]} to {seeds[-1]}"


def into(folder: Path, settings: Settings) -> Settings:
    """Direct dumps to a folder; maps of words and points are always dumped, because they are small."""
    moved = settings.with_dumps(lambda dump: replace(dump, path=str(folder)))
    heat = replace(settings.features.dump, enabled=True, path=str(folder))
    return replace(moved, attention=replace(moved.attention, heat=heat))


def _tell(
    folder: ResultFolder, problems: list[DumpUNetError], data: dict[str, Any], terminal: Terminal
) -> None:
    for problem in problems:
        terminal.error(problem)
    dumped = folder.dump.is_dir()
    lines = [f"Results in {folder.path}", f"  images     {', '.join(p.name for p in folder.images)}"]
    lines.append(f"  {_seeds(data['seeds'])}")
    if folder.changes:
        lines.append(f"  changes    {', '.join(p.name for p in folder.changes)}")
    for room, pictures in sorted(folder.by_room().items()):
        count = f"{len(pictures)} picture{'s' * (len(pictures) != 1)}"
        lines.append(f"  {room.ljust(10)} {count} in {folder.path / room}")
    lines += [f"  {'overview'.ljust(10)} {sheet}" for sheet in folder.sheets.values()]
    lines += [f"  {'explorer'.ljust(10)} {page}" for page in folder.pages]
    if dumped:
        lines.append(f"  dump       {folder.dump / 'manifest.json'}")
    data = {
        "folder": str(folder.path),
        "images": [str(p) for p in folder.images],
        "changes": [str(p) for p in folder.changes],
        "pictures": [str(p) for p in sorted(folder.pictures)],
        **{
            name: str(folder.sheets[name]) if name in folder.sheets else None
            for name in ("overview", "differences", "words")
        },
        "pages": [str(p) for p in folder.pages],
        "dump": str(folder.dump) if dumped else None,
        "problems": [str(p) for p in problems],
        **data,
    }
    terminal.result(lines, data)
