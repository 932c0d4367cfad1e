"""Draw captures as pictures and hand them to the host."""

from __future__ import annotations

from collections.abc import Callable

from lib_dumpunet.captures import Capture
from lib_dumpunet.image.average import average
from lib_dumpunet.image.colorize import compile_channels
from lib_dumpunet.image.draw import draw_features
from lib_dumpunet.ports import Picture
from lib_dumpunet.settings import FeatureSettings

Show = Callable[[Picture], None]


class PictureSink:
    """Draw each block's features as a grid of its channels, and the average map ahead of it if one is asked for.

    ``ratio`` is width / height of the generated image, which the grid comes as near to as it can.

    Raises:
        FormulaError: at once, for a colour formula that cannot be read.
    """

    def __init__(self, settings: FeatureSettings, ratio: float, show: Show) -> None:
        compile_channels(settings.color)
        self._settings = settings
        self._ratio = ratio
        self._show = show

    def accept(self, capture: Capture) -> None:
        """Draw one capture; pictures are independent of each other, so no state is kept."""
        if capture.tag.kind != "feature":
            return
        mean = average(capture.tensor, self._settings.average)
        if mean is not None:
            image = draw_features(mean, self._settings.color, self._ratio)
            self._show(Picture(image, capture.tag, "unet-average", self._info(capture)))
        image = draw_features(capture.tensor, self._settings.color, self._ratio)
        self._show(Picture(image, capture.tag, "unet", self._info(capture)))

    def close(self) -> None:
        """Do nothing: all pictures are out already."""

    def _info(self, capture: Capture) -> dict[str, str]:
        return {"Layer Name": capture.tag.block, "Feature Steps": str(capture.tag.step)}
