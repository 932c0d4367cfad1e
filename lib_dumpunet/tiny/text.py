"""The training that teaches the text encoder to tell which object is where.

Trained with the U-Net alone it takes "left" and "right" nearly for one word. Here the tokens that end the text, which
come after all words and so may know them all, learn to spell out side, colour and shape of an object: every second one
those of the first object, the others those of the second. What the other tokens say stays as it was.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import new_text_encoder
from .options import Options, rate_at
from .placed import NOT_SAID, SIDES, load_placed
from .scenes import FIGURE_COLORS, SHAPES
from .tokenizer import END, read_vocabulary

log = logging.getLogger("dumpunet")

FACTS = (len(SIDES) + 1, len(FIGURE_COLORS), len(SHAPES))
SHARPNESS = 3.0
KEEP, KEEP_ENDS = 2.0, 0.5
FALL = 0.6


def train_text(options: Options) -> None:
    """Train a copy of the text encoder of work/unet.pt, and write it to work/text.pt."""
    torch.manual_seed(options.seed)
    vocabulary = read_vocabulary(options.work / "tokenizer")
    saved = torch.load(options.work / "unet.pt", map_location=options.device)["average"]
    weights = {name.removeprefix("text_encoder."): t for name, t in saved.items() if name.startswith("text_")}
    before, encoder = (new_text_encoder(vocabulary).to(options.device) for _ in range(2))
    for one in (before, encoder):
        one.load_state_dict(weights)
    scenes = load_placed(options)
    task = Facts(encoder.config.hidden_size, vocabulary[END]).to(options.device)
    # Not Muon: its steps are as large in what is to stay as in what is to change.
    optimizer = torch.optim.AdamW(encoder.parameters(), betas=(0.9, 0.98), weight_decay=0)
    for step in range(options.steps):
        lot = torch.rand(options.batch, generator=options.generator(step), device=options.device)
        chosen = (lot * len(scenes.ids)).long()
        ids = scenes.ids[chosen]
        states = encoder(ids).last_hidden_state
        with torch.no_grad():
            old = before(ids).last_hidden_state
        loss, right = task(states, ids, scenes.facts[chosen])
        (loss + KEEP * task.change(states - old, ids)).backward()
        optimizer.param_groups[0]["lr"] = rate_at(step, options.steps, options.rate, FALL)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % options.every == 0:
            told = (step + 1, options.steps, loss.item(), 100 * right)
            log.info("step %d of %d: loss %.3f, %.1f of 100 facts right", *told)
    torch.save(encoder.state_dict(), options.work / "text.pt")


class Facts(nn.Module):
    """Reads facts off the tokens that end a text, in random directions."""

    directions: Tensor  # "fact c"

    def __init__(self, width: int, end: int) -> None:
        """Fix the directions, each at a right angle to the others."""
        super().__init__()
        self.end = end
        self.register_buffer("directions", nn.init.orthogonal_(torch.empty(sum(FACTS), width)))

    def forward(self, states: Tensor, ids: Tensor, facts: Tensor) -> tuple[Tensor, float]:
        """Return the loss of states "b token c" with facts "b figure fact", and the fraction of facts that is right."""
        ends = ids == self.end
        figure = (torch.arange(ids.shape[1], device=ids.device) % 2).expand(len(ids), -1)
        asked = facts.gather(1, figure[..., None].expand(-1, -1, len(FACTS)))[ends]
        logits = (SHARPNESS * states[ends] @ self.directions.T).split(FACTS, -1)
        loss, right = torch.zeros((), device=ids.device), []
        for guesses, answers in zip(logits, asked.unbind(-1), strict=True):
            loss = loss + F.cross_entropy(guesses, answers, ignore_index=NOT_SAID)
            is_said = answers != NOT_SAID
            right.append((guesses.argmax(-1) == answers)[is_said])
        return loss, torch.cat(right).float().mean().item()

    def change(self, difference: Tensor, ids: Tensor) -> Tensor:
        """Measure how much changed that tells no facts: other tokens, and ends outside of the directions."""
        ends = ids == self.end
        beside = difference[ends] - difference[ends] @ self.directions.T @ self.directions
        return difference[~ends].square().mean() + KEEP_ENDS * beside.square().mean()
