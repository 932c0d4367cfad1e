"""Train the autoencoder, on crops along the edges of figures."""

from __future__ import annotations

import logging
import math

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .data import load_scenes
from .draw import Figures, draw
from .networks import fit_ends, new_vae, standardise
from .optimizer import Optimizer
from .options import Options, rate_at

log = logging.getLogger("dumpunet")

SIDE = 256  # pixels of a whole picture
WINDOW = 64  # pixels: small, for many more steps in the same time
WIDE = 0.8  # from this fraction of a phase on, windows have twice the side
DECODER = 0.4  # the last fraction of all steps, in which the encoder is frozen
FALL = 0.5
KL_WEIGHT = 5e-4
EDGE_WEIGHT = 0.5
LATENT_NOISE = 0.15  # standard deviation; makes the decoder tolerate a U-Net's errors
POOL = 20  # steps whose windows are drawn at once
RECOLORED = 0.5  # fraction of windows with mixed channels, so that it does not prefer certain colours
AVERAGE = 0.005
TEST_PICTURES = 64


def train_vae(options: Options) -> None:
    """Train the autoencoder, then only its decoder; standardise its latents and write it to work/vae."""
    torch.manual_seed(options.seed)
    figures = load_scenes(options).figures
    vae = new_vae().to(options.device)
    fit_ends(vae, windows(figures, 64, WINDOW, options.generator(-1)))
    vae.to(memory_format=torch.channels_last)
    alone = int(DECODER * options.steps)
    _phase(vae, figures, options, range(options.steps - alone))
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    _phase(vae, figures, options, range(options.steps - alone, options.steps))
    _finish(vae.eval(), figures, options)


def _phase(vae: AutoencoderKL, figures: Figures, options: Options, steps: range) -> None:
    """Train the weights that require gradients, and replace them by their running average at the end."""
    weights = [weight for weight in vae.parameters() if weight.requires_grad]
    average = [weight.detach().clone() for weight in weights]
    optimizer = Optimizer(vae)
    for i, step in enumerate(steps):
        if i % POOL == 0:
            side = WINDOW if i < WIDE * len(steps) else 2 * WINDOW
            count = max(1, options.batch * WINDOW**2 // side**2)
            pool = windows(figures, count * POOL, side, options.generator(step)).split(count)
        error = _learn(vae, pool[i % POOL], options, step)
        optimizer.step(rate_at(i, len(steps), options.rate, FALL))
        torch._foreach_lerp_(average, [weight.detach() for weight in weights], max(AVERAGE, 1 / (i + 2)))
        if (step + 1) % options.every == 0:
            log.info("vae step %d of %d: mean error %.4f", step + 1, options.steps, error.item())
    for weight, mean in zip(weights, average, strict=True):
        weight.data.copy_(mean)


def _learn(vae: AutoencoderKL, pictures: Tensor, options: Options, step: int) -> Tensor:
    """Compute the gradients of one batch; return the mean absolute error of its pixels."""
    chance = options.generator(step)
    with options.precision():
        posterior = vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist
    mean, deviation = posterior.mean.float(), posterior.std.float()
    latents = mean + deviation * torch.randn(mean.shape, generator=chance, device=mean.device)
    if not vae.quant_conv.weight.requires_grad:
        strength = LATENT_NOISE * torch.rand(
            latents[:, :1, :1, :1].shape, generator=chance, device=mean.device
        )
        latents += strength * torch.randn(mean.shape, generator=chance, device=mean.device)
    with options.precision():
        error = vae.decode(latents).sample.float() - pictures
    pixel = error.abs().mean()
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    divergence = (mean.square() + deviation.square() - 1).mean() / 2 - deviation.log().mean()
    (pixel + error.square().mean() + EDGE_WEIGHT * edges + KL_WEIGHT * divergence).backward()
    return pixel.detach()


def windows(figures: Figures, count: int, side: int, chance: torch.Generator) -> Tensor:
    """Draw windows "b 3 side side" at figures' edges, some with mixed channels."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=chance, device=chance.device)

    chosen = figures[(uniform() * len(figures)).long()]
    second = (uniform() < 0.5) & (chosen.place[:, 1, 2] > 0)
    place = chosen.place[torch.arange(count), second.long()]
    turn, away = 2 * math.pi * uniform(), place[:, 2] * (0.2 + 1.1 * uniform())
    middle = place[:, :2] + torch.stack([turn.cos(), turn.sin()], 1) * away[:, None]
    width = side / SIDE
    corner = (middle - width / 2 + (uniform(2) - 0.5) / 16).clamp(0, 1 - width)
    pictures = draw(chosen, torch.cat([corner, torch.full_like(corner[:, :1], width)], 1), side)
    channels = uniform(3).argsort(1)[:, :, None, None].expand_as(pictures)
    mixed = pictures.gather(1, channels) * torch.where(uniform(3) < 0.5, -1.0, 1.0)[:, :, None, None]
    return torch.where((uniform() < RECOLORED)[:, None, None, None], mixed, pictures)


def whole(figures: Figures) -> Tensor:
    """Draw whole pictures "b 3 h w"."""
    return draw(figures, figures.place.new_tensor([0.0, 0.0, 1.0]).expand(len(figures), 3), SIDE)


@torch.no_grad()
def _finish(vae: AutoencoderKL, figures: Figures, options: Options) -> None:
    """Standardise the latents, write the weights and log their PSNR."""
    pictures = whole(figures[:TEST_PICTURES])
    standardise(vae, torch.cat([vae.encode(part).latent_dist.mean for part in pictures.split(8)]))
    latents = (vae.encode(part).latent_dist.mean for part in pictures.split(8))
    drawn = torch.cat([vae.decode(part).sample for part in latents]).clamp(-1, 1)
    vae.save_pretrained(options.work / "vae")
    log.info("vae: PSNR %.1f dB on %d whole pictures", psnr(drawn, pictures), len(pictures))


def psnr(drawn: Tensor, pictures: Tensor) -> float:
    """Return the peak signal-to-noise ratio of pictures from -1 to 1, in decibels."""
    return float(10 * (4 / (drawn - pictures).square().mean()).log10())
