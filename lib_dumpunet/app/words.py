"""``dumpunet words``: generate an image, and show where each word of the prompt lands."""

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
"""Attention flags that do not apply to words."""


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "words",
        help="generate an image, and a heatmap over it for each word of the prompt",
        description="Generate an image, and show over it where each word of the prompt lands: cross-attention, "
        "averaged over heads, blocks and steps. Each word gets a picture, a transparent layer and the raw map.",
    )
    add_job(parser)
    add_settings(parser, AttentionSettings, skip=(*SHARED, *OTHERS))
    add_settings(parser, ExplorerSettings)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Generate, and draw only words and points."""
    sampling = read_settings(args, GenerateSettings)
    attention = read_settings(args, AttentionSettings, kinds=("words",))
    settings = Settings(FeatureSettings(enabled=False), attention, explorer=read_explorer(args))
    return make(args, settings, sampling, terminal)
