"""What the core logs while a request is worked on: warnings are kept for its user, all of it may go to the console."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("dumpunet")

TITLE = "Dump U-Net"


@contextmanager
def capture_log(warnings: list[str], *, to_console: bool) -> Iterator[None]:
    """Collect what is logged as a warning, and print everything to stderr if that is asked for."""
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
    """Keeps the messages of warnings."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._warnings:
            self._warnings.append(message)
