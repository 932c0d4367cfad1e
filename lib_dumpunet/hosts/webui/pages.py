"""Links to the explorer pages of the last jobs, served by the webui, because browsers block links to local files."""

from __future__ import annotations

import html
import secrets
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from fastapi.responses import FileResponse

KEPT = 20
"""The number of newest pages that have a link."""
ADDRESS = "dumpunet/explorer"
NOT_FOUND = 404  # HTTP status
_pages: dict[str, Path] = {}
"""Pages by unguessable names, because anyone who knows a name can read the page."""


def offer(page: Path) -> None:
    """Add a link to a page."""
    _pages[secrets.token_urlsafe(16)] = page.absolute()
    while len(_pages) > KEPT:
        del _pages[next(iter(_pages))]


def links() -> str:
    """Return the links in HTML, newest first."""
    items = [
        f'<li><a href="{ADDRESS}/{name}" target="_blank" rel="noopener">{html.escape(page.name)}</a></li>'
        for name, page in reversed(_pages.items())
        if page.exists()
    ]
    return f"<ul>{''.join(items)}</ul>" if items else "<p>No page has been written yet.</p>"


def add_route(_: Any, app: Any) -> None:
    """Let the webui's server serve pages."""
    app.add_api_route(f"/{ADDRESS}/{{name}}", _page, methods=["GET"], include_in_schema=False)


def _page(name: str) -> FileResponse:
    page = _pages.get(name)
    if page is None or not page.exists():
        raise HTTPException(NOT_FOUND, detail="This page no longer exists.")
    return FileResponse(page, media_type="text/html")
