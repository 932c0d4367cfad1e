"""Sample with daam and print what it adds as JSON; the Python of daam's own environment runs this.

Arguments: number of timed rounds, number of steps for peak memory, width of the U-Net. This imports nothing of the
project, because daam needs older versions of the libraries.
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
    """The parts of a pipeline that daam's trace uses."""

    image_processor = None
    vae_scale_factor = 8

    def __init__(self, unet: Any) -> None:
        self.unet = unet

    def check_inputs(self) -> None:
        """Do nothing; trace replaces this method."""

    def run_safety_checker(self) -> None:
        """Do nothing; trace replaces this method."""


def main(rounds: int, steps: int, width: int) -> None:
    """Time plain and traced steps by turns, then measure the peak memory of several traced steps."""
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
        for _ in range(2):  # warm-up
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
    """Measures CPU seconds of a step, and of its cross-attention alone.

    daam works only in cross-attention, and whole steps vary by more than what daam adds.
    """

    def __init__(self, modules: list[Any]) -> None:
        self._seconds = 0.0
        for module in modules:
            module.register_forward_pre_hook(self._start)
            module.register_forward_hook(self._stop)

    def on(self, unet: Any, inputs: tuple[Any, ...], watching: Any) -> tuple[float, float]:
        """Run a step; return seconds of the whole step and of cross-attention."""
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
    """Return this process's peak memory, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the memory of the parent process
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
