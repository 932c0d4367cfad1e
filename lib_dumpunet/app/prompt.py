"""``dumpunet prompt``: the text that each block gets from a per-block prompt."""

from __future__ import annotations

import argparse
from typing import Any

from lib_dumpunet.app.models import add_model_flags, hush_libraries, load
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.blocks import SD1, BlockOrder, spans
from lib_dumpunet.prompt.layer_prompt import parse_prompt


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "prompt",
        help="show the text that each block gets from a per-block prompt",
        description="Show the text that each block gets from a prompt with per-block brackets, such as "
        '"a (~: IN00-OUT11: cute ; M00: excellent :~) girl", or where the prompt is wrong. Without --model, for the '
        "blocks of SD 1.x and 2.x.",
    )
    parser.add_argument("prompt", help="the prompt")
    add_model_flags(parser)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Print the texts, blocks with the same one together."""
    order = _order(args, terminal) if args.model else SD1
    template = parse_prompt(args.prompt, order, field="prompt")
    texts = {block: template.text_for(block) for block in order}
    groups: dict[str, list[str]] = {}
    for block, text in texts.items():
        groups.setdefault(text, []).append(block)
    names = {text: spans(tuple(blocks)) for text, blocks in groups.items()}
    width = max(len(name) for name in names.values())
    lines = [f"{name.ljust(width)}  {text!r}" for text, name in names.items()]
    terminal.result(
        [*lines, f"{'base prompt'.ljust(width)}  {template.erased!r}"],
        {"blocks": texts, "base": template.erased},
    )
    return 0


def _order(args: argparse.Namespace, terminal: Terminal) -> BlockOrder:
    hush_libraries()
    from lib_dumpunet.hosts.diffusers.loading import unet_config, unet_shell
    from lib_dumpunet.unet.sites import describe

    config = unet_config(args.model)
    return describe(load(args, terminal).unet if config is None else unet_shell(config)).order
