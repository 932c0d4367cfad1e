"""Collect captures, and write a page for each finished image."""

from __future__ import annotations

import logging
from collections.abc import Callable

from PIL import Image

from lib_dumpunet.captures import Capture
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.explorer.about import About
from lib_dumpunet.explorer.collect import Collection, Labels
from lib_dumpunet.explorer.document import make_page
from lib_dumpunet.ports import Page
from lib_dumpunet.sinks.base import Sink

log = logging.getLogger("dumpunet")


class ExplorerSink(Sink):
    """Collects captures for explorer pages.

    Args:
        about: what pages show besides maps.
        labels: returns the labels of the tokens that a layer reads; empty if they are not known.
        limit: the largest size of a page in megabytes.
        write: receives a page.
        folder: where to keep waiting maps; None for the system's folder for temporary files.
    Raises:
        HostError: if the file for them cannot be created.
    """

    def __init__(
        self,
        about: About,
        labels: Labels,
        limit: float,
        write: Callable[[Page], None],
        folder: str | None = None,
    ) -> None:
        self._about, self._limit, self._write = about, limit, write
        self._collection = Collection(labels, folder)
        self._pictures: dict[int, Image.Image | None] = {}

    def accept(self, capture: Capture) -> None:
        """Take one capture.

        Raises:
            HostError: if the disk is full.
        """
        self._collection.add(capture)

    def see_image(self, image: int, picture: Image.Image | None) -> None:
        """Take the image to show on its page."""
        self._pictures[image] = picture

    def finish_image(self, image: int) -> None:
        """Write the page of an image.

        Raises:
            HostError: if the page cannot be made or written.
        """
        picture = self._pictures.pop(image, None)
        try:
            page = make_page(image, picture, self._collection, self._about, self._limit)
            log.info(page.about)
            self._write(page)
        except DumpUNetError:
            raise
        except Exception as error:
            log.debug("page of image %d failed", image, exc_info=True)
            raise HostError(f"the explorer page of image {image} could not be made ({error})") from error
        finally:
            self._collection.forget(image)

    def close(self) -> None:
        """Discard the maps of unfinished images."""
        self._collection.close()
