"""``dumpunet generate``: make images and look into the U-Net while they are made."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lib_dumpunet.app.flags import add_settings, read_settings
from lib_dumpunet.app.models import add_model_flags, load
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.prompt.selection import select_steps
from lib_dumpunet.settings import DumpSettings, FeatureSettings, GenerateSettings, Settings

if TYPE_CHECKING:
    from PIL import Image

    from lib_dumpunet.app.results import ResultFolder
    from lib_dumpunet.ports import Picture


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "generate",
        help="make images, with pictures of what the U-Net's blocks do",
        description="Make images, with pictures (and files) of what each U-Net block puts out.",
    )
    parser.add_argument("prompt", nargs="+", help="what the image shows; several prompts go into one batch")
    parser.add_argument(
        "-o", "--out", metavar="FOLDER", help="folder for the results (default: dumpunet-out)"
    )
    add_model_flags(parser)
    add_settings(parser, GenerateSettings)
    add_settings(parser, FeatureSettings, skip=("enabled", "path"))
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Generate as the flags say."""
    sampling = read_settings(args, GenerateSettings)
    dump = DumpSettings() if args.dump is None else DumpSettings(enabled=True, format=args.dump)
    features = read_settings(args, FeatureSettings, dump=dump)
    check_early(features, sampling.steps)
    pipe = load(args, terminal)
    return produce(pipe, args.prompt, sampling, Settings(features), args.out, terminal)


def check_early(features: FeatureSettings, steps: int) -> None:
    """Find the mistakes that need no model before the time is spent to load it.

    Raises:
        SettingsError: for steps or a formula that cannot be read.
    """
    from lib_dumpunet.image.colorize import compile_channels

    select_steps(features.steps, steps)
    compile_channels(features.color)


def produce(
    pipe: Any,
    prompts: list[str],
    sampling: GenerateSettings,
    settings: Settings,
    out: str | None,
    terminal: Terminal,
) -> int:
    """Generate into a folder and tell what came out; returns the exit code."""
    from lib_dumpunet.app.overview import Overview
    from lib_dumpunet.app.results import open_results
    from lib_dumpunet.hosts.diffusers.generate import Outlet, generate, make_job
    from lib_dumpunet.unet.sites import describe

    job = make_job(pipe, prompts, sampling)
    folder = open_results(out)
    if settings.features.dump.enabled:
        dump = replace(settings.features.dump, path=str(folder.dump))
        settings = replace(settings, features=replace(settings.features, dump=dump))
    with terminal.progress("Sampling") as progress:
        overview = Overview(describe(pipe.unet).order)

        def show(picture: Picture) -> None:
            overview.add(picture)
            parameters = f"{job.parameters(picture.tag.image)}, {picture.caption}"
            folder.save_picture(picture, {"parameters": parameters})

        def keep(number: int, image: Image.Image) -> None:
            folder.save_image(f"{number:03}", image, {"parameters": job.parameters(number)})

        outcome = generate(pipe, job, settings, Outlet(keep, show, progress))
    sheet = overview.draw()
    if sheet is not None:
        try:
            folder.save_overview(sheet, {"parameters": job.parameters(0)})
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
    if folder.pictures:
        lines.append(f"  features  {len(folder.pictures)} pictures in {folder.path / 'features'}")
    if folder.overview is not None:
        lines.append(f"  overview  {folder.overview}")
    if dumped:
        lines.append(f"  dump      {folder.dump / 'manifest.json'}")
    data = {
        "folder": str(folder.path),
        "images": [str(p) for p in folder.images],
        "pictures": [str(p) for p in sorted(folder.pictures)],
        "overview": None if folder.overview is None else str(folder.overview),
        "dump": str(folder.dump) if dumped else None,
        "problems": [str(p) for p in problems],
        **data,
    }
    terminal.result(lines, data)
