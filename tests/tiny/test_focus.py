"""The loss on attention: it knows which words name which object, and rewards attention there."""

from __future__ import annotations

import random

import pytest
import torch

from lib_dumpunet.tiny.focus import cells_of, focus_loss, places_of, watch
from lib_dumpunet.tiny.networks import TEXT_WIDTH, new_unet
from lib_dumpunet.tiny.scenes import Figure, Scene, sample_scene

SCENE = Scene(
    "white",
    (Figure("square", "red", 0.25, 0.5, 0.2), Figure("ring", "blue", 0.75, 0.5, 0.2)),
    "a red square left of a blue ring on a white background",
)


def test_places_are_the_tokens_of_color_and_shape() -> None:
    # Token 0 begins the text, so the first word is token 1.
    assert places_of(SCENE) == [2, 3, 7, 8]


def test_what_a_caption_leaves_unsaid_has_no_place() -> None:
    figure = SCENE.figures[0]
    assert places_of(Scene("white", (figure,), "a red shape")) == [2, 0, 0, 0]
    assert places_of(Scene("white", (figure,), "a square")) == [0, 0, 0, 0]


def test_places_hold_for_every_caption() -> None:
    for seed in range(200):
        scene = sample_scene(random.Random(seed))
        words = ["", *scene.caption.split()]
        names = [name for figure in scene.figures for name in (figure.color, figure.shape)]
        pairs = zip(places_of(scene), names, strict=False)
        assert all(words[place] == name for place, name in pairs if place)


def test_cells_are_those_inside_the_figures() -> None:
    square, ring = cells_of(SCENE, 32)
    assert square[16, 8]
    assert not square[16, 24]
    assert ring[16, 24 - 5]
    assert not ring[16, 24]  # its hole
    assert not cells_of(Scene("white", SCENE.figures[:1], ""), 16)[1].any()


@pytest.mark.parametrize(("inside", "expected"), [(1.0, 0.0), (0.5, 0.25), (0.0, 1.0)])
def test_loss_is_the_squared_part_that_misses(inside: float, expected: float) -> None:
    cells = cells_of(SCENE, 16)[None]
    weights = torch.zeros(1, 256, 77)
    for word, figure in ((2, 0), (3, 0), (7, 1), (8, 1)):
        mask = cells[0, figure].flatten()
        weights[0, :, word] = torch.where(mask, inside / mask.sum(), (1 - inside) / (~mask).sum())
    loss = focus_loss([weights], cells, torch.tensor([places_of(SCENE)]))
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_pictures_without_a_caption_cost_nothing() -> None:
    weights = torch.full((1, 256, 77), 1 / 77)
    assert focus_loss([weights], cells_of(SCENE, 16)[None], torch.zeros(1, 4, dtype=torch.long)) == 0


def test_watching_changes_no_output() -> None:
    torch.manual_seed(0)
    unet = new_unet((16, 16, 16, 16)).eval()
    for weights in unet.parameters():  # it starts with zeros, which would hide a difference
        torch.nn.init.normal_(weights, std=0.05)
    inputs = (torch.randn(1, 4, 32, 32), torch.tensor([500]), torch.randn(1, 77, TEXT_WIDTH))
    with torch.no_grad():
        plain = unet(*inputs).sample
        processor = watch(unet)
        watched = unet(*inputs).sample
    assert torch.allclose(plain, watched, atol=1e-5)
    assert [weights.shape[1] for weights in processor.seen] == [1024] * 2 + [256] * 2 + [256] * 3 + [1024] * 3
