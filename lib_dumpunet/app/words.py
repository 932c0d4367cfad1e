"""``dumpunet words``: the shortest way to see where each word of a prompt lands."""

from __future__ import annotations

import argparse
from typing import Any

from lib_dumpunet.app.flags import add_settings, read_explorer, read_settings
from lib_dumpunet.app.generate import SHARED, add_job, make
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.settings import (
    AttentionSettings,
    ExplorerSettings,
    FeatureSettings,
    GenerateSettings,
    Settings,
)

OTHERS = ("attention", "attention-average", "lattice")
"""Flags that are of no use for words."""


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "words",
        help="make an image, and a heatmap over it for each word of the prompt",
        description="Make an image, and lay over it where each word of the prompt lands: cross-attention, the mean of "
        "heads, blocks and steps. For each word there are a picture, a transparent layer and the raw map.",
    )
    add_job(parser)
    add_settings(parser, AttentionSettings, skip=(*SHARED, *OTHERS))
    add_settings(parser, ExplorerSettings)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Generate, and draw nothing but words and points."""
    sampling = read_settings(args, GenerateSettings)
    attention = read_settings(args, AttentionSettings, kinds=("words",))
    settings = Settings(FeatureSettings(enabled=False), attention, explorer=read_explorer(args))
    return make(args, settings, sampling, terminal)
