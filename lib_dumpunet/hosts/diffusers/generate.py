"""Make images with a diffusers pipeline while looking into its U-Net."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lib_dumpunet.errors import DumpUNetError, HostError, SettingsError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock
from lib_dumpunet.hosts.diffusers.loading import block_table
from lib_dumpunet.hosts.diffusers.samplers import scheduler_for
from lib_dumpunet.hosts.diffusers.text import Encoded, chunk_count, encode_prompts, tokenize
from lib_dumpunet.ports import Picture
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.points import parse_points
from lib_dumpunet.prompt.texts import Texts
from lib_dumpunet.session import Subject, choose_words, open_session, require_attention
from lib_dumpunet.settings import AttentionSettings, GenerateSettings, Settings
from lib_dumpunet.sinks.dump import DumpRequest
from lib_dumpunet.unet.sites import describe

log = logging.getLogger("dumpunet")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Conditioning:
    """What the prompts of a batch were encoded to, as arguments of the pipeline, and the tokens by image."""

    arguments: dict[str, Tensor]
    texts: Texts


@dataclass(frozen=True)
class Job:
    """All images of one request: ``prompts`` and ``seeds`` go by image, of which a batch takes ``per_batch``."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    per_batch: int
    width: int
    height: int
    sampling: GenerateSettings

    @property
    def batches(self) -> list[range]:
        """Images of each call of the pipeline."""
        total = len(self.prompts)
        return [range(first, first + self.per_batch) for first in range(0, total, self.per_batch)]

    def parameters(self, image: int) -> str:
        """Describe how an image was made, as the webui writes it into its files."""
        s = self.sampling
        lines = [self.prompts[image]]
        if s.negative:
            lines.append(f"Negative prompt: {s.negative}")
        lines.append(
            f"Steps: {s.steps}, Sampler: {s.sampler or 'model default'}, CFG scale: {s.guidance:g}, "
            f"Seed: {self.seeds[image]}, Size: {self.width}x{self.height}"
        )
        return "\n".join(lines)


@dataclass
class Outcome:
    """What a request gave: how many images came out, and what went wrong without stopping it."""

    images: int = 0
    problems: list[DumpUNetError] = field(default_factory=list)


@dataclass(frozen=True)
class Outlet:
    """Where results go. ``picture`` is called from several worker threads at once, the others are not."""

    image: Callable[[int, Image.Image], None]
    picture: Callable[[Picture], None]
    progress: Progress


class DiffusersHost:
    """The core's host for one request."""

    def __init__(self, pipe: Any, outlet: Outlet) -> None:
        self.clock = SchedulerClock(pipe)
        self._outlet = outlet

    def show(self, picture: Picture) -> None:
        """Pass a picture on."""
        self._outlet.picture(picture)


def make_job(pipe: Any, prompts: Sequence[str], sampling: GenerateSettings) -> Job:
    """Settle what the settings leave open: size, seed, and which image gets which prompt.

    Raises:
        SettingsError: if no prompt is given, or one has text per block, which this host does not apply.
        PromptSyntaxError: for a broken per-block bracket.
    """
    if not prompts:
        raise SettingsError("no prompt is given", remedy="Write what the image should show.", field="prompt")
    for name, text in (*(("prompt", p) for p in prompts), ("Negative prompt", sampling.negative)):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise SettingsError("it holds bytes that are no text", remedy="Write it in UTF-8.", field=name)
        if parse_prompt(text, describe(pipe.unet).order, field=name).has_brackets:
            raise SettingsError(
                "text per block is not applied when generating",
                remedy="Leave (~: ... :~) out; `dumpunet prompt` shows the text that each block would get.",
                field=name,
            )
    own = int(pipe.unet.config.sample_size) * 8
    seed = secrets.randbelow(2**32) if sampling.seed < 0 else sampling.seed
    in_batch = [prompt for prompt in prompts for _ in range(sampling.batch)]
    total = len(in_batch) * sampling.count
    return Job(
        prompts=tuple(in_batch * sampling.count),
        seeds=tuple(range(seed, seed + total)),
        per_batch=len(in_batch),
        width=sampling.width or own,
        height=sampling.height or own,
        sampling=sampling,
    )


def check_attention(pipe: Any, job: Job, attention: AttentionSettings) -> None:
    """Find mistakes in blocks, words and points before anything is made; prompts are cut into tokens for that.

    Raises:
        SettingsError: for blocks without attention, a word that is not in the prompt, a point outside of the image.
    """
    if not attention.enabled:
        return
    require_attention(describe(pipe.unet), attention.layers)
    guided = job.sampling.guidance > 1
    cond = [tokenize(pipe, prompt) for prompt in dict.fromkeys(job.prompts)]
    choose_words(attention, Texts(cond, [tokenize(pipe, job.sampling.negative)] if guided else ()))
    parse_points(attention.points, (job.width, job.height))


def generate(pipe: Any, job: Job, settings: Settings, outlet: Outlet) -> Outcome:
    """Run the job, showing pictures and images as they come; the pipeline is left as it was found.

    A fault of sampling or of saving an image ends the job, and is told in the outcome with what came before it.

    Raises:
        SettingsError: for a mistake, before sampling.
    """
    unet = describe(pipe.unet)
    host = DiffusersHost(pipe, outlet)
    outcome = Outcome()
    own_scheduler = pipe.scheduler
    conditioning = condition(pipe, job)
    dumps = (settings.features.dump, settings.attention.dump, settings.attention.heat)
    dumping = any(dump.enabled for dump in dumps)
    subject = Subject(dump_request(pipe, job, dumping=dumping), job.width, job.height, conditioning.texts)
    try:
        with (
            HookSet() as hooks,
            open_session(unet, settings, host, subject) as session,
        ):
            outcome.problems = session.problems
            hooks.before(pipe.unet, host.clock.see_call)
            try:
                for index, image in _sample(pipe, job, conditioning, outlet.progress):
                    outlet.image(index, image)
                    outcome.images += 1
                    session.finish(index, image)
            except HostError as error:  # what came before it is worth telling
                session.problems.append(error)
    finally:
        pipe.scheduler = own_scheduler
    return outcome


def condition(pipe: Any, job: Job) -> Conditioning:
    """Encode the prompts of a batch, each distinct text once; all batches of a job have the same.

    Raises:
        HostError: if the text encoder fails.
    """
    s = job.sampling
    prompts = job.prompts[: job.per_batch]
    distinct = list(dict.fromkeys(prompts))
    guided = s.guidance > 1
    try:
        chunks = max(chunk_count(pipe, text) for text in (*distinct, *([s.negative] if guided else [])))
        encoded = encode_prompts(pipe, distinct, chunks=chunks)
        places = [distinct.index(prompt) for prompt in prompts]
        arguments = _arguments("", encoded, places)
        if guided:
            negative = encode_prompts(pipe, [s.negative], chunks=chunks)
            arguments |= _arguments("negative_", negative, [0] * len(prompts))
    except Exception as error:
        log.debug("encoding failed", exc_info=True)
        raise sampling_error(error) from error
    tokens = dict(zip(distinct, encoded.tokens, strict=True))
    return Conditioning(
        arguments, Texts([tokens[prompt] for prompt in job.prompts], negative.tokens if guided else ())
    )


def _arguments(prefix: str, encoded: Encoded, places: list[int]) -> dict[str, Tensor]:
    """Name the embeddings as the pipeline does, a row for each image."""
    named = {f"{prefix}prompt_embeds": encoded.embeds[places]}
    if encoded.pooled is not None:
        pooled = "pooled_prompt_embeds" if not prefix else "negative_pooled_prompt_embeds"
        named[pooled] = encoded.pooled[places]
    return named


def dump_request(pipe: Any, job: Job, *, dumping: bool) -> DumpRequest:
    """Collect what dumps say about themselves; the block table takes a moment, so only if there are dumps."""
    table = (
        {row.block: asdict(row) for row in block_table(pipe.unet.config, job.width, job.height)}
        if dumping
        else {}
    )
    return DumpRequest(
        prompts=job.prompts,
        negative_prompts=(job.sampling.negative,),
        seeds=job.seeds,
        sampler=job.sampling.sampler or type(pipe.scheduler).__name__,
        steps=job.sampling.steps,
        model=str(pipe.config.get("_name_or_path") or type(pipe).__name__),
        blocks=table,
    )


def _sample(
    pipe: Any, job: Job, conditioning: Conditioning, progress: Progress
) -> Iterator[tuple[int, Image.Image]]:
    """Call the pipeline for each batch, and give out its images with their numbers."""
    s = job.sampling
    total = s.steps * len(job.batches)
    for done, images in enumerate(job.batches):
        seeds = [job.seeds[i] for i in images]
        pipe.scheduler = scheduler_for(s.sampler, pipe.scheduler, seeds)

        def step_ended(
            _: Any, index: int, __: Any, values: dict[str, Any], done: int = done
        ) -> dict[str, Any]:
            progress(min(done * s.steps + index // pipe.scheduler.order + 1, total), total)
            return values

        try:
            result = pipe(
                **conditioning.arguments,
                num_inference_steps=s.steps,
                guidance_scale=s.guidance,
                width=job.width,
                height=job.height,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                callback_on_step_end=step_ended,
            )
        except Exception as error:
            log.debug("sampling failed", exc_info=True)
            raise sampling_error(error) from error
        yield from zip(images, result.images, strict=True)


def sampling_error(error: Exception) -> HostError:
    """Say what made the pipeline stop; running out of memory has as many words as there are devices."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if isinstance(error, MemoryError) or "memory" in reason.lower():
        return HostError(
            f"the device ran out of memory ({reason})", remedy="Use a smaller size or batch, or fp16."
        )
    return HostError(f"sampling failed ({reason})", remedy="Try another sampler or fewer steps.")
