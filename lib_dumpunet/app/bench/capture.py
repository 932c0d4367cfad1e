"""Measure what capturing and drawing cost, with a U-Net of SD 1.5's real width."""

from __future__ import annotations

from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.app.bench.sampling import WIDTHS, Watch, added_seconds, sampling_step
from lib_dumpunet.image.draw import png_bytes
from lib_dumpunet.plan import CaptureRequest, Plan
from lib_dumpunet.ports import Picture
from lib_dumpunet.settings import FeatureSettings
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.drawing import Style
from lib_dumpunet.sinks.picture import PictureSink

ROUNDS = 3


def measure_capture(rounds: int = ROUNDS, widths: tuple[int, ...] = WIDTHS) -> list[Row]:
    """Compare CPU seconds of a sampling step: plain, capturing all blocks, and drawing all blocks."""
    unet, run = sampling_step(widths)
    want = CaptureRequest(unet.order.names, {1})
    capture = {"capture": lambda: Watch(Plan(features=want), (Forget(),))}
    sink = PictureSink("features", Style(FeatureSettings(), 1.0), _encode)
    pictures = {"pictures": lambda: Watch(Plan(features=want), (sink,))}
    captured = added_seconds(run, capture, rounds)["capture"]
    drawn = added_seconds(run, pictures, rounds, copies=1)["pictures"]
    return [
        Row("capture of all blocks, added to a step", captured, "%", 2, at_least=False),
        Row("pictures of all blocks, added to a step", drawn, "%", 10, at_least=False),
    ]


class Forget(Sink):
    """A sink that does nothing, to measure capturing alone."""

    def accept(self, capture: object) -> None:
        """Discard a capture."""


def _encode(picture: Picture) -> None:
    png_bytes(picture.image, picture.info)
