"""The base class of sinks, with a method for each event of a run."""

from __future__ import annotations

from collections.abc import Iterable

from PIL import Image

from lib_dumpunet.captures import Capture


class Sink:
    """Receives captures, and draws, writes or collects them.

    ``accept`` is called from several threads at once and in any order, so a sink must guard its state; it may read a
    capture's tensor at once, but must not change it, because other sinks read it too. ``finish_image`` is called for
    one image at a time. ``close`` is called once, last, even if an ``accept`` failed. Captures that any of the three
    returns are passed to the sinks after this one.
    """

    def accept(self, capture: Capture) -> Iterable[Capture] | None:
        """Take one capture."""
        raise NotImplementedError

    def see_image(self, image: int, picture: Image.Image | None) -> None:
        """Take a finished image, or None for one that was never finished; its words and points come next."""

    def finish_image(self, image: int) -> Iterable[Capture] | None:
        """Do whatever needs all captures of an image; they have all come, unless ``accept`` failed.

        An error here affects only this image.
        """

    def close(self) -> Iterable[Capture] | None:
        """Finish pending work and close files at the end of the run."""
