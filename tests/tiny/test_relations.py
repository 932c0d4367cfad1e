"""The training of relations: what its captions say, what is taught first, and that a run can be resumed."""

from __future__ import annotations

import logging
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_dumpunet.tiny import diffusion, relations
from lib_dumpunet.tiny.diffusion import Batch, Run, new_model
from lib_dumpunet.tiny.options import Options
from lib_dumpunet.tiny.placed import (
    FREE,
    LISTED,
    NOT_SAID,
    OPPOSITE,
    RELATED,
    SAMPLERS,
    SIDES,
    SINGLE,
    facts_of,
    load_placed,
    opposite_captions,
    sample_placed,
)
from lib_dumpunet.tiny.relations import (
    PLACES,
    DetailsRun,
    PlacedPictures,
    RelationsRun,
    train_details,
    train_relations,
)
from lib_dumpunet.tiny.scenes import FIGURE_COLORS, SHAPES, Figure, Scene
from lib_dumpunet.tiny.text import train_text
from lib_dumpunet.tiny.tokenizer import build_tokenizer, encode_caption, read_vocabulary

COUNT = 420


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Return options for a tiny training that goes on from networks with random weights."""
    build_tokenizer(tmp_path / "tokenizer")
    options = Options(tmp_path, steps=4, batch=2, scenes=COUNT, widths=(16, 16, 16, 16))
    sample_placed(options)
    torch.save(
        torch.arange(COUNT).view(-1, 1, 1, 1).expand(-1, 4, 8, 8).half(), tmp_path / "placed-latents.pt"
    )
    torch.manual_seed(0)
    model = new_model(options.widths, tmp_path)
    torch.save({"average": model.state_dict(), "widths": options.widths}, tmp_path / Run.file)
    torch.save(model["text_encoder"].state_dict(), tmp_path / "text.pt")
    return options


@pytest.mark.parametrize("kind", [SINGLE, LISTED, RELATED])
def test_figures_stand_where_the_caption_says(kind: int) -> None:
    for seed in range(100):
        scene = SAMPLERS[kind](random.Random(seed))
        side = re.search(r"\b(left|right|above|below)\b", scene.caption)
        assert side is not None
        first = scene.figures[0]
        offset = {
            "left": 0.5 - first.x,
            "right": first.x - 0.5,
            "above": 0.5 - first.y,
            "below": first.y - 0.5,
        }
        assert offset[side[0]] > 0.2
        facts = facts_of(scene)
        assert facts[0][0] == SIDES.index(side[0])
        assert len(scene.figures) == 1 or facts[1][0] == SIDES.index(OPPOSITE[side[0]])


def test_facts_are_what_the_caption_says() -> None:
    red = Figure("circle", "red", 0.3, 0.5, 0.1)
    blue = Figure("star", "blue", 0.7, 0.5, 0.1)
    named = [
        [SIDES.index(side), FIGURE_COLORS.index(figure.color), SHAPES.index(figure.shape)]
        for side, figure in (("left", red), ("right", blue))
    ]
    assert facts_of(Scene("white", (red, blue), "a red circle left of a blue star")) == named
    unplaced = [[len(SIDES), *facts[1:]] for facts in named]
    assert facts_of(Scene("white", (red, blue), "a red circle and a blue star")) == unplaced
    assert facts_of(Scene("white", (red,), "a red circle")) == [unplaced[0]] * 2
    for caption in ("a red shape left of a blue star", "a circle left of a blue star on a black background"):
        sides = [[side, NOT_SAID, NOT_SAID] for side, *_ in named]
        assert facts_of(Scene("black", (red, blue), caption)) == sides


def test_opposite_captions_exchange_the_sides_alone(tmp_path: Path) -> None:
    build_tokenizer(tmp_path)
    vocabulary = read_vocabulary(tmp_path)
    captions = (
        "a red star to the left of a pink ring",
        "a big cross above a ring",
        "a ring on a gray background",
    )
    expected = ("a red star to the right of a pink ring", "a big cross below a ring", captions[2])
    ids, opposite = (
        torch.tensor([encode_caption(text, vocabulary) for text in texts]) for texts in (captions, expected)
    )
    assert torch.equal(opposite_captions(ids, vocabulary), opposite)
    assert torch.equal(opposite_captions(opposite, vocabulary), ids)


def test_the_text_encoder_learns_facts_and_keeps_the_words(
    options: Options, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dumpunet")
    before = new_model(options.widths, options.work)["text_encoder"]
    before.load_state_dict(torch.load(options.work / "text.pt"))
    train_text(replace(options, steps=40, batch=16, rate=4e-3, every=20))
    first, last = (float(re.search(r"([\d.]+) of 100", line)[1]) for line in caplog.messages)  # type: ignore[index]
    assert first < last - 5
    after = new_model(options.widths, options.work)["text_encoder"]
    after.load_state_dict(torch.load(options.work / "text.pt"))
    ids = load_placed(options).ids[:8]
    words = ids != ids[0, -1]
    with torch.no_grad():
        old, new = (encoder(ids).last_hidden_state[words] for encoder in (before, after))
    assert (new - old).square().mean() < 0.3 * old.square().mean()


def chosen(pictures: PlacedPictures, batch: Batch) -> torch.Tensor:
    """Find which scenes a batch shows; the latents of scene n are all n."""
    alpha = pictures.noise.alphas_bar[batch.times].view(-1, 1, 1, 1)
    clean = alpha.sqrt() * batch.noisy - (1 - alpha).sqrt() * batch.velocity
    return clean.mean((1, 2, 3)).round().long()


def trained(options: Options, *, details: bool = False) -> dict[str, Any]:
    (train_details if details else train_relations)(options)
    return torch.load(options.work / (DetailsRun if details else RelationsRun).file)


ALL_KINDS = {SINGLE, LISTED, RELATED, FREE}


@pytest.mark.parametrize(
    ("run", "step", "kinds", "at_high_noise"),
    [
        (RelationsRun, 0, {SINGLE}, 0.92),
        (RelationsRun, 30, ALL_KINDS, 0.92),
        (RelationsRun, 99, ALL_KINDS, 0.5),
        (DetailsRun, 0, ALL_KINDS, 0.3),
    ],
)
def test_captions_get_harder_and_noise_lower(
    options: Options, run: type[RelationsRun], step: int, kinds: set[int], at_high_noise: float
) -> None:
    trained(options)
    stage, scenes = run(replace(options, steps=100, batch=400)), load_placed(options)
    batch = stage.draw(step)
    high = batch.times >= 1000 * relations.HIGH
    assert set(scenes.kinds[chosen(stage.pictures, batch)[high]].tolist()) == kinds
    assert high.float().mean().item() == pytest.approx(at_high_noise, abs=0.08)


def test_what_is_watched_is_never_learnt(options: Options) -> None:
    pictures = PlacedPictures(options)
    seen = set(chosen(pictures, pictures.batch(2000, PLACES[-1], options.generator(0))).tolist())
    assert len(pictures.watched) > 2
    assert not seen & set(pictures.watched.tolist())


def test_captions_belong_to_their_pictures(options: Options) -> None:
    pictures = PlacedPictures(options)
    batch = pictures.batch(200, PLACES[-1], options.generator(0))
    told = (batch.ids != pictures.blank).any(1)
    assert torch.equal(batch.ids[told], pictures.ids[chosen(pictures, batch)[told]])
    assert 0.8 < told.float().mean() < 1


@pytest.mark.parametrize("details", [False, True])
def test_a_resumed_run_goes_on_as_an_unbroken_one(
    options: Options, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, details: bool
) -> None:
    caplog.set_level(logging.INFO, "dumpunet")
    monkeypatch.setattr(diffusion, "SAVE_EVERY", 1)
    trained(options)
    whole = trained(replace(options, every=2), details=details)
    assert re.search(r"opposite relations lose [+-]\d\.\d{4}$", caplog.messages[-1])
    text = torch.load(options.work / "text.pt")
    assert all(torch.equal(whole["model"][f"text_encoder.{name}"], tensor) for name, tensor in text.items())

    draw = RelationsRun.draw

    def interrupted(self: RelationsRun, step: int) -> Batch:
        if step == 2:
            raise KeyboardInterrupt
        return draw(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(RelationsRun, "draw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(options, details=details)
    resumed = trained(replace(options, resume=True), details=details)
    for part in ("model", "average"):
        assert all(torch.equal(whole[part][key], resumed[part][key]) for key in whole[part])


def test_details_go_on_where_relations_ended(options: Options) -> None:
    places = trained(options)
    details = trained(replace(options, rate=0.0), details=True)
    assert details["step"] == options.steps
    for key, tensor in places["average"].items():
        assert torch.allclose(details["model"][key], tensor)
