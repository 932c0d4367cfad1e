"""A job's lists of prompts and seeds, one entry per image, which extensions may fill in."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from modules import rng

LISTS = ("all_prompts", "all_negative_prompts", "all_hr_prompts", "all_hr_negative_prompts")
"""Lists of prompts; some extensions fill them in differently each time."""
NEGATIVES = {"all_negative_prompts": "negative_prompt", "all_hr_negative_prompts": "hr_negative_prompt"}
"""The lists of negative prompts, each with the attribute it is made from."""
SEEDS = ("all_seeds", "all_subseeds")


def fill_negatives(p: Any, batch: int) -> None:
    """Give every image a negative prompt, by repeating the existing ones.

    For a Jinja loop, Dynamic Prompts writes many prompts but a single negative prompt, and the webui would fail in the
    second batch.
    """
    wanted = len(p.all_prompts)
    for name, usual in NEGATIVES.items():
        given = getattr(p, name, None)
        if given is not None and len(given) < wanted:
            setattr(p, name, list(islice(cycle(given or [getattr(p, usual)]), wanted)))
    if len(p.negative_prompts) < len(p.prompts):
        p.negative_prompts = p.all_negative_prompts[batch * p.batch_size : (batch + 1) * p.batch_size]


def filled_in(p: Any) -> dict[str, list[Any]]:
    """Return a job's lists of prompts and seeds, by name."""
    return {name: list(getattr(p, name)) for name in (*LISTS, *SEEDS) if getattr(p, name, None)}


def put_back(p: Any, lists: dict[str, list[Any]], batch: int) -> None:
    """Replace a job's lists with those of another job, from the batch about to begin."""
    for name, values in lists.items():
        setattr(p, name, list(values))
    chosen = slice(batch * p.batch_size, (batch + 1) * p.batch_size)
    p.prompts, p.negative_prompts = p.all_prompts[chosen], p.all_negative_prompts[chosen]
    p.seeds, p.subseeds = p.all_seeds[chosen], p.all_subseeds[chosen]
    # The noise generator for these seeds, as the webui makes it.
    p.rng = rng.ImageRNG(
        p.rng.shape,
        p.seeds,
        subseeds=p.subseeds,
        subseed_strength=p.subseed_strength,
        seed_resize_from_h=p.seed_resize_from_h,
        seed_resize_from_w=p.seed_resize_from_w,
    )
