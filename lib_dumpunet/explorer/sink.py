"""Take captures as they come, and write a page for each image once it is there."""

from __future__ import annotations

import logging
from collections.abc import Callable

from PIL import Image

from lib_dumpunet.captures import Capture
from lib_dumpunet.explorer.collect import Collection, Labels
from lib_dumpunet.explorer.document import About, make_page
from lib_dumpunet.ports import Page

log = logging.getLogger("dumpunet")


class ExplorerSink:
    """Collect what a page shows.

    Args:
        about: what pages tell beside their maps.
        labels: gives the text of each of the tokens that a layer has read, nothing if they are not known.
        limit: megabytes that a page may have.
        write: takes a page.
        folder: where what waits is put; None for the system's folder for temporary files.
    Raises:
        HostError: if nothing can be put there.
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

    @property
    def images(self) -> list[int]:
        """Images whose pages are still to be written."""
        return self._collection.images

    def accept(self, capture: Capture) -> None:
        """Take one capture.

        Raises:
            HostError: the disk is full.
        """
        self._collection.add(capture)

    def finish(self, image: int, picture: Image.Image | None) -> None:
        """Write the page of an image of which all has come; ``picture`` is None for one that never came out.

        Raises:
            HostError: if it cannot be written.
        """
        try:
            page = make_page(image, picture, self._collection, self._about, self._limit)
        finally:
            self._collection.forget(image)
        log.info(page.about)
        self._write(page)

    def close(self) -> None:
        """Let go of what waits of images that were not finished."""
        self._collection.close()
