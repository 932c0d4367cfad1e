"""The command line: ``dumpunet studio | generate | explore | words | sweep | demo | blocks | prompt | view | bench``.

Each command is a module of this package with ``add(subparsers)`` and ``run(args, terminal) -> exit code``. Commands
import torch and diffusers only when they run, so that ``--help`` is fast.

Exit codes: 0 for success, 1 if something went wrong after the image was generated, 2 for a user's mistake, 130 after
an interrupt.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from lib_dumpunet import __version__
from lib_dumpunet.app import (
    bench_command,
    blocks,
    demo,
    explore,
    generate,
    prompt,
    studio_command,
    sweep,
    view,
    words,
)
from lib_dumpunet.app.flags import named_by_flag
from lib_dumpunet.app.output import Terminal, use_utf8
from lib_dumpunet.app.processor import prepare_threads
from lib_dumpunet.errors import DumpUNetError, HostError

COMMANDS = (studio_command, generate, explore, words, sweep, demo, blocks, prompt, view, bench_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    use_utf8()
    prepare_threads()
    args = make_parser().parse_args(arguments)
    terminal = Terminal(quiet=args.quiet, as_json=args.json)
    try:
        code = int(args.run(args, terminal))
        sys.stdout.flush()
        return code
    except DumpUNetError as error:
        terminal.error(named_by_flag(error))
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader of our output has gone; without this, Python would fail again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        what = f"{error.filename}: " if error.filename else ""
        terminal.error(HostError(f"{what}{error.strerror or error}", remedy="Check the path and the disk."))
        return 2
    except KeyboardInterrupt:
        terminal.say("Interrupted.")
        return 130


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, which the usage of a command with fifty flags would bury."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # A minus followed by a digit begins a value such as -1,1, never a flag.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        """Report a mistake, and point to --help."""
        self.exit(2, f"{self.prog}: {message[:1].upper()}{message[1:]}. See {self.prog} --help.\n")


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = _Parser(
        prog="dumpunet",
        description="Look inside a Stable Diffusion U-Net, block by block.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dumpunet {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = command.add(subparsers)
        sub.allow_abbrev = False
        sub.add_argument(
            "-q",
            "--quiet",
            action="store_true",
            help="print only results and errors, no messages or progress",
        )
        sub.add_argument(
            "--json", action="store_true", help="print one JSON object to stdout, for scripts; implies -q"
        )
        sub.set_defaults(run=command.run)
    return parser
