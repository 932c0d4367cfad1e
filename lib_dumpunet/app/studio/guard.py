"""Decide which requests the studio's server answers: from whom, and from which pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

FORBIDDEN = 403  # HTTP status
UPLOAD = "/upload"


class Guard:
    """ASGI middleware that refuses uploads, foreign host names, and requests from other sites' pages.

    A page of another site can make the browser send requests to this computer. It cannot forge its origin; and if its
    own name resolves to this computer (DNS rebinding), it cannot hide that name.

    Args:
        hosts: host names that requests may use; None allows any, if other computers can reach the server.
    """

    def __init__(self, app: Any, hosts: Sequence[str] | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it without reading its body."""
        problem = self._problem(scope) if scope["type"] in ("http", "websocket") else ""
        if not problem:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse(problem, FORBIDDEN)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": problem})

    def _problem(self, scope: Any) -> str:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _name(f"//{host}") not in self._hosts:
            return "The studio answers only under this computer's own names."
        if scope["path"].rstrip("/").endswith(UPLOAD):
            return "The studio accepts no files."
        origin = headers.get("origin")
        if self._hosts is not None and origin is not None and urlsplit(origin).netloc != host:
            return "The studio answers only its own page."
        return ""


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:  # an unclosed bracket of an IPv6 address
        return None
