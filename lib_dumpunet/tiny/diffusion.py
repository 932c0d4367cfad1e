"""Train U-Net and text encoder, on cached latents."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from .autoencoder import whole
from .data import load_scenes
from .draw import Figures
from .networks import new_text_encoder, new_unet
from .optimizer import Optimizer
from .options import Options, rate_at
from .tokenizer import encode_caption, read_vocabulary

log = logging.getLogger("dumpunet")

CAPTION_DROPPED = 0.1  # fraction without a caption, for classifier-free guidance
OFFSET_NOISE = (
    0.1  # noise shared by all cells, so that the mean of the noise does not reveal the background's level
)
# Fraction of pictures with one figure, at first and after the first third of the steps.
ALONE_AT_FIRST, ALONE_LATER = 0.8, 0.3
# Signal-to-noise ratio above which a step's weight is clamped (https://arxiv.org/abs/2303.09556).
MOST_SNR = 5.0
SAVE_EVERY = 100  # steps


def cache_latents(options: Options) -> None:
    """Draw all scenes and write their latents to work/latents.pt."""
    torch.save(encode(load_scenes(options).figures, options), options.work / "latents.pt")


@torch.inference_mode()
def encode(figures: Figures, options: Options) -> Tensor:
    """Draw scenes and return their latents, "scene c h w" in float16."""
    vae = AutoencoderKL.from_pretrained(options.work / "vae").eval().to(options.device)
    vae.to(memory_format=torch.channels_last)
    latents = []
    for first in range(0, len(figures), options.batch):
        pictures = whole(figures[first : first + options.batch])
        with options.precision():
            posterior = vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist
        latents.append(posterior.mean.half().cpu())
        if first // options.batch % options.every == 0:
            log.info("cache: %d of %d pictures", first, len(figures))
    return torch.cat(latents)


@dataclass
class Batch:
    """Noisy latents, with the networks' other inputs and their targets."""

    noisy: Tensor  # "b c h w"
    times: Tensor  # "b", 0 to 999
    ids: Tensor  # "b token"
    velocity: Tensor  # "b c h w"
    weight: Tensor  # "b"


class Noise:
    """SD's noise schedule."""

    def __init__(self, device: str) -> None:
        """Make scaled linear betas."""
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self.alphas_bar = (1 - betas).cumprod(0).to(device)

    def add(self, clean: Tensor, times: Tensor, ids: Tensor, chance: torch.Generator) -> Batch:
        """Add noise to latents "b c h w", to each that of its own time."""
        noise = torch.randn(clean.shape, generator=chance, device=chance.device)
        noise += OFFSET_NOISE * torch.randn(len(clean), 4, 1, 1, generator=chance, device=chance.device)
        alpha = self.alphas_bar[times].view(-1, 1, 1, 1)
        signal, blur = alpha.sqrt(), (1 - alpha).sqrt()
        noisy, velocity = signal * clean + blur * noise, signal * noise - blur * clean
        ratio = (alpha / (1 - alpha)).flatten()
        return Batch(noisy, times, ids, velocity, (ratio.clamp_max(MOST_SNR) + 1) / (ratio + 1))


class Pictures:
    """Makes noisy batches from the cached latents and caption ids."""

    def __init__(self, options: Options) -> None:
        """Load latents and ids onto the device."""
        scenes = load_scenes(options)
        self.ids = scenes.ids
        self.latents = torch.load(options.work / "latents.pt", map_location=options.device)
        paired = scenes.figures.place[:, 1, 2] > 0
        self.alone, self.paired = (~paired).nonzero().flatten(), paired.nonzero().flatten()
        blank = encode_caption("", read_vocabulary(options.work / "tokenizer"))
        self.blank = torch.tensor(blank, device=options.device)
        self.noise = Noise(options.device)

    def batch(self, size: int, alone: float, chance: torch.Generator) -> Batch:
        """Choose pictures at random and add noise; time steps are spread evenly over the batch.

        `alone` is the fraction of pictures with one figure.
        """

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=chance, device=chance.device)

        single = uniform(size) < alone
        lot = uniform(size)
        chosen = torch.where(
            single, self.alone[(lot * len(self.alone)).long()], self.paired[(lot * len(self.paired)).long()]
        )
        clean = self.latents[chosen].float().contiguous(memory_format=torch.channels_last)
        ids = torch.where(uniform(size, 1) < CAPTION_DROPPED, self.blank, self.ids[chosen])
        times = (
            ((torch.arange(size, device=chance.device) + uniform(size)) * (1000 / size)).long().clamp_max(999)
        )
        return self.noise.add(clean, times, ids, chance)


class Run:
    """The state of a training: the two networks, their average, and the momenta."""

    file = "unet.pt"
    fall = 0.6  # fraction of the steps in which the rate falls
    average_decay = 0.999

    def __init__(self, options: Options) -> None:
        """Start with new networks, or resume a saved training."""
        torch.manual_seed(options.seed)
        self.options = options
        self.model = self.first_model().to(options.device)
        self.step, self.seen = 0, 0
        self.optimizer = Optimizer(self.model)
        self.average = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        if options.resume:
            self._load()
        if options.compile:
            self.model["unet"].compile()

    def first_model(self) -> nn.ModuleDict:
        """Return the networks that the training starts with."""
        return new_model(self.options.widths, self.options.work)

    def precision(self) -> AbstractContextManager[None]:
        """Return the context in which the networks compute."""
        return self.options.precision()

    def _load(self) -> None:
        saved = torch.load(self.options.work / self.file, map_location=self.options.device)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["momenta"])
        self.average, self.step, self.seen = saved["average"], saved["step"], saved["seen"]

    def learn(self, batch: Batch) -> Tensor:
        """Train on one batch and return its loss."""
        with self.precision():
            context = self.model["text_encoder"](batch.ids).last_hidden_state
            velocity = self.model["unet"](batch.noisy, batch.times, context).sample
        error = (velocity.float() - batch.velocity).square().mean((1, 2, 3))
        (error * batch.weight).mean().backward()
        self.optimizer.step(rate_at(self.step, self.options.steps, self.options.rate, self.fall))
        self.step += 1
        self.seen += len(batch.ids)
        self._follow(min(self.average_decay, (1 + self.step) / (10 + self.step)))
        return error.detach().mean()

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        moving = [(self.average[n], t) for n, t in self.model.state_dict().items() if t.is_floating_point()]
        average, tensors = zip(*moving, strict=True)
        torch._foreach_lerp_(average, tensors, 1 - decay)

    def save(self) -> None:
        """Write the state for `resume` and `export` atomically."""
        contents = {
            "model": self.model.state_dict(),
            "average": self.average,
            "momenta": self.optimizer.state_dict(),
            "step": self.step,
            "seen": self.seen,
            "widths": self.options.widths,
        }
        aside = (self.options.work / self.file).with_suffix(".part")
        torch.save(contents, aside)
        aside.replace(self.options.work / self.file)

    def train(self, draw: Callable[[int], Batch]) -> None:
        """Train on the batch that `draw` returns for each step, to the last step."""
        options = self.options
        start, first, losses = time.monotonic(), self.step, torch.zeros((), device=options.device)
        while self.step < options.steps:
            losses += self.learn(draw(self.step))
            if self.step % SAVE_EVERY == 0 or self.step == options.steps:
                self.save()
            if self.step % options.every == 0:
                loss = losses.item() / options.every
                pace = (self.step - first) * options.batch / (time.monotonic() - start)
                log.info(
                    "step %d of %d: loss %.4f, %d pictures, %.1f a second%s",
                    *(self.step, options.steps, loss, self.seen, pace, self.report()),
                )
                losses.zero_()

    def report(self) -> str:
        """Return what else the log tells of a step."""
        return ""


def new_model(widths: tuple[int, ...], work: Path) -> nn.ModuleDict:
    """Make the U-Net and the text encoder, which are trained together."""
    vocabulary = read_vocabulary(work / "tokenizer")
    unet = new_unet(widths).to(memory_format=torch.channels_last)  # a third faster on a CPU
    return nn.ModuleDict({"unet": unet, "text_encoder": new_text_encoder(vocabulary)})


def alone_at(step: int, steps: int) -> float:
    """Return the fraction of pictures with one figure at a step, which falls in the first third of the steps."""
    return ALONE_AT_FIRST + (ALONE_LATER - ALONE_AT_FIRST) * min(1.0, 3 * step / steps)


def train_unet(options: Options) -> None:
    """Train U-Net and text encoder to denoise latents."""
    pictures, run = Pictures(options), Run(options)

    def draw(step: int) -> Batch:
        return pictures.batch(options.batch, alone_at(step, options.steps), options.generator(step))

    run.train(draw)
