"""``dumpunet bench``: measure speed and memory, as ratios within one run."""

from __future__ import annotations

import argparse
from typing import Any

from lib_dumpunet.app.models import hush_libraries
from lib_dumpunet.app.output import Terminal


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench",
        help="measure speed and memory against fixed limits",
        description="Measure speed and memory against fixed limits. Every value is a ratio or difference of two things "
        "measured side by side, because machines are noisy. The whole benchmark takes about 20 minutes and 8 GB of "
        "memory. The part daam compares with another program, which it downloads, and runs only if named.",
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help="colour, dump, memory, capture, attention, words, steering, explorer, command, daam (default: all except "
        "daam)",
    )
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Measure and print a table; return exit code 1 if a limit is missed."""
    hush_libraries()
    from lib_dumpunet.app.bench import measure

    rows = measure(args.parts, terminal.say)
    width = max(len(row.name) for row in rows)
    lines = [f"{'ok  ' if row.ok else 'MISS'}  {row.name.ljust(width)}  {row}" for row in rows]
    terminal.result(
        lines, {"rows": [{"name": r.name, "value": r.value, "bound": r.bound, "ok": r.ok} for r in rows]}
    )
    return 0 if all(row.ok for row in rows) else 1
