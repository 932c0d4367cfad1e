"""The one place that knows how webuis differ: releases 1.6 to 1.10 of AUTOMATIC1111's, and where successors will."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gradio.context import Context
from modules import extra_networks, prompt_parser, sd_models, sd_samplers, sd_samplers_common, shared
from torch import nn

TIMESTEPS = {"DDIM": -1, "DDIM CFG++": -1, "PLMS": -1, "UniPC": 0}
"""Samplers that go by a list of timesteps, and how many steps more than its entries they take."""


def live_unet(sd_model: Any) -> nn.Module:
    """Find the U-Net that samples; the models of Forge hold it elsewhere."""
    model = sd_model.forge_objects.unet.model if is_forge(sd_model) else sd_model.model
    unet: nn.Module = model.diffusion_model
    return unet


def is_forge(sd_model: Any) -> bool:
    """Return whether a model is held as Forge and its successors do."""
    return hasattr(sd_model, "forge_objects")


def loaded_model() -> Any:
    """Return the model that is loaded; None if none is, while ``shared.sd_model`` would load one."""
    return getattr(sd_models.model_data, "sd_model", None)


def on_this_page(components: Iterable[Any]) -> list[Any]:
    """Keep controls that belong to the page that is being built: scripts are built on throw-away pages too."""
    page = getattr(Context, "root_block", None)
    return [c for c in components if page is not None and page.blocks.get(c._id) is c]


def denoiser_of(params: Any, p: Any) -> Any:
    """Find the denoiser that a callback comes from; up to 1.6 it is not told, so that it must be that of ``p``."""
    return getattr(params, "denoiser", None) or getattr(p.sampler, "model_wrap_cfg", None)


def is_own(denoiser: Any, p: Any) -> bool:
    """Return whether a denoiser samples for ``p``, and not for a job that another extension has begun meanwhile."""
    return denoiser is not None and denoiser is getattr(p.sampler, "model_wrap_cfg", None)


def part_counts(denoiser: Any, cond_rows: int, images: int) -> list[int]:
    """Count the parts, joined by AND, of each image's prompt: each has a row of its own in the batch."""
    cond = (denoiser.sampler.sampler_extra_args or {}).get("cond") if hasattr(denoiser, "sampler") else None
    counts = [len(parts) for parts in getattr(cond, "batch", ())]
    if sum(counts) == cond_rows:
        return counts
    return [cond_rows // images] * images


def rows_of(text: Any) -> int:
    """Count the rows of a conditioning; SDXL's is a dictionary."""
    return int(text.shape[0])


def sampler_name(p: Any, *, hires: bool) -> str:
    """Name the sampler of a pass."""
    name = getattr(p, "hr_sampler_name", None) if hires else None
    return str(name or p.sampler_name)


def evaluations_per_step(sampler: str) -> int:
    """Return how many times a sampler evaluates the model in a step, as the webui's prompt schedules count."""
    config = sd_samplers.find_sampler_config(sampler)
    return int(config.total_steps(1)) if config is not None else 1


def step_counter(sampler: str) -> Callable[[int], int]:
    """Make the function that turns the number of an evaluation, from 0, into the sampler's step, from 1."""
    if sampler == "PLMS":  # its first step takes a second evaluation
        return lambda evaluation: max(1, evaluation)
    per_step = evaluations_per_step(sampler)
    return lambda evaluation: evaluation // per_step + 1


def asked_steps(p: Any, *, hires: bool) -> int:
    """Return the number of steps that prompt schedules go by."""
    return int((getattr(p, "hr_second_pass_steps", 0) if hires else 0) or p.steps)


def sampled_steps(p: Any, *, hires: bool) -> int:
    """Count the steps that a pass takes: fewer than asked for in img2img, as it begins with an image."""
    steps = asked_steps(p, hires=hires)
    from_image = hires or hasattr(p, "init_images")
    entries = steps
    if from_image:
        _, last = sd_samplers_common.setup_img2img_steps(p, steps if hires else None)
        entries = last + 1
    more = TIMESTEPS.get(sampler_name(p, hires=hires))
    if more is None:
        return max(1, entries)
    # The list is cut after `last` entries for an image; without one it has a thousand's parts.
    return max(1, (entries - 1 if from_image else len(range(0, 1000, 1000 // steps))) + more)


def without_networks(text: str) -> str:
    """Take ``<lora:...>`` and the like out of a prompt, as the webui does before it is encoded."""
    plain: str = extra_networks.parse_prompt(text)[0]
    return plain


def use_old_scheduling() -> bool:
    """Tell how the webui reads numbers in ``[a:b:5]``."""
    return bool(shared.opts.use_old_scheduling)


def prompt_parts(text: str) -> list[str]:
    """Split a prompt at AND, and take the weights off its parts."""
    indices, flat, _ = prompt_parser.get_multicond_prompt_list([text])
    return [flat[index] for index, _ in indices[0]]


def schedule(text: str, steps: int, hires_steps: int | None) -> Sequence[tuple[int, str]]:
    """List what a text says, each with the last evaluation, from 0, for which it does."""
    found = prompt_parser.get_learned_conditioning_prompt_schedules(
        [text], steps, hires_steps, use_old_scheduling()
    )
    return [(int(last), said) for last, said in found[0]]
