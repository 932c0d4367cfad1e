"""The autoencoder's training, on crops along the edges of figures."""

from __future__ import annotations

import logging
import math
import random
from dataclasses import replace

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .networks import fit_ends, new_vae, standardise
from .optimizer import Optimizer
from .options import Options, rate_at, step_generator, to_tensor
from .scenes import Figure, Scene, render, sample_scene
from .workers import Worker

log = logging.getLogger("dumpunet")

CROP = 64
KL_WEIGHT = 5e-4
EDGE_WEIGHT = 0.5
LATENT_NOISE = 0.15  # deviation; makes the decoder forgiving of what a U-Net gets wrong
TEST_SEED, TEST_PICTURES = 10_000, 24


def train_vae(worker: Worker, options: Options) -> None:
    """Train the autoencoder (or its decoder alone), standardise its latents and write it to work/vae.

    With no steps it only standardises what is there, for pictures of another kind.
    """
    torch.manual_seed(options.seed)
    vae = _start(options).to(memory_format=torch.channels_last)
    if options.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    weights = [weight for weight in vae.parameters() if weight.requires_grad]
    average = [weight.detach().clone() for weight in weights]
    optimizer = Optimizer(weights, worker)
    for step in range(options.steps):
        error = _learn(vae, options, step, worker)
        optimizer.step(rate_at(step, options))
        torch._foreach_lerp_(average, [w.detach() for w in weights], max(0.005, 1 / (step + 2)))
        if worker.leads and (step + 1) % options.every == 0:
            log.info("vae step %d of %d: mean error %.4f", step + 1, options.steps, error)
    if worker.leads:
        for weight, mean in zip(weights, average, strict=True):
            weight.data.copy_(mean)
        _finish(vae.eval(), options)


def _start(options: Options) -> AutoencoderKL:
    if options.resume:
        return AutoencoderKL.from_pretrained(options.work / "vae").train()
    vae = new_vae()
    fit_ends(vae, crops(random.Random(options.seed), 64, CROP))
    return vae


def _learn(vae: AutoencoderKL, options: Options, step: int, worker: Worker) -> float:
    """Leave the gradients of one batch in the weights; return the mean absolute error of its pixels."""
    chance = step_generator(step, options, worker)
    rng = random.Random(chance.initial_seed())
    side = CROP if step < 0.85 * options.steps else 2 * CROP  # small first: many more steps for the time
    recolored = 0.1 if options.decoder_only else 0.5
    pictures = crops(rng, max(1, options.batch * CROP**2 // side**2), side, recolored)
    posterior = vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist
    latents = posterior.sample(chance)
    if options.decoder_only:
        strength = LATENT_NOISE * torch.rand(latents[:, :1, :1, :1].shape, generator=chance)
        latents = latents + strength * torch.randn(latents.shape, generator=chance)
    error = vae.decode(latents).sample - pictures
    pixel = error.abs().mean()
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    divergence = posterior.kl().mean() / posterior.mean[0].numel()
    (pixel + error.square().mean() + EDGE_WEIGHT * edges + KL_WEIGHT * divergence).backward()
    return pixel.item()


def crops(rng: random.Random, count: int, side: int, recolored: float = 0.5) -> Tensor:
    """Draw windows "b 3 side side" at figures' edges, of pictures at either size; some with channels mixed."""
    pictures = []
    for _ in range(count):
        picture = to_tensor(render(_window(rng, sample_scene(rng), side), side, 3))
        if rng.random() < recolored:
            signs = torch.tensor(rng.choices([-1.0, 1.0], k=3))
            picture = picture[rng.sample(range(3), 3)] * signs[:, None, None]
        pictures.append(picture)
    return torch.stack(pictures)


def _window(rng: random.Random, scene: Scene, side: int) -> Scene:
    """Move and enlarge a scene so that drawing it at `side` pixels shows a piece near some figure's edge."""
    size = rng.choice([128, 256, 256])
    figure, turn = rng.choice(scene.figures), rng.uniform(0, 2 * math.pi)
    distance = figure.radius * rng.uniform(0.2, 1.3)
    middle = (figure.x + distance * math.cos(turn), figure.y + distance * math.sin(turn))
    left, top = (
        min(max(0.0, centre * size - side / 2 + rng.uniform(-8, 8)), size - side) / size for centre in middle
    )
    zoom = size / side

    def seen(figure: Figure) -> Figure:
        return replace(
            figure, x=(figure.x - left) * zoom, y=(figure.y - top) * zoom, radius=figure.radius * zoom
        )

    return replace(scene, figures=tuple(map(seen, scene.figures)))


@torch.no_grad()
def _finish(vae: AutoencoderKL, options: Options) -> None:
    """Standardise the latents, unless a U-Net may know them already; write the weights and say how good."""
    scenes = (sample_scene(random.Random(TEST_SEED + i)) for i in range(TEST_PICTURES))
    pictures = torch.stack([to_tensor(render(scene)) for scene in scenes])
    if not options.decoder_only:
        standardise(vae, torch.cat([vae.encode(part).latent_dist.mean for part in pictures.split(4)]))
    latents = (vae.encode(part).latent_dist.mean for part in pictures.split(4))
    drawn = torch.cat([vae.decode(part).sample for part in latents]).clamp(-1, 1)
    vae.save_pretrained(options.work / "vae")
    log.info("vae: PSNR %.1f dB on %d whole pictures", psnr(drawn, pictures), len(pictures))


def psnr(drawn: Tensor, pictures: Tensor) -> float:
    """Return the peak signal-to-noise ratio of pictures from -1 to 1, in decibels."""
    return float(10 * (4 / (drawn - pictures).square().mean()).log10())
