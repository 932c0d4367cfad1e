"""What is told to the webui's user: pictures on their way to the gallery, and sentences under it."""

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
"""Name of the mark on a job that was ended."""
UNPROCESSABLE = 422  # HTTP status of a request that is understood, and wrong


class Refused(Exception):
    """Ends a job of the page's before sampling."""


class WebuiHost:
    """The core's host for one job."""

    def __init__(self, clock: DenoiserClock, gallery: Gallery) -> None:
        self.clock = clock
        self._gallery = gallery

    def show(self, picture: Picture) -> None:
        """Keep a picture for the gallery."""
        self._gallery.show(picture)

    def write_page(self, page: Page) -> None:
        """Keep a page until its image has a place."""
        self._gallery.add_page(page)


def tell(p: Any, message: str) -> None:
    """Say something under the gallery, and in the console where the webui was started."""
    p.comment(f"{TITLE}: {message}")
    print(f"*** {TITLE}: {message}", file=sys.stderr)


def refuse(p: Any, error: DumpUNetError) -> None:
    """End a job before it samples: with a sentence on the page, or as an error of the API.

    Exceptions of hooks are swallowed by the webui, so the API's comes out of ``p.sample``. The page's job ends without
    any: a batch without prompts is the last one, and an interrupted job, a plot too, begins no other.
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
    """Return whether the API has asked for a job, not the page."""
    return bool(getattr(p, "is_api", False))


def was_refused(p: Any) -> bool:
    """Return whether a job was ended before it sampled."""
    return bool(getattr(p, REFUSED, False))


def refusal(p: Any, error: DumpUNetError) -> Exception:
    """Make the exception that ends a job for a mistake of the user's: the API answers it with a status of its own."""
    if is_api(p):
        return HTTPException(UNPROCESSABLE, detail=f"{TITLE}: {error}")
    return Refused(f"{TITLE}: {error}")
