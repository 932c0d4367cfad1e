"""Add the pictures to the site: they are outside ``docs/``, because pages on GitHub show them too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PICTURES = Path(__file__).resolve().parent.parent / "images"
BESIDE, WITHIN = '"../images/', '"images/'
"""How pages link to a picture in the repository, and on the site."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pictures to the site's files."""
    for path in sorted(PICTURES.iterdir()):
        if path.suffix in (".png", ".webp"):
            files.append(File.generated(config, f"images/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Rewrite links to pictures for the site."""
    return markdown.replace(BESIDE, WITHIN)
