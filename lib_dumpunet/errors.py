"""What can go wrong through a user, a model or a host, and how it is told.

    DumpUNetError
    ├── SettingsError           a field of the panel, or a flag, holds something unusable
    │   └── FormulaError        ... a colour formula
    ├── PromptSyntaxError       a per-block prompt cannot be read
    ├── UnsupportedModelError   the model has no U-Net of a known layout
    └── HostError               the program around us failed to give what it must (a file, a folder, a device)

An error is data: the problem, the remedy, the field, and the place in a text. ``str(error)`` is its one rendering;
nothing else in the project formats messages.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

QUOTED = 60
"""Characters of a long line that are quoted on either side of the caret."""


@dataclass(frozen=True)
class SourcePosition:
    """A place in a text that the user wrote; ``position`` counts characters and may be ``len(text)``, the end."""

    text: str
    position: int

    def __post_init__(self) -> None:
        assert 0 <= self.position <= len(self.text)

    def render(self) -> str:
        """Quote the line and put a caret under the character, by the width it has in a terminal."""
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
    """Base of all errors that a user or a host can cause; never raised itself."""

    def __init__(
        self, problem: str, *, remedy: str = "", field: str = "", source: SourcePosition | None = None
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.field = field
        self.source = source
        self.path: tuple[str, ...] = ()
        """The setting that is wrong, such as ``("features", "layers")``; empty for anything else."""

    @property
    def position(self) -> int | None:
        """Character of the user's text at which reading stopped, if the error has such a place."""
        return None if self.source is None else self.source.position

    def in_field(self, field: str) -> DumpUNetError:
        """Name the field that the text came from, where the code that read it could not know."""
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
    """A setting is not usable."""


class FormulaError(SettingsError):
    """A colour formula is not arithmetic on ``v``."""


class PromptSyntaxError(DumpUNetError):
    """A per-block prompt does not follow its grammar."""


class UnsupportedModelError(DumpUNetError):
    """The model has no U-Net, or one of an unknown layout."""


class HostError(DumpUNetError):
    """The program around the core could not give what was asked of it."""


@contextmanager
def within(*path: str) -> Iterator[None]:
    """Say of which setting a mistake is that comes up in the ``with``, in front of what it says of that itself."""
    try:
        yield
    except DumpUNetError as error:
        error.path = (*path, *error.path)
        raise


def cell_width(text: str) -> int:
    """Columns that ``text`` takes in a terminal: two for wide characters, none for combining ones (Unicode UAX #11)."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def _printable(text: str) -> str:
    """Replace characters that would move the cursor, so that the caret stays under its character."""
    return "".join(c if c.isprintable() else " " for c in text)
