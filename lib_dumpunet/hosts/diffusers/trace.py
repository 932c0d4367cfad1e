"""Look into a pipeline that the user already has: three lines in a notebook."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import DumpUNetError, HostError, UnsupportedModelError
from lib_dumpunet.hooks.capture import Want
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock
from lib_dumpunet.image.average import average
from lib_dumpunet.image.draw import draw_features
from lib_dumpunet.prompt.selection import parse_steps, select_blocks
from lib_dumpunet.session import record
from lib_dumpunet.settings import ColorSettings
from lib_dumpunet.unet.sites import describe

log = logging.getLogger("dumpunet")


@dataclass
class Trace:
    """What was seen: tensors "c h w" on the CPU, in the model's dtype; images count over all calls in the ``with``."""

    tensors: dict[Tag, Tensor] = field(default_factory=dict)
    problems: list[DumpUNetError] = field(default_factory=list)

    def __getitem__(self, key: tuple[str, int] | tuple[str, int, int]) -> Tensor:
        """Get a tensor by ``seen["OUT11", 20]``, or ``seen["OUT11", 20, image]`` for another than the first image."""
        block, step, image = (*key, 0)[:3]
        tag = Tag(image, step, block)
        if tag not in self.tensors:
            raise KeyError(f"nothing was captured for block {block}, step {step}, image {image}; {self}")
        return self.tensors[tag]

    def picture(
        self, block: str, step: int, image: int = 0, color: ColorSettings | None = None
    ) -> Image.Image:
        """Draw all channels of a block in one picture."""
        tensor = self[block, step, image]
        return draw_features(tensor, color or ColorSettings(), tensor.shape[2] / tensor.shape[1])

    def average(self, block: str, step: int, image: int = 0, kind: str = "2-norm") -> Image.Image:
        """Draw the average map over the channels: ``kind`` is "sum", "1-norm" or "2-norm"."""
        mean = average(self[block, step, image], kind)
        if mean is None:
            raise HostError(
                f"{kind!r} makes no average map", remedy="Use sum, 1-norm or 2-norm.", field="kind"
            )
        return draw_features(mean, ColorSettings(method="white-black"), 1.0)

    def __str__(self) -> str:
        blocks = dict.fromkeys(tag.block for tag in self.tensors)
        steps = sorted({tag.step for tag in self.tensors})
        images = len({tag.image for tag in self.tensors})
        return f"{len(self.tensors)} tensors: blocks {', '.join(blocks)}, steps {steps}, {images} image(s)"

    def accept(self, capture: Capture) -> None:
        """Keep one capture; a dictionary's own lock is enough for that."""
        self.tensors[capture.tag] = capture.tensor

    def close(self) -> None:
        """Put the tensors in order of image, step and block."""
        self.tensors = dict(sorted(self.tensors.items()))


@contextmanager
def trace(pipe: Any, layers: str = "", steps: str = "") -> Iterator[Trace]:
    """Keep the outputs of blocks while a pipeline runs, any number of times.

    All tensors stay in memory: choose few blocks and steps, as in
    ``with trace(pipe, layers="OUT11", steps="1,20") as seen: pipe("a red circle")``.

    Args:
        pipe: a text-to-image, img2img or inpainting pipeline of Stable Diffusion 1.x, 2.x or XL.
        layers: blocks, such as ``"IN00-OUT11(+2)"``; empty means all.
        steps: sampling steps, such as ``"1,5-20(+5)"``; empty means all.
    Raises:
        SettingsError: for a mistake in ``layers`` or ``steps``.
        UnsupportedModelError: if the pipeline's U-Net has an unknown layout.
    """
    name = type(pipe).__name__
    if any(kind in name for kind in ("PAG", "InstructPix2Pix")):
        raise HostError(f"{name} adds rows of its own to the U-Net's batch", remedy="Use a plain pipeline.")
    if getattr(pipe, "unet", None) is None:
        raise UnsupportedModelError(f"{name} has no U-Net", remedy="Use a pipeline of SD 1.x, 2.x or XL.")
    unet = describe(pipe.unet)
    clock = SchedulerClock(pipe)
    want = Want(select_blocks(layers, unet.order, field="layers"), parse_steps(steps, field="steps"))
    seen = Trace()
    with HookSet() as hooks:
        hooks.before(unet.module, clock.see_call)
        with record(unet, want, clock, [seen], seen.problems):
            yield seen
    if clock.trouble is not None:
        seen.problems.append(clock.trouble)
    if not seen.tensors and not seen.problems:
        seen.problems.append(_nothing_seen(steps, clock.now().step))
    for problem in seen.problems:
        log.warning("%s", problem)


def _nothing_seen(steps: str, last: int) -> HostError:
    if last:
        return HostError(
            f"none of the steps {steps} was sampled", remedy=f"The last step was {last}.", field="steps"
        )
    return HostError("the pipeline did not run", remedy="Call it inside the with statement.")
