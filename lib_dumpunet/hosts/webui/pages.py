"""Explorer pages of the last jobs, as links of the webui's own page; a browser may not open files by itself."""

from __future__ import annotations

import html
import secrets
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from fastapi.responses import FileResponse

KEPT = 20
"""Pages that have a link, the newest."""
ADDRESS = "dumpunet/explorer"
NOT_FOUND = 404  # HTTP status
_pages: dict[str, Path] = {}
"""By names that nobody can guess, since whoever knows one can read the page."""


def offer(page: Path) -> None:
    """Make a link to a page."""
    _pages[secrets.token_urlsafe(16)] = page.absolute()
    while len(_pages) > KEPT:
        del _pages[next(iter(_pages))]


def links() -> str:
    """List the links in HTML, the newest first."""
    items = [
        f'<li><a href="{ADDRESS}/{name}" target="_blank" rel="noopener">{html.escape(page.name)}</a></li>'
        for name, page in reversed(_pages.items())
        if page.exists()
    ]
    return f"<ul>{''.join(items)}</ul>" if items else "<p>No page has been written yet.</p>"


def add_route(_: Any, app: Any) -> None:
    """Let the webui's server give pages out."""
    app.add_api_route(f"/{ADDRESS}/{{name}}", _page, methods=["GET"], include_in_schema=False)


def _page(name: str) -> FileResponse:
    page = _pages.get(name)
    if page is None or not page.exists():
        raise HTTPException(NOT_FOUND, detail="There is no such page any more.")
    return FileResponse(page, media_type="text/html")
