"""Which pipelines can be followed, and what they tell of themselves."""

from __future__ import annotations

import re
from typing import Any

from lib_dumpunet.errors import HostError, UnsupportedModelError

REFUSED = {
    "PAG": "adds rows of its own to the U-Net's batch",
    "Panorama": "calls the U-Net for parts of an image, several times a step",
    "AnimateDiff": "makes several frames at once",
    "Video": "makes several frames at once",
    r"^IF[A-Z]": "works on pixels, with a U-Net of its own",
}
"""Kinds of pipelines that cannot be followed, by what stands in the name of their class or of one that it extends."""

FRAMES = ("Motion", "3D", "SpatioTemporal", "I2VGen")
"""What stands in the names of U-Nets that take several frames at once."""


def require_plain(pipe: Any) -> None:
    """Make sure that a pipeline has a U-Net, and calls it in a way that can be followed.

    Raises:
        HostError, UnsupportedModelError: if it is not so.
    """
    name = type(pipe).__name__
    for kind, reason in REFUSED.items():
        if is_a(pipe, kind):
            raise HostError(f"{name} {reason}", remedy="Use a plain pipeline of SD 1.x, 2.x or XL.")
    unet = getattr(pipe, "unet", None)
    if unet is None:
        raise UnsupportedModelError(f"{name} has no U-Net", remedy="Use a pipeline of SD 1.x, 2.x or XL.")
    if any(kind in type(unet).__name__ for kind in FRAMES):
        raise UnsupportedModelError(
            f"the {type(unet).__name__} of {name} takes several frames at once",
            remedy="Use a pipeline that makes single images, of SD 1.x, 2.x or XL.",
        )


def is_a(pipe: Any, kind: str) -> bool:
    """Return whether the name of a pipeline's class, or of one that it extends, has a kind in it."""
    return any(re.search(kind, cls.__name__) for cls in type(pipe).__mro__)


def hides_guidance(pipe: Any) -> bool:
    """Return whether a pipeline does not say whether it guides, so that only texts tell whose rows are whose."""
    return not hasattr(type(pipe), "do_classifier_free_guidance")
