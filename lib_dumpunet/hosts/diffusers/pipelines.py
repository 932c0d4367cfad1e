"""Check which pipelines are supported, and query their properties."""

from __future__ import annotations

import re
from typing import Any

from lib_dumpunet.errors import HostError, UnsupportedModelError

REFUSED = {
    "PAG": "adds its own rows to the U-Net's batch",
    "Panorama": "calls the U-Net for parts of an image, several times a step",
    "AnimateDiff": "generates several frames at once",
    "Video": "generates several frames at once",
    r"^IF[A-Z]": "works on pixels, with its own kind of U-Net",
}
"""Unsupported pipelines, by a pattern in the name of their class or of one of its bases, with the reason."""

FRAMES = ("Motion", "3D", "SpatioTemporal", "I2VGen")
"""Parts of class names of U-Nets that take several frames at once."""


def require_plain(pipe: Any) -> None:
    """Check that a pipeline is supported.

    Raises:
        HostError: if it calls its U-Net in an unsupported way.
        UnsupportedModelError: if it has no U-Net, or one for several frames.
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
            remedy="Use a pipeline of SD 1.x, 2.x or XL that generates single images.",
        )


def is_a(pipe: Any, kind: str) -> bool:
    """Return whether the pattern ``kind`` matches in the name of a pipeline's class or of one of its bases."""
    return any(re.search(kind, cls.__name__) for cls in type(pipe).__mro__)


def hides_guidance(pipe: Any) -> bool:
    """Return whether a pipeline does not say whether it uses guidance, so that only embeddings identify rows."""
    return not hasattr(type(pipe), "do_classifier_free_guidance")
