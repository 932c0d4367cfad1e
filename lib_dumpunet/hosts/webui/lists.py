"""What a job of the webui's has for each of its images: prompts and seeds, which extensions fill in."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from modules import rng

LISTS = ("all_prompts", "all_negative_prompts", "all_hr_prompts", "all_hr_negative_prompts")
"""The prompts; some extensions fill in something new each time."""
NEGATIVES = {"all_negative_prompts": "negative_prompt", "all_hr_negative_prompts": "hr_negative_prompt"}
"""Of these the lists of negative prompts, each with what they are made of."""
SEEDS = ("all_seeds", "all_subseeds")


def fill_negatives(p: Any, batch: int) -> None:
    """Give every image a negative prompt: Dynamic Prompts writes a single one beside the prompts of a Jinja loop.

    The webui would end the second batch with an error. The ones that there are come again in turn.
    """
    wanted = len(p.all_prompts)
    for name, usual in NEGATIVES.items():
        given = getattr(p, name, None)
        if given is not None and len(given) < wanted:
            setattr(p, name, list(islice(cycle(given or [getattr(p, usual)]), wanted)))
    if len(p.negative_prompts) < len(p.prompts):
        p.negative_prompts = p.all_negative_prompts[batch * p.batch_size : (batch + 1) * p.batch_size]


def filled_in(p: Any) -> dict[str, list[Any]]:
    """Return the lists that a job has, by name."""
    return {name: list(getattr(p, name)) for name in (*LISTS, *SEEDS) if getattr(p, name, None)}


def put_back(p: Any, lists: dict[str, list[Any]], batch: int) -> None:
    """Let a job have the lists of another, from a batch on that it is about to begin."""
    for name, values in lists.items():
        setattr(p, name, list(values))
    chosen = slice(batch * p.batch_size, (batch + 1) * p.batch_size)
    p.prompts, p.negative_prompts = p.all_prompts[chosen], p.all_negative_prompts[chosen]
    p.seeds, p.subseeds = p.all_seeds[chosen], p.all_subseeds[chosen]
    # The source of noise for these seeds, as the webui makes it.
    p.rng = rng.ImageRNG(
        p.rng.shape,
        p.seeds,
        subseeds=p.subseeds,
        subseed_strength=p.subseed_strength,
        seed_resize_from_h=p.seed_resize_from_h,
        seed_resize_from_w=p.seed_resize_from_w,
    )
