"""The evaluation, tested with drawn images: it must tell right from wrong before it judges a model."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lib_dumpunet.tiny.attention import CELLS, attention_ratios
from lib_dumpunet.tiny.evaluate import edges, judge_alone, judge_paired, missed, percentages, table
from lib_dumpunet.tiny.judge import Reading, read_picture
from lib_dumpunet.tiny.prompts import Prompt, draw_prompts
from lib_dumpunet.tiny.scenes import FIGURE_COLORS, SHAPES, Figure, Scene, held_out, render

PLACES = {
    "": ((0.5, 0.5),),
    "and": ((0.26, 0.5), (0.74, 0.5)),
    "left of": ((0.26, 0.5), (0.74, 0.5)),
    "right of": ((0.74, 0.5), (0.26, 0.5)),
    "above": ((0.5, 0.26), (0.5, 0.74)),
    "below": ((0.5, 0.74), (0.5, 0.26)),
}


def drawn(prompt: Prompt, seed: int = 0) -> Image.Image:
    """Draw a prompt as a decoder might: slightly blurred, in varying sizes."""
    rng = random.Random(seed)
    low, high = (0.16, 0.2) if prompt.relation else (0.2, 0.3)
    figures = tuple(
        Figure(
            shape, color, x + rng.uniform(-0.02, 0.02), y + rng.uniform(-0.02, 0.02), rng.uniform(low, high)
        )
        for shape, color, (x, y) in zip(prompt.shapes, prompt.colors, PLACES[prompt.relation], strict=True)
    )
    return render(Scene(prompt.background, figures, "")).filter(ImageFilter.GaussianBlur(1.5))


def judged(prompts: list[Prompt], shown: list[Prompt]) -> dict[str, float]:
    judge = judge_paired if prompts[0].relation else judge_alone
    readings = [read_picture(drawn(other, seed)) for seed, other in enumerate(shown)]
    return percentages([judge(prompt, reading) for prompt, reading in zip(prompts, readings, strict=True)])


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize(("objects", "count"), [(1, 50), (2, 50)])
def test_ideal_pictures_are_right(objects: int, count: int, new: bool) -> None:
    prompts = draw_prompts(count, objects, seed=objects, new=new)
    result = judged(prompts, prompts)
    assert objects == 1 or "two objects: relation right" in result
    assert all(share >= 98 for share in result.values())


@pytest.mark.parametrize("new", [False, True])
def test_prompts_ask_for_pairs_that_were_trained_or_were_not(new: bool) -> None:
    prompts = draw_prompts(20, 2, seed=1, new=new)
    pairs = [pair for p in prompts for pair in zip(p.colors, p.shapes, strict=True)]
    assert all(held_out(*pair) == new for pair in pairs)


def test_another_color_is_wrong() -> None:
    prompts = draw_prompts(20, 1, seed=3)
    shown = [replace(p, colors=(_other(FIGURE_COLORS, p.colors[0], i),)) for i, p in enumerate(prompts)]
    result = judged(prompts, shown)
    assert result["one object: colour right"] == 0
    assert result["one object: shape right"] >= 95


def test_another_shape_is_wrong() -> None:
    prompts = draw_prompts(20, 1, seed=4)
    shown = [replace(p, shapes=(_other(SHAPES, p.shapes[0], i),)) for i, p in enumerate(prompts)]
    result = judged(prompts, shown)
    assert result["one object: shape right"] <= 2
    assert result["one object: colour right"] == 100


def _other(choices: tuple[str, ...], given: str, step: int) -> str:
    return choices[(choices.index(given) + 1 + step % (len(choices) - 1)) % len(choices)]


def test_one_object_in_place_of_two_is_wrong() -> None:
    prompts = draw_prompts(8, 2, seed=5)
    shown = [Prompt(p.colors[:1], p.shapes[:1], p.background) for p in prompts]
    assert judged(prompts, shown)["two objects: both colours present"] == 0


def test_swapped_objects_break_the_relation_alone() -> None:
    prompts = [p for p in draw_prompts(20, 2, seed=6) if p.relation != "and"]
    shown = [replace(p, colors=p.colors[::-1], shapes=p.shapes[::-1]) for p in prompts]
    result = judged(prompts, shown)
    assert result["two objects: relation right"] == 0
    assert result["two objects: both colours present"] == 100


def test_exchanged_colors_are_on_the_wrong_shapes() -> None:
    prompts = [p for p in draw_prompts(50, 2, seed=8) if p.shapes[0] != p.shapes[1]]
    result = judged(prompts, [replace(p, colors=p.colors[::-1]) for p in prompts])
    assert result["two objects: both shapes right"] >= 98
    assert result["two objects: both colours on the right shapes"] <= 2


def test_one_wrong_shape_of_two_is_wrong() -> None:
    prompts = draw_prompts(50, 2, seed=9)
    shown = [replace(p, shapes=(_other(SHAPES, p.shapes[0], i), p.shapes[1])) for i, p in enumerate(prompts)]
    different = [(p, s) for p, s in zip(prompts, shown, strict=True) if sorted(p.shapes) != sorted(s.shapes)]
    result = judged([p for p, _ in different], [s for _, s in different])
    assert result["two objects: both shapes right"] <= 2


def test_edges_tell_an_ideal_shape_from_a_dented_one() -> None:
    prompt = Prompt(("red",), ("circle",), "white")
    ideal = drawn(prompt)
    assert edges(prompt, ideal) > 0.97
    dented = ideal.copy()
    dented.paste((250, 250, 250), (128, 0, 256, 128))
    assert edges(prompt, dented) < 0.85
    assert edges(replace(prompt, shapes=("star",)), ideal) < 0.8


def test_edges_are_compared_at_the_best_place_and_size() -> None:
    figure = Figure("triangle", "blue", 0.37, 0.61, 0.23)
    assert edges(Prompt(("blue",), ("triangle",), "white"), render(Scene("white", (figure,), ""))) > 0.98


def test_an_empty_picture_is_wrong() -> None:
    prompt = draw_prompts(1, 1, seed=7)[0]
    empty = read_picture(Image.new("RGB", (256, 256), (250, 250, 250)))
    judgement = judge_alone(prompt, empty)
    assert not judgement["one object: shape right"]
    assert edges(prompt, Image.new("RGB", (256, 256), (250, 250, 250))) == 0


@pytest.fixture
def reading() -> Reading:
    """Return a white image with a red square on the left and a blue one on the right."""
    return read_picture(drawn(Prompt(("red", "blue"), ("square", "square"), "white", "left of")))


def test_attention_is_compared_inside_and_outside_each_words_object(reading: Reading) -> None:
    prompt = Prompt(("red", "blue"), ("square", "square"), "white", "and")
    # Tokens: begin, a, red, square, and, a, blue, square, on, ...
    maps = np.ones((77, CELLS, CELLS), np.float32)
    red = reading.where("red").reshape(CELLS, 4, CELLS, 4).mean((1, 3)) > 0.5
    maps[2][red] = 5
    maps[7] = 0.5
    ratios = attention_ratios(prompt, reading, maps)
    assert ratios["colour"] == pytest.approx([5, 1])
    assert ratios["shape"] == pytest.approx([1, 1])


def test_attention_is_not_compared_where_an_object_is_missing(reading: Reading) -> None:
    prompt = Prompt(("red", "green"), ("square", "square"), "white", "and")
    assert attention_ratios(prompt, reading, np.ones((77, CELLS, CELLS), np.float32)) == {}


def test_missed_points_are_named() -> None:
    results = {"one object: colour right": 98.0, "one object: shape right": 97.0, "other": 0.0}
    assert missed(results) == ["one object: shape right"]
    assert "missed" in table(results).splitlines()[2]
    assert "reached" in table(results).splitlines()[1]


def test_prompts_are_in_the_captions_words() -> None:
    prompt = Prompt(("orange", "red"), ("star", "ring"), "gray", "left of")
    assert prompt.text == "an orange star left of a red ring on a gray background"
