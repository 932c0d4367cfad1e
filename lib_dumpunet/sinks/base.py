"""What a sink is: the events of a run, one after the other."""

from __future__ import annotations

from collections.abc import Iterable

from PIL import Image

from lib_dumpunet.captures import Capture


class Sink:
    """Takes captures and makes something of them.

    ``accept`` is called from several threads at once and in any order, so a sink guards its own state; a capture's
    tensor may be read at once and must not be changed, as other sinks read it too. ``finish_image`` is called for one
    image after the other. ``close`` is called once, after all else, also when an ``accept`` failed.
    Captures that any of the three gives are handed to the sinks behind it.
    """

    def accept(self, capture: Capture) -> Iterable[Capture] | None:
        """Take one capture."""
        raise NotImplementedError

    def see_image(self, image: int, picture: Image.Image | None) -> None:
        """Take an image that has come out, None for one that never did; its words and points come next."""

    def finish_image(self, image: int) -> Iterable[Capture] | None:
        """Do what waits for all captures of an image: it has had them, unless it has failed at one.

        A fault here concerns this image alone.
        """

    def close(self) -> Iterable[Capture] | None:
        """Finish what waits, and let go of files: the run is over."""
