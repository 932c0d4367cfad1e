"""Describe a live module with the adapter for its layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from lib_dumpunet.errors import UnsupportedModelError
from lib_dumpunet.models import unet_diffusers, unet_ldm
from lib_dumpunet.models.model import Model


class Adapter(NamedTuple):
    """How to recognise a layout of modules, and how to describe it."""

    matches: Callable[[nn.Module], bool]
    describe: Callable[[nn.Module], Model]


ADAPTERS = [
    Adapter(unet_ldm.matches, unet_ldm.describe),
    Adapter(unet_diffusers.matches, unet_diffusers.describe),
]
"""The known layouts; the first that matches a module is used."""


def describe(module: nn.Module) -> Model:
    """Find the blocks of a model by its structure.

    Raises:
        UnsupportedModelError: if the model is compiled, or no adapter knows it.
    """
    if hasattr(module, "_orig_mod"):
        raise UnsupportedModelError(
            "the U-Net is compiled with torch.compile, which skips hooks",
            remedy="Load the model without compiling it.",
        )
    for adapter in ADAPTERS:
        if adapter.matches(module):
            return adapter.describe(module)
    raise UnsupportedModelError(
        f"{type(module).__name__} is not a U-Net of Stable Diffusion 1.x, 2.x or XL",
        remedy="Models such as SD3, Flux or PixArt have no U-Net; choose an SD 1.x, 2.x or SDXL model.",
    )
