"""What a command tells: for people, quietly, or as JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lib_dumpunet.errors import DumpUNetError


class Terminal:
    """Messages and progress go to stderr, results to stdout; ``quiet`` leaves only errors, ``as_json`` one object."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet or as_json
        # No markup: prompts and paths hold square brackets. No wrapping: a caret must stay under its character.
        # No emoji: :dog: is what somebody typed.
        plain: dict[str, Any] = {"stderr": True, "markup": False, "emoji": False, "highlight": False}
        self._errors = Console(soft_wrap=True, **plain)
        self._console = Console(soft_wrap=True, quiet=self._quiet, **plain)
        handler = _Lines(self._errors)
        handler.setFormatter(_Printable())
        logger = logging.getLogger("dumpunet")
        logger.handlers = [handler]
        logger.setLevel(logging.ERROR if self._quiet else logging.WARNING)

    def say(self, text: str) -> None:
        """Tell what is going on."""
        self._console.print(printable(text))

    def error(self, error: DumpUNetError) -> None:
        """Tell what went wrong."""
        self._errors.print(
            printable(f"dumpunet: {error}"), style="bold red" if self._errors.is_terminal else ""
        )

    def result(self, lines: list[str], data: dict[str, Any]) -> None:
        """Give the result, as lines or as JSON; a quiet command gives the lines too, as they are what was asked for."""
        if self._as_json:
            print(json.dumps(data, ensure_ascii=False, indent=1))
        else:
            print("\n".join(map(printable, lines)))

    @contextmanager
    def progress(self, what: str) -> Iterator[Any]:
        """Show a bar; gives a function of (done, total)."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, disable=self._quiet) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines(logging.Handler):
    """Prints each message on a line of its own, which is not wrapped."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message behind its level."""
        self._console.print(f"{record.levelname.capitalize()}: {self.format(record)}")


class _Printable(logging.Formatter):
    """Formats messages that hold somebody's text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message as a terminal may have it."""
        return printable(super().format(record))


def printable(text: str) -> str:
    """Replace what would steer the terminal, such as escapes in a name from somebody's file, but not line ends."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def use_utf8() -> None:
    """Make sure that prompts and carets can be printed, on a Windows console with an old code page too."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
