"""A sampling step of a U-Net of SD 1.5's real width, to measure against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from diffusers import UNet2DConditionModel

from lib_dumpunet.ports import Moment, Row
from lib_dumpunet.session import Plan, record
from lib_dumpunet.unet.sites import Unet, describe

WIDTHS = (320, 640, 1280, 1280)
Run = Callable[[Plan | None], None]


class _Steps:
    """A clock for U-Net calls with a negative and a positive row, each call a step."""

    def __init__(self) -> None:
        self.step = 0

    def now(self) -> Moment:
        return Moment(self.step, (Row(0, "uncond"), Row(0, "cond")))


def sampling_step(widths: tuple[int, ...] = WIDTHS, *, size: int = 64) -> tuple[Unet, Callable[..., None]]:
    """Make a U-Net with random weights, and a function that runs it ``steps`` times on a latent of ``size``.

    The function takes a plan of what to watch, None for nothing.
    """
    with torch.device("meta"):
        module = UNet2DConditionModel(
            cross_attention_dim=768, attention_head_dim=8, block_out_channels=widths
        )
    module = module.to_empty(device="cpu").eval()
    torch.manual_seed(0)
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    inputs = torch.randn(2, 4, size, size), torch.full((2,), 500), torch.randn(2, 77, 768)
    unet = describe(module)

    def run(plan: Plan | None, steps: int = 1) -> None:
        clock = _Steps()
        watching = nullcontext() if plan is None else record(unet, plan, clock, [])
        with torch.inference_mode(), watching:
            for clock.step in range(1, steps + 1):
                module(*inputs)

    return unet, run


def cpu_seconds(run: Run, plans: Mapping[str, Callable[[], Plan | None]], rounds: int) -> dict[str, float]:
    """Run a step in each way in turn, after one for warming up, and give the median CPU seconds of each.

    CPU seconds count all threads, so that work in the background counts, and other programs do not.
    """
    run(None)
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(rounds):
        for name, plan in plans.items():
            start = time.process_time()
            run(plan())
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
