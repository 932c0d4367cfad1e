"""The training that teaches the U-Net where objects belong, after it has learnt all else.

It takes two things. The captions get harder as it goes on (`placed`). And the networks compute in float32: in bfloat16
the loss with the right caption stays that with the opposite one, as what tells them apart is, at first, less than
bfloat16 rounds off.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from .diffusion import Batch, Noise, Run, encode, new_model
from .options import Options
from .placed import RELATED, SAMPLERS, load_placed, opposite_captions, sample_placed
from .tokenizer import encode_caption, read_vocabulary

HIGH = 0.7  # of the schedule; above, it is settled where objects are
EASY_UNTIL, HIGH_UNTIL = 0.187, 0.48  # fractions of the steps

EASY, MIXED, ALL = (1.0, 0.0, 0.0, 0.0), (0.15, 0.45, 0.35, 0.05), (0.1, 0.3, 0.35, 0.25)
"""How often each kind of scene comes at high noise: at first, then, and at the end."""
AT_LOW_NOISE = (0.1, 0.2, 0.2, 0.5)
MOSTLY_HIGH, HALF_HIGH = 0.92, 0.5  # fractions of a batch at high noise
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

    def batch(self, size: int, progress: float, chance: torch.Generator) -> Batch:
        """Draw pictures at random as the part of the training that is over, 0 to 1, asks for."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=chance, device=chance.device)

        easy = progress < EASY_UNTIL
        at_high_noise = EASY if easy else MIXED if progress < HIGH_UNTIL else ALL
        is_high = uniform(size) < (MOSTLY_HIGH if progress < HIGH_UNTIL else HALF_HIGH)
        kinds = torch.where(is_high, _lots(at_high_noise, size, chance), _lots(AT_LOW_NOISE, size, chance))
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
    fall = 1 - HIGH_UNTIL
    average_decay = 0.995

    def __init__(self, options: Options, pictures: PlacedPictures) -> None:
        """Start with the networks of the stages before, or resume a saved training."""
        self.pictures = pictures
        super().__init__(options)

    def first_model(self) -> nn.ModuleDict:
        """Return the networks of the stages before."""
        work = self.options.work
        saved = torch.load(work / "unet.pt", map_location="cpu")
        model = new_model(saved["widths"], work)
        model.load_state_dict(saved["average"])
        model["text_encoder"].load_state_dict(torch.load(work / "text.pt", map_location="cpu"))
        model["text_encoder"].requires_grad_(False)
        return model

    def precision(self) -> AbstractContextManager[None]:
        """Compute in float32."""
        return nullcontext()

    @torch.no_grad()
    def report(self) -> str:
        """Return how much more the opposite captions lose than the right ones: 0 as long as nothing is learnt."""
        batch = self.pictures.watch(self.options.generator(0))
        right, opposite = (
            (
                self.model["unet"](
                    batch.noisy, batch.times, self.model["text_encoder"](ids).last_hidden_state
                ).sample
                - batch.velocity
            )
            .square()
            .mean()
            .item()
            for ids in (batch.ids, self.pictures.opposite)
        )
        return f", opposite relations lose {opposite - right:+.4f}"


def train_relations(options: Options) -> None:
    """Train the U-Net on scenes whose captions say where things are."""
    pictures = PlacedPictures(options)
    run = RelationsRun(options, pictures)

    def draw(step: int) -> Batch:
        return pictures.batch(options.batch, step / options.steps, options.generator(step))

    run.train(draw)
