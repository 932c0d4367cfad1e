"""The output of a command: for users, quiet, or as JSON."""

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
    """Prints messages and progress to stderr, results to stdout.

    ``quiet`` prints only results and errors; ``as_json`` prints results as one JSON object, and implies ``quiet``.
    """

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet or as_json
        # No markup: prompts and paths contain square brackets. No wrapping: a caret must stay under its character.
        # No emoji: a user may have typed :dog:.
        plain: dict[str, Any] = {"stderr": True, "markup": False, "emoji": False, "highlight": False}
        self._errors = Console(soft_wrap=True, **plain)
        self._console = Console(soft_wrap=True, quiet=self._quiet, **plain)
        handler = _Lines(self._errors)
        handler.setFormatter(_Printable())
        logger = logging.getLogger("dumpunet")
        logger.handlers = [handler]
        logger.setLevel(logging.ERROR if self._quiet else logging.WARNING)

    def say(self, text: str) -> None:
        """Print a message."""
        self._console.print(printable(text))

    def error(self, error: DumpUNetError) -> None:
        """Print an error."""
        self._errors.print(
            printable(f"dumpunet: {error}"), style="bold red" if self._errors.is_terminal else ""
        )

    def result(self, lines: list[str], data: dict[str, Any]) -> None:
        """Print the result, as lines or as JSON."""
        if self._as_json:
            print(json.dumps(data, ensure_ascii=False, indent=1))
        else:
            print("\n".join(map(printable, lines)))

    @contextmanager
    def progress(self, what: str) -> Iterator[Any]:
        """Show a progress bar; yield a function of (done, total) that updates it."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, disable=self._quiet) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines(logging.Handler):
    """Prints each log message on its own line, without wrapping."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message after its level."""
        self._console.print(f"{record.levelname.capitalize()}: {self.format(record)}")


class _Printable(logging.Formatter):
    """Formats messages that may contain text from untrusted files."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message without control characters."""
        return printable(super().format(record))


def printable(text: str) -> str:
    """Replace control characters other than line ends and tabs: names from a file may contain terminal escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def use_utf8() -> None:
    """Set UTF-8 output, so that prompts and carets can be printed even on an old Windows console."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
