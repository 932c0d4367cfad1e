"""Samplers by their names in the webui, as diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers

from lib_dumpunet.settings import SAMPLERS

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("EulerDiscreteScheduler", {"use_karras_sigmas": False}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "DPM++ 2M Karras": (
        "DPMSolverMultistepScheduler",
        {"use_karras_sigmas": True, "algorithm_type": "dpmsolver++"},
    ),
    "DPM++ SDE": ("DPMSolverSDEScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "LCM": ("LCMScheduler", {}),
}
assert list(SCHEDULERS) == list(SAMPLERS)


def sampler_name(scheduler: Any) -> str:
    """Return a scheduler's name in the webui, or else the name of its class."""
    kind = type(scheduler).__name__
    known = (name for name, (own, _) in SCHEDULERS.items() if own == kind)
    return next(known, kind.removesuffix("Scheduler"))


def scheduler_for(sampler: str, current: Any, seeds: Sequence[int]) -> Any:
    """Make a sampler with the model's noise schedule; an empty name keeps the model's own sampler.

    ``seeds``, one for each image of a batch, are for samplers that do not use the pipeline's generators.
    """
    name, options = SCHEDULERS[sampler] if sampler else (type(current).__name__, {})
    if name == "DPMSolverSDEScheduler":
        options = {**options, "noise_sampler_seed": list(seeds)}
    kind = getattr(diffusers, name) if sampler else type(current)
    return kind.from_config(current.config, **options)
