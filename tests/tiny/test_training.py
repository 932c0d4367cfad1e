"""Training: a seed gives the same weights, in one run or in parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lib_dumpunet.tiny import data, diffusion
from lib_dumpunet.tiny.autoencoder import windows
from lib_dumpunet.tiny.data import load_scenes, sample_scenes
from lib_dumpunet.tiny.diffusion import Pictures, alone_at, train_unet
from lib_dumpunet.tiny.draw import Figures
from lib_dumpunet.tiny.networks import fit_ends, new_vae, standardise
from lib_dumpunet.tiny.optimizer import Optimizer, orthogonal
from lib_dumpunet.tiny.options import Options, rate_at
from lib_dumpunet.tiny.tokenizer import build_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Return options for a tiny training, with latents and captions to train on."""
    monkeypatch.setattr(data, "PART", 4)
    build_tokenizer(tmp_path / "tokenizer")
    options = Options(tmp_path, steps=2, batch=2, scenes=16, widths=(16, 16, 16, 16))
    sample_scenes(options)
    latents = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.save(latents.half(), tmp_path / "latents.pt")
    return options


@pytest.fixture
def figures(options: Options) -> Figures:
    return load_scenes(options).figures


def trained(options: Options) -> dict[str, Any]:
    train_unet(options)
    return torch.load(options.work / "unet.pt")


def test_a_seed_makes_the_same_weights_and_another_seed_does_not(options: Options) -> None:
    first, again, other = (trained(replace(options, seed=seed)) for seed in (1, 1, 2))
    assert first["seen"] == 4
    name = "unet.conv_out.weight"
    assert all(torch.equal(first["model"][key], again["model"][key]) for key in first["model"])
    assert not torch.equal(first["model"][name], other["model"][name])


def test_a_resumed_run_goes_on_as_an_unbroken_one(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "SAVE_EVERY", 1)
    whole = trained(options)
    monkeypatch.setattr(diffusion, "alone_at", lambda step, steps: _stop_at(step, 1))
    with pytest.raises(KeyboardInterrupt):
        trained(options)
    monkeypatch.setattr(diffusion, "alone_at", alone_at)
    resumed = trained(replace(options, resume=True))
    for part in ("model", "average"):
        assert all(torch.equal(whole[part][key], resumed[part][key]) for key in whole[part])


def _stop_at(step: int, last: int) -> float:
    if step == last:
        raise KeyboardInterrupt
    return alone_at(step, 2)


def test_scenes_come_again_from_their_seed(options: Options) -> None:
    first = load_scenes(options)
    sample_scenes(options)
    assert torch.equal(load_scenes(options).ids, first.ids)
    assert first.ids.shape == (16, 77)
    sample_scenes(replace(options, seed=2))
    assert not torch.equal(load_scenes(options).ids, first.ids)


def test_noise_and_velocity_give_the_latents_back(options: Options) -> None:
    pictures = Pictures(options)
    batch = pictures.batch(4, 0.5, options.generator(0))
    alpha = pictures.noise.alphas_bar[batch.times].view(-1, 1, 1, 1)
    clean = alpha.sqrt() * batch.noisy - (1 - alpha).sqrt() * batch.velocity
    nearest = (clean[:, None] - pictures.latents.float()).abs().amax((2, 3, 4)).amin(1)
    assert nearest.max() < 1e-4
    assert (batch.times.sort().values // 250).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("alone", [0.0, 1.0])
def test_pictures_have_as_many_figures_as_the_curriculum_says(options: Options, alone: float) -> None:
    pictures = Pictures(options)
    batch = pictures.batch(8, alone, options.generator(0))
    alpha = pictures.noise.alphas_bar[batch.times].view(-1, 1, 1, 1)
    clean = alpha.sqrt() * batch.noisy - (1 - alpha).sqrt() * batch.velocity
    chosen = (clean[:, None] - pictures.latents.float()).abs().amax((2, 3, 4)).argmin(1)
    paired = load_scenes(options).figures.place[chosen, 1, 2] > 0
    assert paired.tolist() == [alone == 0] * 8


def test_weights_of_steps_are_bounded_at_little_noise(options: Options) -> None:
    batch = Pictures(options).batch(1000, 0.5, options.generator(0))
    by_time = batch.weight[batch.times.argsort()]
    assert by_time[-1] == pytest.approx(1)
    assert by_time[0] < 0.01


def test_two_figures_come_in_slowly() -> None:
    assert alone_at(0, 900) == pytest.approx(0.8)
    assert alone_at(150, 900) == pytest.approx(0.55)
    assert alone_at(300, 900) == alone_at(899, 900) == pytest.approx(0.3)


def test_rate_rises_and_falls() -> None:
    rates = [rate_at(step, 1000, 0.01, 0.5) for step in range(1000)]
    assert rates[0] == pytest.approx(0.0001)
    assert rates[99:500] == pytest.approx([0.01] * 401)
    assert 0 < rates[-1] < 0.0001


@pytest.mark.parametrize("shape", [(2, 4, 12), (2, 12, 4)])
def test_changes_of_matrices_are_nearly_orthogonal(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices).float())
    assert (values - 1).abs().max() < 0.4
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert (orthogonal(matrices).float() * (u @ v)).sum((1, 2)).min() > 0.85 * 4


def test_optimizer_changes_matrices_as_torchs_muon_does() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(20, 50), nn.Linear(20, 50)
    theirs.load_state_dict(ours.state_dict())
    optimizer = Optimizer(ours)
    reference = torch.optim.Muon([theirs.weight], lr=0.01, weight_decay=0.01, momentum=0.95)
    for _ in range(3):
        gradient = 0.01 * torch.randn(50, 20)
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient.clone()
        optimizer.step(0.01)
        reference.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=2e-3)  # both orthogonalise in bfloat16


def test_optimizer_lessens_a_loss_of_every_kind_of_weight() -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 1))
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    optimizer = Optimizer(model)
    x, wanted = torch.randn(16, 3, 6, 6), torch.randn(16, 1)
    losses = []
    for _ in range(30):
        loss = (model(x) - wanted).square().mean()
        loss.backward()
        optimizer.step(0.02)
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_autoencoder_starts_with_the_pictures_colors(figures: Figures) -> None:
    torch.manual_seed(0)
    vae = new_vae().eval()
    pictures = windows(figures, 16, 32, torch.Generator().manual_seed(0))
    fit_ends(vae, pictures)
    with torch.no_grad():
        drawn = vae.decode(vae.encode(pictures).latent_dist.mean).sample
    # The mean colours of cells explain most of a picture; a random start explains nothing.
    assert (drawn - pictures).square().mean() < 0.4 * pictures.var()


def test_standardising_changes_the_latents_and_not_the_pictures(figures: Figures) -> None:
    torch.manual_seed(0)
    vae = new_vae().eval()
    pictures = windows(figures, 8, 32, torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = vae.encode(pictures).latent_dist.mean
        drawn = vae.decode(before).sample
        standardise(vae, before)
        after = vae.encode(pictures).latent_dist.mean
        assert torch.allclose(after.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
        assert torch.allclose(after.std((0, 2, 3)), torch.ones(4), atol=1e-4)
        assert torch.allclose(vae.decode(after).sample, drawn, atol=1e-4)


def test_windows_show_the_edges_of_figures(figures: Figures) -> None:
    pictures = windows(figures, 64, 32, torch.Generator().manual_seed(0))
    assert pictures.shape == (64, 3, 32, 32)
    assert (pictures.amax((2, 3)) - pictures.amin((2, 3))).amax(1).gt(0.2).float().mean() > 0.8
