"""``dumpunet blocks``: print a model's block table."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lib_dumpunet.app.models import add_model_flags, hush_libraries, load, locate
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.prompt.selection import select_blocks

if TYPE_CHECKING:
    from lib_dumpunet.hooks.shapes import BlockInfo


LARGEST = 16384  # pixels


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "blocks",
        help="list a model's blocks with their shapes and attention layers",
        description="List a model's blocks: input and output shapes (channels, height, width) for an image size, "
        "the kinds of layers, and the heads of each cross-attention layer, all from the model itself.",
    )
    parser.add_argument("--blocks", default="", help="blocks to list, such as IN00-OUT03(+2) (default: all)")
    parser.add_argument("--layers", dest="blocks", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--width", type=int, metavar="N", help="pixels, a multiple of 8 (default: the model's own)"
    )
    parser.add_argument(
        "--height", type=int, metavar="N", help="pixels, a multiple of 8 (default: the model's own)"
    )
    add_model_flags(parser)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Print the table."""
    for field, side in (("--width", args.width), ("--height", args.height)):
        if side is not None and (not 8 <= side <= LARGEST or side % 8):
            raise SettingsError(
                f"{side} is not a multiple of 8 from 8 to {LARGEST}",
                remedy="Use 512, for example.",
                field=field,
            )
    select_blocks(args.blocks, locate(args).order, field="--blocks")
    hush_libraries()
    from lib_dumpunet.hosts.diffusers.loading import block_table, unet_config

    config = unet_config(args.model) or load(args, terminal).unet.config
    own = config["sample_size"] * 8
    rows = block_table(config, args.width or own, args.height or own)
    chosen = select_blocks(args.blocks, [row.block for row in rows], field="--blocks")
    rows = [row for row in rows if row.block in chosen]
    terminal.result(lines(rows), {"blocks": [asdict(row) for row in rows]})
    return 0


def lines(rows: list[BlockInfo]) -> list[str]:
    """Format the table in columns."""
    cells = [("block", "layers", "input", "output", "heads")]
    cells += [(r.block, r.kind, _shape(r.input), _shape(r.output), _heads(r.heads)) for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    align = (str.ljust, str.ljust, str.rjust, str.rjust, str.ljust)
    return ["  ".join(a(c, w) for a, c, w in zip(align, row, widths, strict=True)).rstrip() for row in cells]


def _shape(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


def _heads(heads: tuple[int, ...]) -> str:
    """Return ``8`` for one layer of 8 heads, ``10 x 20`` for ten layers of 20 heads."""
    if len(set(heads)) > 1:
        return ", ".join(map(str, heads))
    return "" if not heads else f"{heads[0]}" if len(heads) == 1 else f"{len(heads)} x {heads[0]}"
