"""Capture the core's log during a request: keep warnings for the user, and optionally print everything to stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("dumpunet")

TITLE = "Dump U-Net"


@contextmanager
def capture_log(warnings: list[str], *, to_console: bool) -> Iterator[None]:
    """Append warnings to a list, and print all log messages to stderr if ``to_console``."""
    keeper = _Keeper(warnings)
    handlers: list[logging.Handler] = [keeper]
    level = log.level
    if to_console:
        printer = logging.StreamHandler()
        printer.setFormatter(logging.Formatter(f"{TITLE}: %(message)s"))
        handlers.append(printer)
        log.setLevel(logging.DEBUG)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
        log.setLevel(level)


class _Keeper(logging.Handler):
    """Appends the messages of warnings to a list, each once."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._warnings:
            self._warnings.append(message)
