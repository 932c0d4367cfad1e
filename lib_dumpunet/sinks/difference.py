"""What per-block prompts change: the difference between two runs from the same seed, block by block."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.spool import Spool


class DifferenceSink(Sink):
    """Compare a run with per-block prompts to one without, which must have been made, and worked off, before.

    Of the run without, each "plain" tensor waits on disk for the "steered" one of the same image, block and step, and
    is let go of with it. The "difference" goes to the sinks behind this one.

    Args:
        folder: where the file of those that wait is made; None for the system's folder for temporary files.
    Raises:
        HostError: if it cannot be made.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._spool = Spool("features without per-block prompts", folder)

    def accept(self, capture: Capture) -> Iterable[Capture] | None:
        """Put a plain tensor aside, or give the difference of a steered one.

        Raises:
            HostError: the disk is full; or there is no plain tensor, or it has another shape.
        """
        if capture.tag.kind == "plain":
            self._put(capture)
        elif capture.tag.kind == "steered":
            return [self._compare(capture)]
        return None

    def close(self) -> None:
        """Let go of the file, and of what still waits in it after a run that was cut short."""
        self._spool.close()

    def _put(self, capture: Capture) -> None:
        try:
            self._spool.put(capture.tag, capture.tensor)
        except HostError:
            # This sink is stopped now, and a dump may be on the same disk.
            with suppress(HostError):
                self._spool.clear()
            raise

    def _compare(self, capture: Capture) -> Capture:
        """Subtract in float32, where 16-bit numbers lose nothing but the last bits of very unequal ones."""
        steered, plain = capture.tensor.detach(), self._spool.take(replace(capture.tag, kind="plain"))
        if plain is None:
            raise HostError(
                f"{_place(capture.tag)} cannot be compared: the run without per-block prompts had none"
            )
        if plain.shape != steered.shape:
            shapes = ["×".join(map(str, tensor.shape)) for tensor in (plain, steered)]
            raise HostError(
                f"{_place(capture.tag)} cannot be compared: it is {shapes[0]} without per-block prompts, "
                f"{shapes[1]} with them"
            )
        return Capture(replace(capture.tag, kind="difference"), steered.float() - plain.float())


def _place(tag: Tag) -> str:
    return f"block {tag.block} of step {tag.when}, image {tag.image},"
