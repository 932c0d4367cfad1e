"""``dumpunet demo``: generate and capture with the bundled model, offline."""

from __future__ import annotations

import argparse
from typing import Any

from lib_dumpunet.app.generate import produce
from lib_dumpunet.app.models import load
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.settings import ColorSettings, DumpSettings, FeatureSettings, GenerateSettings, Settings

PROMPT = "a red circle and a blue square"
SAMPLING = GenerateSettings(steps=20, guidance=4.0, seed=6)
FEATURES = FeatureSettings(
    steps="1,10,20",
    average="2-norm",
    color=ColorSettings(),
    dump=DumpSettings(enabled=True),
)


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        help="generate an image with the bundled model, and pictures of every block",
        description=f'Generate "{PROMPT}" with the bundled model: the image, feature pictures and average maps of '
        "every block at three steps, and the tensors with a manifest. Works offline.",
    )
    parser.add_argument(
        "--out", "-o", metavar="FOLDER", help="folder for the results (default: dumpunet-out)"
    )
    parser.set_defaults(model="", device="auto", dtype="auto", config=None, prediction="auto")
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the demo."""
    return produce(load(args, terminal), [PROMPT], SAMPLING, Settings(FEATURES), args.out, terminal)
