"""The differences that per-block prompts make: compare two runs from the same seed, block by block."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.spool import Spool


class DifferenceSink(Sink):
    """Compare a run with per-block prompts with one without, which must be finished and processed first.

    Each "plain" tensor, from the run without, waits on disk for the "steered" tensor of the same image, block and step,
    and is then released. The "difference" goes to the sinks after this one.

    Args:
        folder: where to create the file for waiting tensors; None for the system's folder for temporary files.
    Raises:
        HostError: if the file cannot be created.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._spool = Spool("features without per-block prompts", folder)

    def accept(self, capture: Capture) -> Iterable[Capture] | None:
        """Set a plain tensor aside, or return the difference for a steered one.

        Raises:
            HostError: if the disk is full, or the plain tensor is missing or has another shape.
        """
        if capture.tag.kind == "plain":
            self._put(capture)
        elif capture.tag.kind == "steered":
            return [self._compare(capture)]
        return None

    def close(self) -> None:
        """Close the file, with anything still in it after an interrupted run."""
        self._spool.close()

    def _put(self, capture: Capture) -> None:
        try:
            self._spool.put(capture.tag, capture.tensor)
        except HostError:
            # This sink is stopped now; free the space, which a dump on the same disk may need.
            with suppress(HostError):
                self._spool.clear()
            raise

    def _compare(self, capture: Capture) -> Capture:
        """Subtract in float32, which is exact for 16-bit numbers unless their magnitudes differ widely."""
        steered, plain = capture.tensor.detach(), self._spool.take(replace(capture.tag, kind="plain"))
        if plain is None:
            raise HostError(
                f"{_place(capture.tag)} cannot be compared: the run without per-block prompts did not capture it"
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
