"""``dumpunet view``: redraw dumped tensors in other colours, without generating."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from lib_dumpunet.app.flags import add_settings, read_explorer, read_settings
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.settings import ExplorerSettings, FeatureSettings


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "view",
        help="redraw dumped tensors in other colours",
        description="Redraw dumped tensors in other colours, without generating. An array (C, h, w) becomes a "
        "grid of its channels; a single channel becomes one map. --html makes explorer pages from them.",
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", type=Path, help="dump folders, .npy, .safetensors, .bin"
    )
    parser.add_argument("-o", "--out", metavar="FOLDER", required=True, help="folder for the pictures")
    parser.add_argument(
        "--size", metavar="WIDTHxHEIGHT", help="size of a map, for .bin files that are not square"
    )
    add_settings(parser, FeatureSettings, skip=("features", "enabled", "dump", "path"))
    add_settings(parser, ExplorerSettings)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Draw each tensor into a file."""
    from lib_dumpunet.app.viewer import draw_files, write_pages

    settings, explorer = read_settings(args, FeatureSettings), read_explorer(args)
    result: dict[str, list[str]] = {}
    if explorer.enabled:
        pages = write_pages(args.files, args.out, settings, explorer.limit, terminal.say)
        result["pages"] = [str(path) for path in pages]
    if not explorer.alone:
        with terminal.progress("Drawing") as progress:
            written = draw_files(
                args.files, args.out, settings, _size(args.size), lambda n: progress(n, None)
            )
        result["pictures"] = [str(path) for path in written]
    terminal.result([path for paths in result.values() for path in paths], result)
    return 0


def _size(text: str | None) -> tuple[int, int] | None:
    """Read ``96x64`` as (height, width)."""
    if text is None:
        return None
    match = re.fullmatch("([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text.lower())
    if match is None:
        raise SettingsError(
            f"{text!r} is not a size", remedy="Write width and height as in 96x64.", field="--size"
        )
    return int(match[2]), int(match[1])
