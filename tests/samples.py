"""The code samples of the README and the documentation."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("sh", "console", "python", "jinja", "text")
"""What a fence may say: commands, commands with what they print, Python, a template, and anything else."""


@dataclass(frozen=True)
class Sample:
    """A fenced block: its position, language and text."""

    path: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        """Return its name for a report."""
        return f"{self.path.name}:{self.line}"


def pages(root: Path) -> list[Path]:
    """List the files with samples."""
    beside = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
    return [root / name for name in beside] + sorted((root / "docs").glob("*.md"))


def samples(root: Path, *languages: str) -> list[Sample]:
    """Find the samples in these languages, or in all."""
    fence = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = []
    for path in pages(root):
        text = path.read_text(encoding="utf-8")
        for match in fence.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Sample(path, line, match[1], match[2]))
    return [sample for sample in found if not languages or sample.language in languages]


def commands(sample: Sample) -> list[list[str]]:
    """Split a sample into the arguments of its commands, which may span several lines."""
    if sample.language == "console":
        lines = [line[2:] for line in sample.text.splitlines() if line.startswith("$ ")]
        return [shlex.split(line) for line in lines]
    words = shlex.shlex(sample.text, posix=True, punctuation_chars="\n")
    words.whitespace, words.whitespace_split, words.commenters = " \t\r", True, ""
    found: list[list[str]] = [[]]
    for word in words:
        if set(word) == {"\n"}:
            found.append([])
        else:
            found[-1].append(word)
    return [command for command in found if command]
