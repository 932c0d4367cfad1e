"""Drawing many scenes at once gives the same images as drawing them one by one."""

from __future__ import annotations

import random

import pytest
import torch

from lib_dumpunet.tiny.autoencoder import whole
from lib_dumpunet.tiny.draw import PALETTE, as_tensors, draw
from lib_dumpunet.tiny.scenes import COLORS, SHAPES, Figure, Scene, sample_scene
from tests.tiny.pictures import rendered

SCENES = [sample_scene(random.Random(seed)) for seed in range(24)]


def test_pictures_are_those_of_single_scenes() -> None:
    difference = (whole(as_tensors(SCENES)) - rendered(SCENES)).abs()
    assert difference.mean() < 0.003  # the soft pixels of edges alone
    assert (difference.amax(1) > 0.5).float().mean() < 0.002


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_drawn_where_it_is(shape: str) -> None:
    scene = Scene("white", (Figure(shape, "red", 0.4, 0.55, 0.3),), "")
    assert (whole(as_tensors([scene])) - rendered([scene])).abs().mean() < 0.003


def test_a_window_is_a_part_of_the_picture() -> None:
    figures = as_tensors(SCENES)
    corner = torch.tensor([0.25, 0.5, 0.25]).expand(len(figures), 3)
    part = whole(figures)[:, :, 128:192, 64:128]
    assert torch.allclose(draw(figures, corner, 64), part, atol=1e-3)


def test_palette_is_that_of_the_colors() -> None:
    assert ((PALETTE + 1) * 127.5).round().int().tolist() == [list(color) for color in COLORS.values()]
