"""Let the site have the pictures that lie beside the pages' folder, where the repository's pages show them too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PICTURES = Path(__file__).resolve().parent.parent / "images"
BESIDE, WITHIN = '"../images/', '"images/'
"""How a page of the repository points at a picture, and how one of the site does."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pictures to what the site consists of."""
    for path in sorted(PICTURES.iterdir()):
        if path.suffix in (".png", ".webp"):
            files.append(File.generated(config, f"images/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point at the pictures within the site."""
    return markdown.replace(BESIDE, WITHIN)
