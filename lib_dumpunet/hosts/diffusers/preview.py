"""Images while sampling goes on: to see one grow, and to keep one that was stopped.

What is shown is the U-Net's own guess of the clean image, which tells something long before the noise is gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

log = logging.getLogger("dumpunet")

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


class Guess:
    """Follows the U-Net's calls, and tells what it takes the clean latents for.

    Its input is x = √ᾱ·clean + √(1−ᾱ)·noise at whatever step a sampler asks, and it predicts the noise, or
    v = √ᾱ·noise − √(1−ᾱ)·clean (Salimans and Ho 2022, appendix D), or the clean latents.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._input: Tensor | None = None
        self._timestep: Any = 0
        self._output: Tensor | None = None

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what the U-Net is given."""
        self._input = args[0] if args else kwargs["sample"]
        self._timestep = args[1] if len(args) > 1 else kwargs["timestep"]

    def see_output(self, output: Tensor) -> None:
        """Note what it has answered."""
        self._output = output

    def clean(self) -> Tensor | None:
        """Return its last guess of the clean latents "image c h w"; None before it was called."""
        if self._input is None or self._output is None or len(self._input) != len(self._output):
            return None
        given, predicted = self._input.float(), self._output.float()
        if self._pipe.do_classifier_free_guidance:
            without, prompted = predicted.chunk(2)
            predicted = without + self._pipe.guidance_scale * (prompted - without)
            given = given.chunk(2)[1]
        kept = self._kept()
        signal, noise = kept.sqrt(), (1 - kept).sqrt()
        kind = self._pipe.scheduler.config.prediction_type
        if kind == "v_prediction":
            return signal * given - noise * predicted
        return predicted if kind == "sample" else (given - noise * predicted) / signal

    def _kept(self) -> Tensor:
        """Return ᾱ of the last call: samplers may ask between the timesteps that the model was trained with."""
        known = self._pipe.scheduler.alphas_cumprod.float().cpu()
        place = min(max(float(torch.as_tensor(self._timestep).flatten()[0]), 0.0), len(known) - 1.0)
        low = int(place)
        high = min(low + 1, len(known) - 1)
        return torch.lerp(known[low], known[high], place - low)


class Previews:
    """Decodes the first image of a batch now and then, so seldom that it takes little of the time.

    What goes wrong with it, such as a device without the memory for it, ends the previews and nothing else.
    """

    def __init__(self, pipe: Any, show: Show) -> None:
        self._pipe = pipe
        self._show: Show | None = show
        self._begin = time.monotonic()
        self._spent = 0.0
        self._longest = 0.0

    def offer(self, guess: Guess) -> None:
        """Show what an image is going to be, if it is time for that."""
        begin = time.monotonic()
        if self._show is None or self._spent + self._longest > SHARE * (begin - self._begin):
            return
        try:
            clean = guess.clean()
            if clean is not None:
                self._show(decode(self._pipe, clean[:1])[0])
        except Exception:
            log.warning("the image cannot be shown as it grows", exc_info=log.isEnabledFor(logging.DEBUG))
            self._show = None
        took = time.monotonic() - begin
        self._spent, self._longest = self._spent + took, max(self._longest, took)
