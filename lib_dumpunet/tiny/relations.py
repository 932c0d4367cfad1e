"""The training that teaches the U-Net where objects belong, after it has learnt all else.

It takes two things. The captions get harder as it goes on (`placed`). And the networks compute in float32: in bfloat16
the loss with the right caption stays that with the opposite one, as what tells them apart is, at first, less than
bfloat16 rounds off. Most steps go to high noise, so edges get rougher; a second training, mostly at low noise, makes
them sharp again.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .diffusion import Batch, Noise, Run, encode, new_model
from .options import Options
from .placed import RELATED, SAMPLERS, load_placed, opposite_captions, sample_placed
from .tokenizer import encode_caption, read_vocabulary


@dataclass(frozen=True)
class Lesson:
    """What a part of a training shows."""

    until: float  # where it ends, as a fraction of the steps
    at_high_noise: float  # fraction of each batch
    kinds: tuple[float, float, float, float]
    """How often each kind of scene comes at high noise."""


PLACES = (
    Lesson(0.187, 0.92, (1.0, 0.0, 0.0, 0.0)),
    Lesson(0.48, 0.92, (0.15, 0.45, 0.35, 0.05)),
    Lesson(1.0, 0.5, (0.1, 0.3, 0.35, 0.25)),
)
DETAILS = (Lesson(1.0, 0.3, (0.15, 0.25, 0.35, 0.25)),)
HIGH = 0.7  # of the schedule; above, it is settled where objects are
KINDS_AT_LOW_NOISE = (0.1, 0.2, 0.2, 0.5)
CAPTION_DROPPED = 0.08
HELD_OUT = 41  # one of so many scenes, to watch what was learnt
WATCHED, WATCHED_TIME = 48, 850


def place_scenes(options: Options) -> None:
    """Sample placed scenes, draw them, and write their latents to work/placed-latents.pt."""
    sample_placed(options)
    torch.save(encode(load_placed(options).figures, options), options.work / "placed-latents.pt")


class PlacedPictures:
    """The latents of placed scenes and the tokens of their captions, as noisy batches."""

    def __init__(self, options: Options) -> None:
        """Read them onto the device."""
        vocabulary = read_vocabulary(options.work / "tokenizer")
        scenes = load_placed(options)
        self.ids = scenes.ids
        self.latents = torch.load(options.work / "placed-latents.pt", map_location=options.device)
        self.noise = Noise(options.device)
        self.blank = torch.tensor(encode_caption("", vocabulary), device=options.device)
        is_held_out = torch.arange(len(scenes.ids), device=options.device) % HELD_OUT == 0
        self.of_kind = [((scenes.kinds == kind) & ~is_held_out).nonzero().flatten() for kind in SAMPLERS]
        self.watched = ((scenes.kinds == RELATED) & is_held_out).nonzero().flatten()[:WATCHED]
        self.opposite = opposite_captions(scenes.ids[self.watched], vocabulary)

    def batch(self, size: int, lesson: Lesson, chance: torch.Generator) -> Batch:
        """Draw pictures at random."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=chance, device=chance.device)

        is_high = uniform(size) < lesson.at_high_noise
        kinds = torch.where(
            is_high, _lots(lesson.kinds, size, chance), _lots(KINDS_AT_LOW_NOISE, size, chance)
        )
        lots = zip(kinds.tolist(), uniform(size), strict=True)
        chosen = torch.stack([self.of_kind[kind][int(lot * len(self.of_kind[kind]))] for kind, lot in lots])
        spread = (torch.randperm(size, generator=chance, device=chance.device) + uniform(size)) / size
        times = torch.where(is_high, HIGH + (1 - HIGH) * spread, HIGH * spread)
        ids = torch.where(uniform(size, 1) < CAPTION_DROPPED, self.blank, self.ids[chosen])
        return self.noise.add(self._clean(chosen), (1000 * times).long().clamp_max(999), ids, chance)

    def _clean(self, chosen: Tensor) -> Tensor:
        return self.latents[chosen].float().contiguous(memory_format=torch.channels_last)

    def watch(self, chance: torch.Generator) -> Batch:
        """Return scenes with a relation that no batch has, at high noise."""
        times = torch.full_like(self.watched, WATCHED_TIME)
        return self.noise.add(self._clean(self.watched), times, self.ids[self.watched], chance)


def _lots(odds: tuple[float, ...], size: int, chance: torch.Generator) -> Tensor:
    return torch.multinomial(torch.tensor(odds, device=chance.device), size, True, generator=chance)


class RelationsRun(Run):
    """Goes on where the training of all else ended, with the text encoder of work/text.pt, which stays as it is."""

    file = "relations.pt"
    lessons: tuple[Lesson, ...] = PLACES
    fall = 1 - PLACES[-2].until
    average_decay = 0.995

    def __init__(self, options: Options) -> None:
        """Start with the networks of the stages before, or resume a saved training."""
        self.pictures = PlacedPictures(options)
        super().__init__(options)

    def first_model(self) -> nn.ModuleDict:
        """Return the networks of the stages before."""
        model = self._model_of(Run.file)
        model["text_encoder"].load_state_dict(self._saved("text.pt"))
        return model

    def _model_of(self, file: str) -> nn.ModuleDict:
        saved = self._saved(file)
        model = new_model(saved["widths"], self.options.work)
        model.load_state_dict(saved["average"])
        model["text_encoder"].requires_grad_(False)
        return model

    def _saved(self, file: str) -> dict[str, Any]:
        saved: dict[str, Any] = torch.load(self.options.work / file, map_location="cpu")
        return saved

    def draw(self, step: int) -> Batch:
        """Return the batch of a step."""
        options = self.options
        lesson = next(lesson for lesson in self.lessons if step < lesson.until * options.steps)
        return self.pictures.batch(options.batch, lesson, options.generator(step))

    def precision(self) -> AbstractContextManager[None]:
        """Compute in float32."""
        return nullcontext()

    @torch.no_grad()
    def report(self) -> str:
        """Return how much more the opposite captions lose than the right ones: 0 as long as nothing is learnt."""
        batch = self.pictures.watch(self.options.generator(0))
        losses = []
        for ids in (batch.ids, self.pictures.opposite):
            context = self.model["text_encoder"](ids).last_hidden_state
            velocity = self.model["unet"](batch.noisy, batch.times, context).sample
            losses.append((velocity - batch.velocity).square().mean().item())
        return f", opposite relations lose {losses[1] - losses[0]:+.4f}"


class DetailsRun(RelationsRun):
    """Goes on where the training of relations ended."""

    file = "details.pt"
    lessons = DETAILS
    fall = 1.0

    def first_model(self) -> nn.ModuleDict:
        """Return the networks that know where objects belong."""
        return self._model_of(RelationsRun.file)


def train_relations(options: Options) -> None:
    """Train the U-Net on scenes whose captions say where things are."""
    run = RelationsRun(options)
    run.train(run.draw)


def train_details(options: Options) -> None:
    """Train the U-Net on the same scenes, mostly at low noise."""
    run = DetailsRun(options)
    run.train(run.draw)
