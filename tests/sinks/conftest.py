"""Fixtures for tests of sinks: captures made by hand, and a matching request."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.sinks.request import DumpRequest

BLOCKS = ("IN00", "M00", "OUT11")


@pytest.fixture
def blocks() -> tuple[str, ...]:
    """Names of the blocks that ``captures`` makes."""
    return BLOCKS


@pytest.fixture
def request_() -> DumpRequest:
    """A request for two images and the three blocks."""
    return DumpRequest(
        prompts=["a cute girl, 猫", "a (~: M00: bad :~) girl"],
        negative_prompts=["blurry"],
        seeds=[11, 12],
        sampler="Euler a",
        steps=20,
        model="tiny",
        blocks={name: {"input": [4, 8, 6], "output": [5, 8, 6]} for name in BLOCKS},
        expected=dict.fromkeys(BLOCKS, range(1, 1000)),
    )


@pytest.fixture
def captures() -> Callable[..., list[Capture]]:
    """Make captures "c h w" of every image, step and block, each with values of its own; with ``hires``, of a hires
    pass of as many steps too, whose maps have twice the sides.
    """

    def make(
        images: int = 2,
        steps: int = 2,
        dtype: torch.dtype = torch.float32,
        shape: tuple[int, int, int] = (5, 8, 6),
        *,
        hires: bool = False,
    ) -> list[Capture]:
        noise = torch.Generator().manual_seed(0)
        channels, height, width = shape
        shapes = {False: shape, True: (channels, 2 * height, 2 * width)}
        return [
            Capture(
                Tag(image, step, block, hires=second),
                torch.randn(shapes[second], generator=noise).to(dtype),
            )
            for second in ((False, True) if hires else (False,))
            for step in range(1, steps + 1)
            for block in BLOCKS
            for image in range(images)
        ]

    return make
