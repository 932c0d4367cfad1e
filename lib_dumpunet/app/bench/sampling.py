"""A sampling step with a U-Net of SD 1.5's real width, as a baseline."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from diffusers import UNet2DConditionModel

from lib_dumpunet.hooks.interventions import Intervention
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.plan import Plan
from lib_dumpunet.ports import BatchRow, ModelCall
from lib_dumpunet.session import record
from lib_dumpunet.sinks.base import Sink

WIDTHS = (320, 640, 1280, 1280)
COPIES = 8
PLAIN = "plain"


class _Steps:
    """A clock for U-Net calls with a row for the negative prompt and one for the prompt; each call is a step."""

    def __init__(self) -> None:
        self.step = 0

    def now(self) -> ModelCall:
        return ModelCall(self.step, (BatchRow(0, "uncond"), BatchRow(0, "cond")))


@dataclass(frozen=True)
class Watch:
    """What to do in addition to sampling."""

    plan: Plan = field(default_factory=Plan)
    sinks: tuple[Sink, ...] = ()
    interventions: tuple[Intervention, ...] = ()


def sampling_step(widths: tuple[int, ...] = WIDTHS, *, size: int = 64) -> tuple[Model, Callable[..., None]]:
    """Make a U-Net with random weights, and a function that runs it ``steps`` times on a latent of ``size``.

    The function takes a ``Watch``, or None for plain sampling. It installs ``copies`` of it at once, so that the cost
    of one stands out from noise.
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

    def run(watch: Watch | None, *, steps: int = 1, copies: int = 1) -> None:
        clock = _Steps()
        with torch.inference_mode(), ExitStack() as watching:
            for one in [] if watch is None else [watch] * copies:
                watching.enter_context(record(unet, one.plan, clock, one.sinks, [], one.interventions))
            for clock.step in range(1, steps + 1):
                module(*inputs)

    return unet, run


def added_seconds(
    run: Callable[..., None], plans: Mapping[str, Callable[[], Watch]], rounds: int, copies: int = COPIES
) -> dict[str, float]:
    """Return what each plan adds to the CPU seconds of a plain step, in percent.

    The plans take turns after a warm-up step, and medians are compared. CPU seconds count all threads of this process,
    so background work counts and other programs do not. They still vary by some percent from step to step.
    """
    run(None)
    seconds: dict[str, list[float]] = {name: [] for name in (PLAIN, *plans)}
    for _ in range(rounds):
        for name, values in seconds.items():
            plan = None if name == PLAIN else plans[name]()
            start = time.process_time()
            run(plan, copies=copies)
            values.append(time.process_time() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {name: 100 * (median[name] / median[PLAIN] - 1) / copies for name in plans}
