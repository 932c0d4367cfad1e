"""``dumpunet generate``: make images and look into the U-Net while they are made."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lib_dumpunet.app.flags import add_settings, options, read_settings
from lib_dumpunet.app.models import add_model_flags, load
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.prompt.points import parse_points
from lib_dumpunet.prompt.selection import select_steps
from lib_dumpunet.settings import (
    AttentionSettings,
    ColorSettings,
    DumpSettings,
    FeatureSettings,
    GenerateSettings,
    Settings,
)

if TYPE_CHECKING:
    from PIL import Image

    from lib_dumpunet.app.results import ResultFolder
    from lib_dumpunet.ports import Picture


SHARED = tuple(option.flag for kind in (ColorSettings, DumpSettings) for option in options(kind))
"""Flags of colours and dumps: features and attention have the same on the command line."""


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "generate",
        help="make images, with pictures of what the U-Net's blocks do",
        description="Make images, with pictures (and files) of what each U-Net block puts out, of attention, and of "
        "where words land. Blocks, steps and averaged maps of attention are those of the features unless given.",
    )
    add_job(parser)
    add_settings(parser, FeatureSettings, skip=("enabled", "path"))
    add_settings(parser, AttentionSettings, skip=SHARED)
    return parser


def add_job(parser: argparse.ArgumentParser) -> None:
    """Add what says which images to make, with which model, and where to put them."""
    parser.add_argument("prompt", nargs="+", help="what the image shows; several prompts go into one batch")
    parser.add_argument(
        "-o", "--out", metavar="FOLDER", help="folder for the results (default: dumpunet-out)"
    )
    add_model_flags(parser)
    add_settings(parser, GenerateSettings)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Generate as the flags say."""
    sampling = read_settings(args, GenerateSettings)
    dump = DumpSettings() if args.dump is None else DumpSettings(enabled=True, format=args.dump)
    features = read_settings(args, FeatureSettings, dump=dump)
    attention = read_attention(args, features)
    settings = Settings(features, attention)
    check_early(settings, sampling.steps)
    pipe = load(args, terminal)
    return produce(pipe, args.prompt, sampling, settings, args.out, terminal)


def read_attention(args: argparse.Namespace, features: FeatureSettings) -> AttentionSettings:
    """Make the settings of attention; what is not given for it is as for features."""
    attention = read_settings(args, AttentionSettings, color=features.color, dump=features.dump)
    return replace(
        attention,
        layers=features.layers if args.attention_layers is None else attention.layers,
        steps=features.steps if args.attention_steps is None else attention.steps,
        average=features.average if args.attention_average is None else attention.average,
    )


def check_early(settings: Settings, steps: int) -> None:
    """Find the mistakes that need no model before the time is spent to load it.

    Raises:
        SettingsError: for steps, points or a formula that cannot be read.
    """
    from lib_dumpunet.image.colorize import compile_channels

    select_steps(settings.features.steps, steps)
    select_steps(settings.attention.steps, steps, field="Attention steps")
    parse_points(settings.attention.points)
    compile_channels(settings.features.color)


def produce(
    pipe: Any,
    prompts: list[str],
    sampling: GenerateSettings,
    settings: Settings,
    out: str | None,
    terminal: Terminal,
) -> int:
    """Generate into a folder and tell what came out; returns the exit code."""
    from lib_dumpunet.app.overview import Overview, WordSheet
    from lib_dumpunet.app.results import open_results
    from lib_dumpunet.hosts.diffusers.generate import Outlet, check_attention, generate, make_job
    from lib_dumpunet.unet.sites import describe

    job = make_job(pipe, prompts, sampling)
    check_attention(pipe, job, settings.attention)
    folder = open_results(out)
    dump = replace(settings.features.dump, path=str(folder.dump))
    settings = Settings(
        replace(settings.features, dump=dump),
        replace(settings.attention, dump=dump, heat=replace(dump, enabled=True)),
    )
    with terminal.progress("Sampling") as progress:
        overview, words = Overview(describe(pipe.unet).order), WordSheet(job.prompts[0], sampling.negative)

        def show(picture: Picture) -> None:
            overview.add(picture)
            words.add(picture)
            parameters = f"{job.parameters(picture.tag.image)}, {picture.caption}"
            folder.save_picture(picture, {"parameters": parameters})

        def keep(number: int, image: Image.Image) -> None:
            folder.save_image(f"{number:03}", image, {"parameters": job.parameters(number)})

        outcome = generate(pipe, job, settings, Outlet(keep, show, progress))
    for name, sheet in (("overview", overview.draw()), ("words", words.draw())):
        if sheet is not None:
            try:
                folder.save_sheet(name, sheet, {"parameters": job.parameters(0)})
            except HostError as error:
                outcome.problems.append(error)
    _tell(folder, outcome.problems, {"seeds": list(job.seeds)}, terminal)
    return 1 if outcome.problems else 0


def _tell(
    folder: ResultFolder, problems: list[DumpUNetError], data: dict[str, Any], terminal: Terminal
) -> None:
    for problem in problems:
        terminal.error(problem)
    dumped = folder.dump.is_dir()
    lines = [f"Results in {folder.path}", f"  images    {', '.join(p.name for p in folder.images)}"]
    for room, pictures in sorted(folder.by_room().items()):
        lines.append(f"  {room.ljust(9)} {len(pictures)} pictures in {folder.path / room}")
    lines += [f"  {'overview'.ljust(9)} {sheet}" for sheet in folder.sheets.values()]
    if dumped:
        lines.append(f"  dump      {folder.dump / 'manifest.json'}")
    data = {
        "folder": str(folder.path),
        "images": [str(p) for p in folder.images],
        "pictures": [str(p) for p in sorted(folder.pictures)],
        **{
            name: str(folder.sheets[name]) if name in folder.sheets else None
            for name in ("overview", "words")
        },
        "dump": str(folder.dump) if dumped else None,
        "problems": [str(p) for p in problems],
        **data,
    }
    terminal.result(lines, data)
