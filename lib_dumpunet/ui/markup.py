"""Fill in HTML templates. Values are escaped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def templates(folder: Path) -> Callable[..., str]:
    """Return a function that fills in a template of a folder, given its name without extension and its values."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def fill(name: str, /, **values: object) -> str:
        return environment.get_template(f"{name}.html").render(values)

    return fill


fill = templates(Path(__file__).parent / "templates")


def message(text: str) -> str:
    """Return an error message in HTML; empty for an empty text.

    The sentence may wrap, but the quoted line below it may not, so that the caret stays under its character.
    """
    sentence, _, quoted = text.partition("\n")
    return fill("message", sentence=sentence, quoted=quoted) if text else ""
