"""Errors caused by a user, a model or a host, and the layout of their messages.

    DumpUNetError
    ├── SettingsError           a field of the panel, or a flag, has an unusable value
    │   └── FormulaError        ... a colour formula
    ├── PromptSyntaxError       a per-block prompt cannot be read
    ├── UnsupportedModelError   the model has no U-Net of a known layout
    └── HostError               the host failed to provide something (a file, a folder, a device)

An error is data: problem, remedy, field, and position in a text. Only ``str(error)`` formats messages.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

QUOTED = 60
"""Characters of a long line to quote on each side of the caret."""


@dataclass(frozen=True)
class SourcePosition:
    """A position in a text that the user wrote, in characters; ``len(text)`` is the end."""

    text: str
    position: int

    def __post_init__(self) -> None:
        assert 0 <= self.position <= len(self.text)

    def render(self) -> str:
        """Quote the line and put a caret under the character, as aligned in a terminal."""
        start = self.text.rfind("\n", 0, self.position) + 1
        end = self.text.find("\n", self.position)
        before = _printable(self.text[start : self.position])
        after = _printable(self.text[self.position : len(self.text) if end < 0 else end])
        if len(before) > QUOTED:
            before = f"...{before[-QUOTED:]}"
        if len(after) > QUOTED:
            after = f"{after[:QUOTED]}..."
        return f"  {before}{after}\n  {' ' * cell_width(before)}^"


class DumpUNetError(Exception):
    """Base class of all errors that a user, a model or a host can cause; never raised itself."""

    def __init__(
        self, problem: str, *, remedy: str = "", field: str = "", source: SourcePosition | None = None
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.field = field
        self.source = source
        self.path: tuple[str, ...] = ()
        """The wrong setting, such as ``("features", "layers")``; empty if the error is not about a setting."""

    @property
    def position(self) -> int | None:
        """Position in the user's text at which parsing stopped; None if the error has none."""
        return None if self.source is None else self.source.position

    def in_field(self, field: str) -> DumpUNetError:
        """Set the field that the text came from, unless it is known already."""
        self.field = self.field or field
        return self

    def __str__(self) -> str:
        message = f"{self.field}: {self.problem}" if self.field else self.problem
        if self.remedy:
            message = f"{message.rstrip('.')}. {self.remedy}"
        if not message.endswith((".", "!", "?")):
            message += "."
        return message if self.source is None else f"{message}\n{self.source.render()}"


class SettingsError(DumpUNetError):
    """A setting has an unusable value."""


class FormulaError(SettingsError):
    """A colour formula is not arithmetic on ``v``."""


class PromptSyntaxError(DumpUNetError):
    """A per-block prompt does not follow its grammar."""


class UnsupportedModelError(DumpUNetError):
    """The model has no U-Net, or one of an unknown layout."""


class HostError(DumpUNetError):
    """The host could not provide what it was asked for."""


@contextmanager
def within(*path: str) -> Iterator[None]:
    """Prepend ``path`` to the setting path of any error raised inside the ``with``."""
    try:
        yield
    except DumpUNetError as error:
        error.path = (*path, *error.path)
        raise


def cell_width(text: str) -> int:
    """Return the columns ``text`` takes in a terminal: 2 per wide character, 0 per combining one (Unicode UAX #11)."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def _printable(text: str) -> str:
    """Replace characters that would move the cursor, so that the caret stays under its character."""
    return "".join(c if c.isprintable() else " " for c in text)
