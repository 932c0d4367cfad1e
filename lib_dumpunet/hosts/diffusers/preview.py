"""Unfinished images during sampling, for live previews and for stopped runs.

They show the U-Net's prediction of the clean image, which is recognisable long before the noise is gone.
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
"""Fraction of the sampling time that previews may take; decoding may take longer than a step."""


def decode(pipe: Any, latents: Tensor) -> list[Image.Image]:
    """Decode latents "image c h w" into images, as the pipeline does with the final ones."""
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
    """Scale latents back to the autoencoder's range, per channel if the model has such statistics."""
    means, deviations = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
    scaled = latents / vae.config.scaling_factor
    if means is None or deviations is None:
        return scaled
    mean, deviation = (latents.new_tensor(values).view(1, -1, 1, 1) for values in (means, deviations))
    return scaled * deviation + mean


class Guess:
    """Follows the U-Net's calls, and computes its prediction of the clean latents.

    The U-Net's input is x = √ᾱ·clean + √(1−ᾱ)·noise, and it predicts the noise, v = √ᾱ·noise − √(1−ᾱ)·clean (Salimans
    and Ho 2022, appendix D), or the clean latents.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._input: Tensor | None = None
        self._timestep: Any = 0
        self._output: Tensor | None = None

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the U-Net's input."""
        self._input = args[0] if args else kwargs["sample"]
        self._timestep = args[1] if len(args) > 1 else kwargs["timestep"]

    def see_output(self, output: Tensor) -> None:
        """Note the U-Net's output."""
        self._output = output

    def clean(self) -> Tensor | None:
        """Return the last prediction of the clean latents "image c h w"; None before the first call."""
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
        """Return ᾱ of the last call, interpolated, because samplers may use fractional timesteps."""
        known = self._pipe.scheduler.alphas_cumprod.float().cpu()
        place = min(max(float(torch.as_tensor(self._timestep).flatten()[0]), 0.0), len(known) - 1.0)
        low = int(place)
        high = min(low + 1, len(known) - 1)
        return torch.lerp(known[low], known[high], place - low)


class Previews:
    """Decodes the first image of a batch from time to time, within ``SHARE`` of the sampling time.

    An error, such as running out of memory, ends only the previews.
    """

    def __init__(self, pipe: Any, show: Show) -> None:
        self._pipe = pipe
        self._show: Show | None = show
        self._begin = time.monotonic()
        self._spent = 0.0
        self._longest = 0.0

    def offer(self, guess: Guess) -> None:
        """Show a preview if it is due."""
        begin = time.monotonic()
        if self._show is None or self._spent + self._longest > SHARE * (begin - self._begin):
            return
        try:
            clean = guess.clean()
            if clean is not None:
                self._show(decode(self._pipe, clean[:1])[0])
        except Exception as error:  # an image without previews is better than none
            reason = f"{type(error).__name__}: {error}"
            log.warning(
                "live previews are not available (%s)", reason, exc_info=log.isEnabledFor(logging.DEBUG)
            )
            self._show = None
        took = time.monotonic() - begin
        self._spent, self._longest = self._spent + took, max(self._longest, took)
