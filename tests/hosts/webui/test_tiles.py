"""Images that another extension generates in tiles: rows are identified, and missing captures reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.hosts.webui import standin
from tests.hosts.webui.conftest import Lab, both_families
from tests.hosts.webui.test_jobs import captions, features, pixels

SIDE = 8  # cells of a tile
MIXED = "(~:IN01-IN08:a dog;_:a cat:~)"


@contextmanager
def tiles(at_once: int, monkeypatch: pytest.MonkeyPatch, *, region: bool = False) -> Iterator[None]:
    """Make the denoiser's model work on tiles, as MultiDiffusion does; all rows of one tile come before the next."""
    with monkeypatch.context() as patch:
        whole = standin.InnerModel.forward

        def forward(self: Any, x: Tensor, time: Tensor, cond: Tensor) -> Tensor:
            def call(tiles: Tensor, texts: Tensor) -> Tensor:
                return whole(self, tiles, time.repeat(len(tiles) // len(time)), texts)

            return in_tiles(x, cond, at_once, call, region=region)

        patch.setattr(standin.InnerModel, "forward", forward)
        patch.setattr(standin.KModel, "apply_model", on_forge(at_once, region=region))
        yield


def in_tiles(
    x: Tensor, cond: Tensor, at_once: int, call: Callable[[Tensor, Tensor], Tensor], *, region: bool
) -> Tensor:
    places = [
        (..., slice(y, y + SIDE), slice(x0, x0 + SIDE))
        for y in range(0, x.shape[2], SIDE)
        for x0 in range(0, x.shape[3], SIDE)
    ]
    out = torch.zeros_like(x)
    for first in range(0, len(places), at_once):
        chosen = places[first : first + at_once]
        n = len(chosen)
        texts = cond.repeat(n, 1, 1)
        if region and first:
            texts = texts + 1
        done = call(torch.cat([x[place] for place in chosen]), texts)
        for place, tile in zip(chosen, done.chunk(n), strict=True):
            out[place] = tile
    return out


def on_forge(at_once: int, *, region: bool) -> Any:
    whole = standin.KModel.apply_model

    def apply_model(self: Any, x: Tensor, context: Tensor, kinds: list[int]) -> Tensor:
        return in_tiles(x, context, at_once, lambda *given: whole(self, *given, kinds), region=region)

    return apply_model


@both_families
@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_tiles_are_seen_and_steered(lab: Lab, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    size = {"width": 128, "height": 128, "batch_size": 2, "prompt": "a cat", "negative_prompt": "bad"}
    with tiles(at_once, monkeypatch):
        plain = lab.run(**size)
        seen = lab.run(features("M00", "1"), **size)
        same = lab.run({"layer_prompt": {}}, **{**size, "prompt": "(~:_:a cat:~)"})
        dog = lab.run(**{**size, "prompt": "a dog"})
        mixed = lab.run({"layer_prompt": {}}, **{**size, "prompt": MIXED})
    with tiles(1, monkeypatch):
        one_by_one = lab.run({"layer_prompt": {}}, **{**size, "prompt": MIXED})
    assert pixels(seen) == pixels(plain) == pixels(same)
    assert pixels(mixed) not in (pixels(plain), pixels(dog))
    for image, other in zip(mixed.images, one_by_one.images, strict=True):
        difference = np.subtract(image, other, dtype=np.int16)
        assert abs(difference).max() <= 1  # of 255: another batch size rounds otherwise
    assert captions(seen) == ["M00, 1", "M00, 1"]
    assert "maps show only the first one (8 x 8 cells" in seen.comments
    assert "tiles" not in same.comments


@both_families
def test_regions_with_prompts_of_their_own_are_left_as_they_are(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"width": 128, "height": 64, "prompt": "a cat", "negative_prompt": "bad"}
    with tiles(1, monkeypatch, region=True):
        plain = lab.run(**size)
        same = lab.run({"layer_prompt": {}}, **{**size, "prompt": "(~:_:a cat:~)"})
    assert pixels(same) == pixels(plain)
    assert "regions of the image had prompts of their own" in same.comments
