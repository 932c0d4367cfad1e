"""Sample with daam watching, and print what that adds as JSON: run by the Python of daam's own environment.

Arguments: rounds to time, steps for the peak of memory, the width of the U-Net. Nothing of this project is imported, as
daam asks for older versions of the libraries.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
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


def main(rounds: int, steps: int, width: int) -> None:
    """Time plain and watched steps in turn, then let the watched ones add up to their peak of memory."""
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

    spent = Stopwatch([module for name, module in unet.named_modules() if name.endswith(".attn2")])
    with torch.inference_mode():
        for _ in range(2):  # warms up
            unet(*inputs)
        plain_peak = peak()
        times = [
            (*spent.on(unet, inputs, nullcontext()), *spent.on(unet, inputs, trace(Pipeline(unet))))
            for _ in range(rounds)
        ]
        with trace(Pipeline(unet)):
            for _ in range(steps):
                unet(*inputs)
    step, plain, _, words = (statistics.median(column) for column in zip(*times, strict=True))
    print(json.dumps({"percent": 100 * (words - plain) / step, "memory": peak() - plain_peak}))


class Stopwatch:
    """Measures CPU seconds of a step, and those of its cross-attention alone.

    All that daam does in a step is there, and a whole step differs by some percent from time to time, which is more
    than what is to be measured.
    """

    def __init__(self, modules: list[Any]) -> None:
        self._seconds = 0.0
        for module in modules:
            module.register_forward_pre_hook(self._start)
            module.register_forward_hook(self._stop)

    def on(self, unet: Any, inputs: tuple[Any, ...], watching: Any) -> tuple[float, float]:
        """Run a step: seconds of all, and of cross-attention."""
        self._seconds = 0.0
        with watching:
            start = time.process_time()
            unet(*inputs)
            return time.process_time() - start, self._seconds

    def _start(self, *_: Any) -> None:
        self._seconds -= time.process_time()

    def _stop(self, *_: Any) -> None:
        self._seconds += time.process_time()


def peak() -> float:
    """Return the most memory that this process has held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the process that started this one held, too
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
