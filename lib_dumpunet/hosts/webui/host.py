"""The core's host in the webui, and messages to its user: pictures go to the gallery, sentences under it."""

from __future__ import annotations

import sys
from typing import Any

from fastapi import HTTPException
from modules import shared

from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.hosts.common.log_capture import TITLE
from lib_dumpunet.hosts.webui.clock import DenoiserClock
from lib_dumpunet.hosts.webui.gallery import Gallery
from lib_dumpunet.ports import Page, Picture

REFUSED = "dumpunet_refused"
"""Name of the attribute that marks a job ended before sampling."""
UNPROCESSABLE = 422  # HTTP status


class Refused(Exception):
    """Ends a job from the page before sampling."""


class WebuiHost:
    """The core's host for one job."""

    def __init__(self, clock: DenoiserClock, gallery: Gallery) -> None:
        self.clock = clock
        self._gallery = gallery

    def show(self, picture: Picture) -> None:
        """Keep a picture for the gallery."""
        self._gallery.show(picture)

    def write_page(self, page: Page) -> None:
        """Keep a page until its image is saved."""
        self._gallery.add_page(page)


def tell(p: Any, message: str) -> None:
    """Show a message under the gallery and in the console."""
    p.comment(f"{TITLE}: {message}")
    print(f"*** {TITLE}: {message}", file=sys.stderr)


def refuse(p: Any, error: DumpUNetError) -> None:
    """End a job before it samples, with a sentence on the page or an error of the API.

    The webui swallows exceptions of hooks, so for the API ``p.sample`` raises it. A job from the page ends without an
    exception: a batch without prompts is the last one, and an interrupted job, even a plot, starts no other.
    """
    tell(p, str(error))
    setattr(p, REFUSED, True)
    if not is_api(p):
        shared.state.interrupted = True
        p.prompts = []

    def sample(*_: object, **__: object) -> None:
        raise refusal(p, error)

    p.sample = sample


def is_api(p: Any) -> bool:
    """Return whether a job comes from the API rather than the page."""
    return bool(getattr(p, "is_api", False))


def was_refused(p: Any) -> bool:
    """Return whether a job was ended before sampling."""
    return bool(getattr(p, REFUSED, False))


def refusal(p: Any, error: DumpUNetError) -> Exception:
    """Return the exception that ends a job for a user's mistake; for the API, it has an HTTP status."""
    if is_api(p):
        return HTTPException(UNPROCESSABLE, detail=f"{TITLE}: {error}")
    return Refused(f"{TITLE}: {error}")
