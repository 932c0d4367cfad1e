"""Draw captures as pictures and pass them to the host."""

from __future__ import annotations

from collections.abc import Callable

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.image.expression import compile_channels
from lib_dumpunet.image.numbers import numbers_of
from lib_dumpunet.kinds import KINDS, Section, kinds_of_section
from lib_dumpunet.ports import Picture
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.drawing import DRAWINGS, Style

Show = Callable[[Picture], None]


class PictureSink(Sink):
    """Draw the captures of a section of the settings, each with the drawing of its kind.

    Raises:
        FormulaError: in the constructor, if a colour formula cannot be parsed.
    """

    def __init__(self, section: Section, style: Style, show: Show) -> None:
        compile_channels(style.settings.color)
        self._style, self._show = style, show
        self._kinds = {kind for kind in kinds_of_section(section) if KINDS[kind].drawing}

    def accept(self, capture: Capture) -> None:
        """Draw one capture."""
        tag, tensor = capture.tag, capture.tensor
        if tag.kind not in self._kinds:
            return
        for role, shown, image in DRAWINGS[KINDS[tag.kind].drawing](tag, tensor, self._style):
            self._show(Picture(image, tag, role, describe_tag(tag), numbers_of(shown)))


def describe_tag(tag: Tag) -> dict[str, str]:
    """Return the captions of a picture of a block or layer, by name."""
    info = {"Layer Name": tag.block, "Feature Steps": tag.when}
    row = KINDS[tag.kind]
    if row.section == "attention":
        info["Attention"] = tag.kind
    elif row.section == "difference":
        info["Difference"] = "with - without Layer Prompt"
    return {**info, "Attention Layer": str(tag.layer + 1)} if tag.layer else info
