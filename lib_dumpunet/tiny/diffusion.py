"""The training of U-Net and text encoder, on latents that were made beforehand."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from .focus import cells_of, focus_loss, places_of, watch
from .networks import new_text_encoder, new_unet
from .optimizer import Optimizer
from .options import Options, rate_at, step_generator, to_tensor
from .scenes import render, sample_scene
from .tokenizer import encode_caption, read_vocabulary
from .workers import Worker

log = logging.getLogger("dumpunet")

CAPTION_DROPPED = 0.12  # learnt without a caption, for classifier-free guidance
OFFSET_NOISE = 0.1  # noise that all cells share, or a background's level could be read off the noise's mean
AVERAGE_DECAY = 0.998
SAVE_EVERY = 250  # steps


def cache_latents(worker: Worker, options: Options) -> None:
    """Draw this worker's part of the pictures and write their latents and caption ids to one file."""
    vocabulary = read_vocabulary(options.work / "tokenizer")
    vae = AutoencoderKL.from_pretrained(options.work / "vae").eval()
    rng = random.Random(options.seed * 77_000 + options.size * 10 + worker.rank)
    latents: list[Tensor] = []
    ids: list[list[int]] = []
    cells: list[Tensor] = []
    places: list[list[int]] = []
    count = options.pictures // worker.count
    while len(ids) < count:
        scenes = [sample_scene(rng, options.kind) for _ in range(16)]
        pictures = torch.stack([to_tensor(render(scene, options.size)) for scene in scenes])
        with torch.inference_mode():
            latents.append(vae.encode(pictures).latent_dist.mean.half())
        ids += [encode_caption(scene.caption, vocabulary) for scene in scenes]
        cells += [cells_of(scene, options.size // 8) for scene in scenes]
        places += [places_of(scene) for scene in scenes]
        if worker.leads and len(ids) % 1600 == 0:
            log.info("cache %d: %d of %d pictures", options.size, len(ids), count)
    contents = {
        "latents": torch.cat(latents),
        "ids": torch.tensor(ids, dtype=torch.int16),
        "cells": torch.stack(cells),
        "places": torch.tensor(places),
    }
    torch.save(contents, options.work / f"cache{options.size}-{worker.rank}.pt")


@dataclass
class Batch:
    """Noisy latents with what the networks are told and what they should answer."""

    noisy: Tensor  # "b c h w"
    times: Tensor  # "b", 0 to 999
    ids: Tensor  # "b token"
    velocity: Tensor  # "b c h w"
    cells: Tensor  # "b figure h w": where the figures are
    places: Tensor  # "b word": the tokens that name them, as in `focus`

    def to(self, device: str) -> Batch:
        """Move to a device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


class Pictures:
    """The cached latents and caption ids, as noisy batches."""

    def __init__(self, options: Options) -> None:
        """Read every worker's file of the chosen size."""
        files = sorted(options.work.glob(f"cache{options.size}-*.pt"))
        if not files:
            raise FileNotFoundError(
                f"no cache{options.size}-*.pt in {options.work}: run the stage `cache` first"
            )
        parts = [torch.load(file) for file in files]
        self.latents = torch.cat([part["latents"] for part in parts])
        self.cells = torch.cat([part["cells"] for part in parts])
        self.places = torch.cat([part["places"] for part in parts])
        self.ids = torch.cat([part["ids"] for part in parts])[:, : options.tokens].long()
        blank = encode_caption("", read_vocabulary(options.work / "tokenizer"))
        self.blank = torch.tensor(blank[: options.tokens])
        # SD's noise schedule: scaled linear betas.
        self.alphas_bar = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)

    def batch(self, size: int, chance: torch.Generator) -> Batch:
        """Draw pictures by lot, each with noise of its own time; the times are spread evenly over the batch."""
        chosen = torch.randint(len(self.ids), (size,), generator=chance)
        clean = self.latents[chosen].float().contiguous(memory_format=torch.channels_last)
        dropped = torch.rand(size, 1, generator=chance) < CAPTION_DROPPED
        ids = torch.where(dropped, self.blank, self.ids[chosen])
        places = torch.where(dropped, 0, self.places[chosen])
        times = ((torch.arange(size) + torch.rand(size, generator=chance)) * (1000 / size)).long()
        noise = torch.randn(clean.shape, generator=chance)
        noise += OFFSET_NOISE * torch.randn(clean[:, :, :1, :1].shape, generator=chance)
        alpha = self.alphas_bar[times].view(-1, 1, 1, 1)
        signal, blur = alpha.sqrt(), (1 - alpha).sqrt()
        noisy, velocity = signal * clean + blur * noise, signal * noise - blur * clean
        return Batch(noisy, times, ids, velocity, self.cells[chosen], places)


class Run:
    """A training under way: the two networks, their average, and the momenta."""

    def __init__(self, worker: Worker, options: Options) -> None:
        """Start from new networks, from those of another size (options.begin), or where this size stopped."""
        torch.manual_seed(options.seed)
        self.worker, self.options = worker, options
        self.model = new_model(options.widths, options.work).to(options.device)
        self.step, self.seen = 0, 0
        if options.resume or options.begin:
            self._load_model(options.work / f"unet{options.size if options.resume else options.begin}.pt")
        self.average = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.optimizer = Optimizer(self.model.parameters(), worker)
        self._watch = watch(self.model["unet"]) if options.focus else None
        if options.resume:
            self._load_progress()

    def _load_model(self, file: Path) -> None:
        saved = torch.load(file, map_location=self.options.device)
        self.model.load_state_dict(saved["model" if self.options.resume else "average"])
        self.seen = saved["seen"]

    def _load_progress(self) -> None:
        saved = torch.load(self._file(""), map_location=self.options.device)
        self.average, self.step = saved["average"], saved["step"]
        self.optimizer.load_state_dict(torch.load(self._file(f"-momenta{self.worker.rank}")))

    def _file(self, suffix: str) -> Path:
        return self.options.work / f"unet{self.options.size}{suffix}.pt"

    def learn(self, batch: Batch) -> float:
        """Take one step on one batch and return its loss."""
        context = self.model["text_encoder"](batch.ids).last_hidden_state
        velocity = self.model["unet"](batch.noisy, batch.times, context).sample
        loss = (velocity - batch.velocity).square().mean()
        (loss + self._focus_loss(batch)).backward()
        self.optimizer.step(rate_at(self.step, self.options))
        self.step += 1
        self.seen += len(batch.ids) * self.worker.count
        if self.worker.leads:
            self._follow(min(AVERAGE_DECAY, (1 + self.step) / (10 + self.step)))
        return loss.item()

    def _focus_loss(self, batch: Batch) -> Tensor | float:
        if self._watch is None:
            return 0.0
        loss = self.options.focus * focus_loss(self._watch.seen, batch.cells, batch.places)
        self._watch.seen.clear()
        return loss

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, 1 - decay)

    def save(self) -> None:
        """Write what `resume` needs; every worker writes its own momenta."""
        _replace(self._file(f"-momenta{self.worker.rank}"), self.optimizer.state_dict())
        if self.worker.leads:
            state = {"model": self.model.state_dict(), "average": self.average, "step": self.step}
            _replace(self._file(""), state | {"seen": self.seen, "widths": self.options.widths})


def _replace(file: Path, contents: dict[str, Any]) -> None:
    """Write a file so that it is never half there."""
    aside = file.with_suffix(".part")
    torch.save(contents, aside)
    aside.replace(file)


def new_model(widths: tuple[int, ...], work: Path) -> nn.ModuleDict:
    """Make the two networks that are trained together."""
    vocabulary = read_vocabulary(work / "tokenizer")
    unet = new_unet(widths).to(memory_format=torch.channels_last)  # a third faster on a CPU
    return nn.ModuleDict({"unet": unet, "text_encoder": new_text_encoder(vocabulary)})


def train_unet(worker: Worker, options: Options) -> None:
    """Train U-Net and text encoder to take noise out of latents, to the end of the stage or of this part."""
    pictures, run = Pictures(options), Run(worker, options)
    start, first, losses = time.monotonic(), run.step, []
    last = options.until or options.steps
    while run.step < last:
        batch = pictures.batch(options.batch, step_generator(run.step, options, worker))
        losses.append(run.learn(batch.to(options.device)))
        if run.step % SAVE_EVERY == 0 or run.step == last:
            run.save()
        if worker.leads and run.step % options.every == 0:
            pace = (run.step - first) * options.batch * worker.count / (time.monotonic() - start)
            loss = sum(losses[-options.every :]) / len(losses[-options.every :])
            log.info(
                "unet%d step %d of %d: loss %.4f, %d pictures, %.0f a second",
                *(options.size, run.step, options.steps, loss, run.seen, pace),
            )
