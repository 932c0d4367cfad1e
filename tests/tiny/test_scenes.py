"""Scenes and their captions: captions describe what is drawn."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lib_dumpunet.tiny.scenes import (
    COLORS,
    FIGURE_COLORS,
    REACH,
    SHAPES,
    WORDS,
    Figure,
    Scene,
    held_out,
    render,
    sample_scene,
    silhouette,
)

SCENES = [sample_scene(random.Random(seed)) for seed in range(400)]
PAIRS = [scene for scene in SCENES if len(scene.figures) == 2]
ORDER = {
    "left of": lambda a, b: a.x < b.x,
    "right of": lambda a, b: a.x > b.x,
    "above": lambda a, b: a.y < b.y,
    "below": lambda a, b: a.y > b.y,
}


def test_a_seed_draws_the_same_scene_again() -> None:
    assert SCENES[3] == sample_scene(random.Random(3))
    assert SCENES[3] != SCENES[4]


def test_captions_use_known_words_only() -> None:
    assert {word for scene in SCENES for word in scene.caption.split()} <= set(WORDS)


@pytest.mark.parametrize("relation", ORDER)
def test_relation_in_the_caption_holds_in_the_picture(relation: str) -> None:
    told = [scene for scene in PAIRS if f" {relation} " in scene.caption]
    assert len(told) > 10
    # The caption names the figures in their order.
    assert all(ORDER[relation](*scene.figures) for scene in told)


def test_caption_names_colors_and_shapes_in_order() -> None:
    for scene in SCENES:
        words = scene.caption.partition(" background")[0].split()
        figure_words = words[: -3 + 1] if " background" in scene.caption else words
        colors = [word for word in figure_words if word in COLORS]
        shapes = [word for word in figure_words if word in SHAPES]
        assert _in_order(colors, [figure.color for figure in scene.figures])
        assert _in_order(shapes, [figure.shape for figure in scene.figures])


def _in_order(said: list[str], drawn: list[str]) -> bool:
    rest = iter(drawn)  # a caption may leave a word out, but not change the order
    return all(word in rest for word in said)


def test_large_figures_are_larger_than_small_ones() -> None:
    alone = [scene for scene in SCENES if len(scene.figures) == 1]
    small = [s.figures[0].radius for s in alone if "small" in s.caption]
    large = [s.figures[0].radius for s in alone if "large" in s.caption or "big" in s.caption]
    assert max(small) < min(large)


def test_figures_lie_inside_the_picture() -> None:
    for figure in (figure for scene in SCENES for figure in scene.figures):
        for centre in (figure.x, figure.y):
            assert REACH * figure.radius <= min(centre, 1 - centre) + 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_picture_has_the_figures_color_inside_its_silhouette(shape: str) -> None:
    figure = Figure(shape, "red", 0.4, 0.55, 0.25)
    pixels = np.asarray(render(Scene("cyan", (figure,), ""), 128, oversampling=1))
    inside = np.asarray(silhouette(figure, 128)) > 0
    assert 0.05 < inside.mean() < 0.25
    assert (pixels[inside] == COLORS["red"]).all()
    assert (pixels[~inside] == COLORS["cyan"]).all()


def test_a_ring_has_a_hole_and_a_circle_none() -> None:
    def centre(shape: str) -> int:
        return int(np.asarray(silhouette(Figure(shape, "red", 0.5, 0.5, 0.3), 64))[32, 32])

    assert (centre("ring"), centre("circle")) == (0, 255)


def test_a_fifth_of_all_pairs_is_never_drawn() -> None:
    pairs = {(color, shape) for color in FIGURE_COLORS for shape in SHAPES}
    kept = {pair for pair in pairs if held_out(*pair)}
    assert len(kept) == len(pairs) / 5
    assert {shape for _, shape in kept} == set(SHAPES)
    assert {color for color, _ in kept} == set(FIGURE_COLORS)
    drawn = {(figure.color, figure.shape) for scene in SCENES for figure in scene.figures}
    assert drawn == pairs - kept


def test_relations_come_equally_often() -> None:
    many = [sample_scene(random.Random(seed), alone=0.0).caption for seed in range(1200)]
    counts = {relation: sum(f" {relation} " in caption for caption in many) for relation in ORDER}
    assert all(150 < count < 250 for count in counts.values())
