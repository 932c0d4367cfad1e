"""What capturing and drawing cost a U-Net of SD 1.5's real width."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from diffusers import UNet2DConditionModel

from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.hooks.capture import Want
from lib_dumpunet.image.draw import png_bytes
from lib_dumpunet.ports import Moment, Picture
from lib_dumpunet.ports import Row as BatchRow
from lib_dumpunet.session import record
from lib_dumpunet.settings import FeatureSettings
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.picture import PictureSink
from lib_dumpunet.unet.sites import describe

ROUNDS = 3


class _OneStep:
    """A clock for single U-Net calls with a negative and a positive row."""

    def now(self) -> Moment:
        return Moment(1, (BatchRow(0, "uncond"), BatchRow(0, "cond")))


def measure_capture(rounds: int = ROUNDS, widths: tuple[int, ...] = (320, 640, 1280, 1280)) -> list[Row]:
    """Compare CPU seconds of a sampling step: plain, with all blocks captured, with pictures of all blocks.

    Steps are run in turn and medians compared; CPU seconds count all threads, so that work in the background counts.
    """
    step = _sampling_step(widths)
    step(None)
    ways: dict[str, Sink | None] = {
        "plain": None,
        "capture": _Forget(),
        "pictures": PictureSink(FeatureSettings(), 1.0, _encode),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, sink in ways.items():
            start = time.process_time()
            step(sink)
            seconds[name].append(time.process_time() - start)
    plain, capture, pictures = (statistics.median(values) for values in seconds.values())
    return [
        Row("capture of all blocks, added to a step", 100 * (capture / plain - 1), "%", 2, at_least=False),
        Row("pictures of all blocks, added to a step", 100 * (pictures / plain - 1), "%", 10, at_least=False),
    ]


class _Forget:
    """A sink that does nothing, to see what capturing alone costs."""

    def accept(self, capture: object) -> None:
        pass

    def close(self) -> None:
        pass


def _encode(picture: Picture) -> None:
    png_bytes(picture.image, picture.info)


def _sampling_step(widths: tuple[int, ...]) -> Callable[[Sink | None], None]:
    """Make a U-Net with random weights, and a function that runs it on a 64x64 latent with guidance."""
    with torch.device("meta"):
        module = UNet2DConditionModel(
            cross_attention_dim=768, attention_head_dim=8, block_out_channels=widths
        )
    module = module.to_empty(device="cpu").eval()
    torch.manual_seed(0)
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    unet = describe(module)
    inputs = torch.randn(2, 4, 64, 64), torch.full((2,), 500), torch.randn(2, 77, 768)

    def run(sink: Sink | None) -> None:
        want = Want(unet.order.names, {1})
        watching = nullcontext() if sink is None else record(unet, want, _OneStep(), [sink], [])
        with torch.inference_mode(), watching:
            module(*inputs)

    return run
