"""Training: a seed makes the same weights again, at once or in parts."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lib_dumpunet.tiny import scenes
from lib_dumpunet.tiny.autoencoder import crops
from lib_dumpunet.tiny.diffusion import Pictures, train_unet
from lib_dumpunet.tiny.networks import fit_ends, new_vae, standardise
from lib_dumpunet.tiny.optimizer import Optimizer
from lib_dumpunet.tiny.options import Options, rate_at, step_generator
from lib_dumpunet.tiny.tokenizer import build_tokenizer, encode_caption, read_vocabulary
from lib_dumpunet.tiny.workers import Worker

ALONE = Worker()


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Return options for a tiny training, with latents and captions to train on."""
    build_tokenizer(tmp_path / "tokenizer")
    vocabulary = read_vocabulary(tmp_path / "tokenizer")
    captions = [scenes.sample_scene(random.Random(seed)).caption for seed in range(8)]
    latents = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    ids = torch.tensor([encode_caption(caption, vocabulary) for caption in captions], dtype=torch.int16)
    contents = {
        "latents": latents,
        "ids": ids,
        "cells": torch.rand(8, 2, 8, 8) > 0.5,
        "places": torch.randint(0, 6, (8, 4)),
    }
    torch.save(contents, tmp_path / "cache64-0.pt")
    return Options(tmp_path, steps=2, batch=2, size=64, tokens=24, widths=(16, 16, 16, 16))


def trained(options: Options) -> dict[str, Any]:
    train_unet(ALONE, options)
    return torch.load(options.work / f"unet{options.size}.pt")


def test_a_seed_makes_the_same_weights_and_another_seed_does_not(options: Options) -> None:
    first, again, other = (trained(replace(options, seed=seed)) for seed in (1, 1, 2))
    assert first["seen"] == 4
    name = "unet.conv_out.weight"
    assert all(torch.equal(first["model"][key], again["model"][key]) for key in first["model"])
    assert not torch.equal(first["model"][name], other["model"][name])


def test_a_resumed_run_goes_on_as_an_unbroken_one(options: Options) -> None:
    whole = trained(options)
    trained(replace(options, until=1))
    resumed = trained(replace(options, resume=True))
    for part in ("model", "average"):
        assert all(torch.equal(whole[part][key], resumed[part][key]) for key in whole[part])


def test_a_stage_begins_with_the_average_of_another_size(options: Options) -> None:
    small = trained(options)
    cache = options.work / "cache64-0.pt"
    cache.rename(options.work / "cache72-0.pt")
    # The first step's rate is tiny and the average follows the start, so the weights still show where they began.
    larger = trained(replace(options, size=72, begin=64, steps=1))
    name = "unet.down_blocks.0.resnets.0.conv1.weight"
    assert torch.allclose(larger["model"][name], small["average"][name], atol=1e-3)
    assert larger["seen"] == small["seen"] + 2


def test_missing_latents_are_told(options: Options) -> None:
    with pytest.raises(FileNotFoundError, match="run the stage `cache` first"):
        Pictures(replace(options, size=512))


def test_noise_and_velocity_give_the_latents_back(options: Options) -> None:
    pictures = Pictures(options)
    batch = pictures.batch(4, step_generator(0, options, ALONE))
    alpha = pictures.alphas_bar[batch.times].view(-1, 1, 1, 1)
    clean = alpha.sqrt() * batch.noisy - (1 - alpha).sqrt() * batch.velocity
    known = pictures.latents.float()
    nearest = (clean[:, None] - known).abs().amax((2, 3, 4)).amin(1)
    assert nearest.max() < 1e-4
    assert (batch.times.sort().values // 250).tolist() == [0, 1, 2, 3]


def test_rate_rises_and_falls_and_may_be_held() -> None:
    options = Options(Path(), steps=1000, rate=0.01)
    rates = [rate_at(step, options) for step in range(1000)]
    assert rates[0] == pytest.approx(0.0001)
    assert rates[99:500] == pytest.approx([0.01] * 401)
    assert 0 < rates[-1] < 0.0001
    assert rate_at(999, replace(options, hold=True)) == 0.01


def test_optimizer_refuses_convolutions_that_it_could_not_change() -> None:
    with pytest.raises(ValueError, match="channels_last"):
        Optimizer(nn.Conv2d(2, 2, 3).parameters(), ALONE)


def test_optimizer_lessens_a_loss_of_every_kind_of_weight() -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 1))
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    optimizer = Optimizer(model.parameters(), ALONE)
    x, wanted = torch.randn(16, 3, 6, 6), torch.randn(16, 1)
    losses = []
    for _ in range(30):
        loss = (model(x) - wanted).square().mean()
        loss.backward()
        optimizer.step(0.02)
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_autoencoder_starts_with_the_pictures_colors() -> None:
    torch.manual_seed(0)
    vae = new_vae().eval()
    pictures = crops(random.Random(0), 16, 32)
    fit_ends(vae, pictures)
    with torch.no_grad():
        drawn = vae.decode(vae.encode(pictures).latent_dist.mean).sample
    # The mean colours of cells explain most of a picture; a random start explains nothing.
    assert (drawn - pictures).square().mean() < 0.4 * pictures.var()


def test_standardising_changes_the_latents_and_not_the_pictures() -> None:
    torch.manual_seed(0)
    vae = new_vae().eval()
    pictures = crops(random.Random(0), 8, 32)
    with torch.no_grad():
        before = vae.encode(pictures).latent_dist.mean
        drawn = vae.decode(before).sample
        standardise(vae, before)
        after = vae.encode(pictures).latent_dist.mean
        assert torch.allclose(after.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
        assert torch.allclose(after.std((0, 2, 3)), torch.ones(4), atol=1e-4)
        assert torch.allclose(vae.decode(after).sample, drawn, atol=1e-4)
