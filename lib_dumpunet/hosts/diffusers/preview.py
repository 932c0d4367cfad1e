"""Images of latents while sampling goes on: to see one grow, and to keep one that was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

Show = Callable[[Image.Image], None]

SHARE = 0.2
"""Part of the time of sampling that previews may take; a decoder may well take longer than a step."""


def decode(pipe: Any, latents: Tensor) -> list[Image.Image]:
    """Turn latents "image c h w" into images, as the pipeline does with the last ones."""
    vae = pipe.vae
    before = vae.dtype
    # SDXL's autoencoder overflows in fp16.
    if before == torch.float16 and getattr(vae.config, "force_upcast", False):
        vae.to(torch.float32)
    try:
        with torch.no_grad():
            pixels = vae.decode(_unscaled(vae, latents.to(vae.device, vae.dtype)), return_dict=False)[0]
    finally:
        if vae.dtype != before:
            vae.to(before)
    images: list[Image.Image] = pipe.image_processor.postprocess(pixels.float(), output_type="pil")
    return images


def _unscaled(vae: Any, latents: Tensor) -> Tensor:
    """Bring latents back to the scale of the autoencoder, each channel by its own where the model has that."""
    means, deviations = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
    scaled = latents / vae.config.scaling_factor
    if means is None or deviations is None:
        return scaled
    mean, deviation = (latents.new_tensor(values).view(1, -1, 1, 1) for values in (means, deviations))
    return scaled * deviation + mean


class Previews:
    """Decodes the first image of a batch now and then, seldom enough to take little of the time."""

    def __init__(self, pipe: Any, show: Show) -> None:
        self._pipe, self._show = pipe, show
        self._begin = time.monotonic()
        self._spent = 0.0
        self._longest = 0.0

    def offer(self, latents: Tensor) -> None:
        """Show latents "image c h w" as an image, if it is time for one."""
        begin = time.monotonic()
        if self._spent + self._longest > SHARE * (begin - self._begin):
            return
        image = decode(self._pipe, latents[:1])[0]
        took = time.monotonic() - begin
        self._spent, self._longest = self._spent + took, max(self._longest, took)
        self._show(image)
