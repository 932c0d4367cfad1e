"""What differs between versions of the webui, from 1.6 on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gradio.context import Context
from modules import extra_networks, prompt_parser, sd_models, sd_samplers, sd_samplers_common, shared
from torch import Tensor

TIMESTEPS = {"DDIM": -1, "DDIM CFG++": -1, "PLMS": -1, "UniPC": 0}
"""Samplers with a list of timesteps, and the difference between their steps and the entries of the list."""


def loaded_model() -> Any:
    """Return the loaded model, or None; ``shared.sd_model`` would load one."""
    return getattr(sd_models.model_data, "sd_model", None)


def on_this_page(components: Iterable[Any]) -> list[Any]:
    """Keep only controls of the page being built: the webui also builds scripts on throw-away pages."""
    page = getattr(Context, "root_block", None)
    return [c for c in components if page is not None and page.blocks.get(c._id) is c]


def denoiser_of(params: Any, p: Any) -> Any:
    """Return the denoiser of a callback; up to 1.6 callbacks do not have it, so assume that of ``p``."""
    return getattr(params, "denoiser", None) or getattr(p.sampler, "model_wrap_cfg", None)


def is_own(denoiser: Any, p: Any) -> bool:
    """Return whether a denoiser samples for ``p`` rather than for a job that another extension started meanwhile."""
    return denoiser is not None and denoiser is getattr(p.sampler, "model_wrap_cfg", None)


def part_counts(denoiser: Any, cond_rows: int, images: int) -> list[int]:
    """Count the AND parts of each image's prompt; each part has its own row in the batch."""
    cond = (denoiser.sampler.sampler_extra_args or {}).get("cond") if hasattr(denoiser, "sampler") else None
    counts = [len(parts) for parts in getattr(cond, "batch", ())]
    if sum(counts) == cond_rows:
        return counts
    return [cond_rows // images] * images


def context(cond: Any) -> Tensor:
    """Return the text embeddings of a conditioning, "token dim" or "row token dim"; SDXL's is a dictionary."""
    found: Tensor = cond["crossattn"] if isinstance(cond, dict) else cond
    return found


def rows_of(cond: Any) -> int:
    """Count the rows of a conditioning; without guidance, there may be none of the negative prompt."""
    return 0 if cond is None else len(context(cond))


def is_stopped() -> bool:
    """Return whether the user has ended the job; since 1.10 also after the image under way."""
    return bool(shared.state.interrupted or getattr(shared.state, "stopping_generation", False))


def sampler_name(p: Any, *, hires: bool) -> str:
    """Return the name of a pass's sampler."""
    name = getattr(p, "hr_sampler_name", None) if hires else None
    return str(name or p.sampler_name)


def evaluations_per_step(sampler: str) -> int:
    """Return how many times a sampler evaluates the model per step, as the webui's prompt schedules count them."""
    config = sd_samplers.find_sampler_config(sampler)
    return int(config.total_steps(1)) if config is not None else 1


def asked_steps(p: Any, *, hires: bool) -> int:
    """Return the number of steps that prompt schedules use."""
    return int((getattr(p, "hr_second_pass_steps", 0) if hires else 0) or p.steps)


def sampled_steps(p: Any, *, hires: bool) -> int:
    """Return the number of steps that a pass samples: fewer than asked for in img2img, which starts from an image."""
    steps = asked_steps(p, hires=hires)
    from_image = hires or hasattr(p, "init_images")
    entries = steps
    if from_image:
        _, last = sd_samplers_common.setup_img2img_steps(p, steps if hires else None)
        entries = last + 1
    more = TIMESTEPS.get(sampler_name(p, hires=hires))
    if more is None:
        return max(1, entries)
    # With an image, the list is cut after `last` entries; without one, it divides 1000 timesteps.
    return max(1, (entries - 1 if from_image else len(range(0, 1000, 1000 // steps))) + more)


def without_networks(text: str) -> str:
    """Remove ``<lora:...>`` and the like from a prompt, as the webui does before encoding it."""
    plain: str = extra_networks.parse_prompt(text)[0]
    return plain


def use_old_scheduling() -> bool:
    """Return the webui's setting for reading numbers in ``[a:b:5]``."""
    return bool(shared.opts.use_old_scheduling)


def prompt_parts(text: str) -> list[str]:
    """Split a prompt at AND, and remove the weights of its parts."""
    indices, flat, _ = prompt_parser.get_multicond_prompt_list([text])
    return [flat[index] for index, _ in indices[0]]


def schedule(text: str, steps: int, hires_steps: int | None) -> Sequence[tuple[int, str]]:
    """List the texts that a prompt schedule goes through, each with its last evaluation, from 0."""
    found = prompt_parser.get_learned_conditioning_prompt_schedules(
        [text], steps, hires_steps, use_old_scheduling()
    )
    return [(int(last), said) for last, said in found[0]]
