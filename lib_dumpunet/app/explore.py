"""``dumpunet explore``: generate an image and its explorer page."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from lib_dumpunet.app.flags import add_settings, read_explorer, read_settings
from lib_dumpunet.app.generate import add_job, make
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.prompt.template import OPEN
from lib_dumpunet.settings import (
    AttentionSettings,
    DifferenceSettings,
    ExplorerSettings,
    FeatureSettings,
    GenerateSettings,
    Settings,
)

EVERYTHING = AttentionSettings(kinds=("qk", "self", "words"))


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "explore",
        help="generate an image, and an explorer page of everything captured",
        description="Generate an image and an HTML file next to it that shows features, attention and words of all "
        "blocks and steps in a browser, without a network, and differences if the prompt has per-block prompts.",
    )
    add_job(parser)
    add_settings(parser, ExplorerSettings, skip=("html", "html-only"))
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Generate, and capture everything that an explorer page can show."""
    sampling = read_settings(args, GenerateSettings)
    explorer = replace(read_explorer(args), enabled=True, alone=True)
    compares = any(OPEN in prompt for prompt in (*args.prompt, sampling.negative))
    features, difference = FeatureSettings(average="2-norm"), DifferenceSettings(enabled=compares)
    settings = Settings(features, EVERYTHING, difference, explorer)
    return make(args, settings, sampling, terminal)
