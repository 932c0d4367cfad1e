"""Draw captures as pictures and hand them to the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.image.average import average
from lib_dumpunet.image.draw import draw_features
from lib_dumpunet.image.expression import compile_channels
from lib_dumpunet.image.numbers import numbers_of
from lib_dumpunet.ports import Picture
from lib_dumpunet.settings import DifferenceSettings, FeatureSettings

if TYPE_CHECKING:
    from lib_dumpunet.image.colorize import Numbers

Show = Callable[[Picture], None]
Drawn = Literal["feature", "difference"]

GRID: Mapping[Drawn, str] = {"feature": "unet", "difference": ""}
"""Title of the picture of all channels; the tag of a difference says already what it is."""
AVERAGE: Mapping[Drawn, str] = {"feature": "unet-average", "difference": "average"}
"""Title of the average map."""
CAPTION = {"Difference": "with - without Layer Prompt"}
"""What tells a difference's captions from those of features."""


class PictureSink:
    """Draw each block as a grid of its channels, and the average map ahead of it if one is asked for.

    ``ratio`` is width / height of the generated image, which the grid comes as near to as it can. ``kind`` tells what
    is drawn: "feature" or "difference". White/Black shows how large a value is, so of a difference it gets the
    absolute value, of its average map too.

    Raises:
        FormulaError: at once, for a colour formula that cannot be read.
    """

    def __init__(
        self,
        settings: FeatureSettings | DifferenceSettings,
        ratio: float,
        show: Show,
        kind: Drawn = "feature",
    ) -> None:
        compile_channels(settings.color)
        self._settings, self._ratio, self._show, self._kind = settings, ratio, show, kind

    def accept(self, capture: Capture) -> None:
        """Draw one capture; pictures are independent of each other, so no state is kept."""
        if capture.tag.kind != self._kind:
            return
        mean = average(capture.tensor, self._settings.average)
        for tensor in (mean, capture.tensor):
            if tensor is not None:
                title = (GRID if tensor is capture.tensor else AVERAGE)[self._kind]
                image = draw_block(tensor, self._settings, self._ratio, self._kind)
                info = self._info(capture.tag)
                self._show(Picture(image, capture.tag, title, info, numbers_of(tensor)))

    def close(self) -> None:
        """Do nothing: all pictures are out already."""

    def _info(self, tag: Tag) -> dict[str, str]:
        info = {"Layer Name": tag.block, "Feature Steps": tag.when}
        return {**info, **CAPTION} if self._kind == "difference" else info


def draw_block(
    tensor: Numbers, settings: FeatureSettings | DifferenceSettings, ratio: float, kind: Drawn
) -> Image.Image:
    """Draw a block's output "c h w" as a grid, as ``PictureSink`` does."""
    absolute = kind == "difference" and settings.color.method == "white-black"
    values: Any = abs(tensor) if absolute else tensor
    return draw_features(values, settings.color, ratio)
