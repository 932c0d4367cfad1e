"""Sample with daam watching, and print what that took as JSON: run by the Python of daam's own environment.

Arguments: "plain" or "words", the number of steps, the width of the U-Net. Nothing of this project is imported, as
daam asks for older versions of the libraries.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import nullcontext
from typing import Any

import torch
from daam import trace
from diffusers import UNet2DConditionModel


class Pipeline:
    """As much of a pipeline as daam's trace touches."""

    image_processor = None
    vae_scale_factor = 8

    def __init__(self, unet: Any) -> None:
        self.unet = unet

    def check_inputs(self) -> None:
        """Stand for the pipeline's function, which trace replaces."""

    def run_safety_checker(self) -> None:
        """Stand for the pipeline's function, which trace replaces."""


def main(way: str, steps: int, width: int) -> None:
    """Sample one step for warming up, then measure."""
    widths = (width, 2 * width, 4 * width, 4 * width)
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=widths
        )
    unet = unet.to_empty(device="cpu").eval()
    torch.manual_seed(0)
    for weight in unet.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    inputs = torch.randn(2, 4, 64, 64), torch.full((2,), 500), torch.randn(2, 77, 768)
    with torch.inference_mode():
        unet(*inputs)
        start = time.process_time()
        with trace(Pipeline(unet)) if way == "words" else nullcontext():
            for _ in range(steps):
                unet(*inputs)
    seconds = time.process_time() - start
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(json.dumps({"seconds": seconds / steps, "peak": peak}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
