"""A small webui: its modules by name, with the real one's order of callbacks and layouts of rows.

Around ldm's real U-Net. A text encoder that turns letters into numbers, samplers of one and of two evaluations a step,
hires fix, img2img, AND, ``[a:b:2]``, batches whose prompts and negative prompts go through the U-Net together or apart.
What the extension does not touch is left out. With a model of ``forge_model``, it samples as Forge does.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

CHUNK = 5
"""Tokens of a chunk of text, start and end included; a letter is a token."""
SAMPLERS = {"Euler": 1, "Heun": 2, "Thrice": 1}
"""Evaluations of the model in a step, as samplers tell them; the last step of Euler and Heun has one."""


class Options(SimpleNamespace):
    """The webui's settings, and those that extensions add."""

    def add_option(self, key: str, option: Any) -> None:
        self.labels = {**getattr(self, "labels", {}), key: option}
        if not hasattr(self, key):
            setattr(self, key, option.default)


class OptionInfo:
    def __init__(
        self, default: Any, label: str, component: Any, arguments: dict[str, Any], *, section: Any
    ) -> None:
        self.default, self.label, self.component, self.arguments = default, label, component, arguments

    def info(self, text: str) -> OptionInfo:
        return self


class AlwaysVisible:
    """What ``show`` returns for an always-on script."""


class Script:
    """The base class of scripts."""

    args_from = args_to = 0
    is_txt2img = is_img2img = False


@dataclass
class Runner:
    """Calls the callbacks of always-on scripts, and swallows their errors, as the webui does."""

    alwayson_scripts: list[Any] = field(default_factory=list)
    selectable_scripts: list[Any] = field(default_factory=list)
    swallowed: list[BaseException] = field(default_factory=list)

    def call(self, name: str, p: Any, *args: Any, **more: Any) -> None:
        for script in self.alwayson_scripts:
            hook = getattr(script, name, None)
            if hook is not None:
                try:
                    hook(p, *args, *p.script_args[script.args_from : script.args_to], **more)
                except Exception as error:
                    self.swallowed.append(error)


class NoNetworks:
    """Extra networks: only their notation."""

    @staticmethod
    def parse_prompt(text: str) -> tuple[str, dict[str, Any]]:
        return re.sub(r"<(\w+):([^>]+)>", "", text), {}


# --- prompts ---


class SdConditioning(list[str]):
    def __init__(
        self, prompts: Any, is_negative_prompt: bool = False, width: Any = None, height: Any = None
    ) -> None:
        super().__init__(prompts)


@dataclass
class Entry:
    end_at_step: int
    cond: Any


@dataclass
class Part:
    schedules: list[Entry]
    weight: float = 1.0


@dataclass
class Multicond:
    batch: list[list[Part]]


ENCODED: list[str] = []
"""What the text encoder has read, in order."""


def encode(text: str, width: int) -> Tensor:
    """Encode a text as "token dim": different numbers for each letter; chunks are padded with dots."""
    ENCODED.append(text)
    letters = text or " "
    letters += "." * (-len(letters) % CHUNK)
    rows = [
        torch.randn(width, generator=torch.Generator().manual_seed(ord(letter) % 1000)) for letter in letters
    ]
    return torch.stack(rows)


def get_learned_conditioning_prompt_schedules(
    prompts: list[str], steps: int, hires_steps: int | None = None, old: bool = False
) -> list[list[list[Any]]]:
    """Parse ``[a:b:2]``: a up to evaluation 2, then b."""
    found = []
    last = steps if hires_steps is None else hires_steps
    for prompt in prompts:
        match = re.search(r"\[([^:\]]*):([^:\]]*):(\d+)\]", prompt)
        if match is None:
            found.append([[last, prompt]])
            continue
        texts = [prompt[: match.start()] + match[i] + prompt[match.end() :] for i in (1, 2)]
        found.append([[int(match[3]), texts[0]], [last, texts[1]]])
    return found


def get_learned_conditioning(
    model: Any, prompts: list[str], steps: int, hires_steps: int | None = None, old: bool = False
) -> list[list[Entry]]:
    schedules = get_learned_conditioning_prompt_schedules(prompts, steps, hires_steps)
    return [[Entry(last, model.condition(encode(text, model.width))) for last, text in s] for s in schedules]


def get_multicond_prompt_list(prompts: list[str]) -> tuple[list[list[tuple[int, float]]], list[str], None]:
    flat: list[str] = []
    indices = []
    for prompt in prompts:
        parts = re.split(r"\bAND\b", prompt)
        indices.append([(len(flat) + i, 1.0) for i in range(len(parts))])
        flat += parts
    return indices, flat, None


def get_multicond_learned_conditioning(
    model: Any, prompts: list[str], steps: int, hires_steps: int | None = None, old: bool = False
) -> Multicond:
    indices, flat, _ = get_multicond_prompt_list(prompts)
    encoded = get_learned_conditioning(model, flat, steps, hires_steps)
    return Multicond([[Part(encoded[i], weight) for i, weight in of_prompt] for of_prompt in indices])


def _pick(schedule: list[Entry], evaluation: int) -> Any:
    return next((e.cond for e in schedule if evaluation <= e.end_at_step), schedule[0].cond)


def stack(contexts: list[Tensor]) -> Tensor:
    """Join rows; shorter texts repeat their last token."""
    tokens = max(map(len, contexts))
    return torch.stack([torch.cat([c, c[-1:].expand(tokens - len(c), -1)]) for c in contexts])


# --- sampling ---


def is_forge() -> bool:
    """Return whether the loaded model is Forge's."""
    return hasattr(sys.modules["modules.shared"].sd_model, "forge_objects")


def _parts(cond: Multicond, contexts: Tensor) -> list[Tensor]:
    """Return the texts of all images for each AND part; the image with the fewest parts decides for all."""
    counts = [len(parts) for parts in cond.batch]
    starts = [sum(counts[:image]) for image in range(len(counts))]
    return [contexts[[start + part for start in starts]] for part in range(min(counts))]


class InnerModel(torch.nn.Module):
    """Converts the U-Net's output to a denoised image; extensions replace its ``forward``."""

    def forward(self, x: Tensor, time: Tensor, cond: Tensor) -> Tensor:
        """Call the loaded U-Net."""
        return sys.modules["modules.shared"].sd_model.model.diffusion_model(x, time, context=cond)


class Denoiser:
    """Classifier-free guidance; rows of the batch are the parts of all prompts, then the negative prompts."""

    def __init__(self, sampler: Sampler, p: Any) -> None:
        self.sampler, self.p = sampler, p
        self.step = 0
        self.inner_model = InnerModel()

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        shared = sys.modules["modules.shared"]
        if shared.state.interrupted or shared.state.skipped:
            raise InterruptedError
        if self.p.refiner and self.step == self.p.refiner_at:
            shared.sd_model = self.p.refiner
            self.p.setup_conds()
            self.sampler.sampler_extra_args["cond"], self.uncond = self.p.get_conds()
        elif self.step == 0:
            _, self.uncond = self.p.get_conds()
        cond = self.sampler.sampler_extra_args["cond"]
        contexts = [_pick(part.schedules, self.step) for parts in cond.batch for part in parts]
        owners = [image for image, parts in enumerate(cond.batch) for _ in parts]
        text_cond = stack(contexts)
        text_uncond = stack([_pick(schedule, self.step) for schedule in self.uncond])
        skips = shared.opts.skip_uncond_from is not None and self.step >= shared.opts.skip_uncond_from
        rows = x if is_forge() else torch.cat([x[owners], x])
        given = None if skips and is_forge() else text_uncond
        params = SimpleNamespace(x=rows, text_cond=text_cond, text_uncond=given, denoiser=self)
        for callback in shared.callbacks:
            callback(params)
        if is_forge():
            out = self.guided(x / math.sqrt(sigma**2 + 1), _parts(cond, text_cond), given)
        else:
            out = self.evaluate(rows, text_cond, text_uncond, skips)
        self.step += 1
        images = len(x)
        if is_forge():
            return x - sigma * out
        negative = out[len(owners) :] if not skips else out[[owners.index(i) for i in range(images)]]
        mean = torch.stack(
            [out[[r for r, owner in enumerate(owners) if owner == i]].mean(0) for i in range(images)]
        )
        return x - sigma * (negative + 1.5 * (mean - negative))

    def guided(self, x: Tensor, cond: list[Tensor], uncond: Tensor | None) -> Tensor:
        """Run the U-Net as Forge does: in chunks with a row for each image, the negative prompt's first.

        Chunks go through the U-Net together, with the shorter texts repeated, unless the setting forbids it or a text
        would be repeated more than four times.
        """
        shared = sys.modules["modules.shared"]
        negative = [] if uncond is None else [(1, uncond)]
        chunks = [*negative, *((0, context) for context in reversed(cond))]
        lengths = {context.shape[1] for _, context in chunks}
        tokens = math.lcm(*lengths)
        together = shared.opts.batch_cond_uncond and tokens <= 4 * min(lengths)
        calls = [chunks] if together else [[chunk] for chunk in chunks]
        outputs: list[Tensor] = []
        for call in calls:
            length = math.lcm(*(context.shape[1] for _, context in call))
            texts = [context.repeat(1, length // context.shape[1], 1) for _, context in call]
            out = shared.sd_model.forge_objects.unet.model.apply_model(
                x.repeat(len(call), 1, 1, 1), torch.cat(texts), [kind for kind, _ in call]
            )
            outputs += out.chunk(len(call))
        prompt = torch.stack(outputs[len(negative) :]).mean(0)
        return prompt if uncond is None else outputs[0] + 1.5 * (prompt - outputs[0])

    def evaluate(self, rows: Tensor, cond: Tensor, uncond: Tensor, skips: bool) -> Tensor:
        """Run the U-Net on all rows at once, or in parts if lengths differ or the setting says so."""
        shared = sys.modules["modules.shared"]
        model = self.inner_model
        images = len(uncond)
        time = torch.full((len(rows),), 500)
        if skips:
            return model(rows[: len(cond)], time[: len(cond)], cond=cond)
        if cond.shape[1] == uncond.shape[1]:
            context = torch.cat([cond, uncond])
            size = len(rows) if shared.opts.batch_cond_uncond else images
            parts = [slice(i, i + size) for i in range(0, len(rows), size)]
            return torch.cat([model(rows[part], time[part], cond=context[part]) for part in parts])
        size = 2 * images if shared.opts.batch_cond_uncond else images
        ends = [min(i + size, len(cond)) for i in range(0, len(cond), size)]
        parts = [slice(i * size, end) for i, end in enumerate(ends)]
        outputs = [model(rows[part], time[part], cond=cond[part]) for part in parts]
        return torch.cat([*outputs, model(rows[len(cond) :], time[len(cond) :], cond=uncond)])


def sample_thrice(denoiser: Denoiser, x: Tensor, steps: int) -> Tensor:
    """Evaluate the model three times in each step, in k-diffusion's style, and tell nobody."""
    for i in range(steps):
        for _ in range(3):
            x = denoiser(x, 0.1 / (i + 1))
    return x


class Sampler:
    def __init__(self, name: str) -> None:
        self.name = name
        self.func = torch.no_grad()(sample_thrice)
        self.sampler_extra_args: dict[str, Any] = {}

    def sample(self, p: Any, x: Tensor, steps: int, cond: Any) -> Tensor:
        self.model_wrap_cfg = denoiser = Denoiser(self, p)
        self.sampler_extra_args = {"cond": cond}
        try:
            if self.name == "Thrice":
                return self.func(denoiser, x, steps)
            for step in range(steps):
                x = denoiser(x, 0.1)
                if SAMPLERS[self.name] == 2 and step < steps - 1:
                    x = denoiser(x, 0.05)
        except InterruptedError:
            pass
        return x


class SamplerConfig(SimpleNamespace):
    def total_steps(self, steps: int) -> int:
        return steps * SAMPLERS[self.name]


# --- jobs ---


@dataclass
class Processing:
    """A job of txt2img; with ``init_images`` one of img2img, which has fewer steps."""

    scripts: Any
    script_args: list[Any]
    prompt: str | list[str] = "a"
    negative_prompt: str = ""
    steps: int = 3
    sampler_name: str = "Euler"
    seed: int = 1
    subseed: int = -1
    batch_size: int = 1
    n_iter: int = 1
    width: int = 64
    height: int = 64
    enable_hr: bool = False
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    hr_second_pass_steps: int = 0
    hr_sampler_name: str | None = None
    hr_upscale_to_x: int = 128
    hr_upscale_to_y: int = 128
    outpath_samples: str = ""
    is_api: bool = False
    save: bool = False
    refiner: Any = None
    refiner_at: int = 0

    def __post_init__(self) -> None:
        self.comments: dict[str, int] = {}
        self.extra_generation_params: dict[str, Any] = {}
        self.override_settings: dict[str, Any] = {}
        self.styles: list[str] = []
        self.all_prompts: list[str] = []
        self.all_negative_prompts: list[str] = []
        self.subseed_strength, self.seed_resize_from_h, self.seed_resize_from_w = 0.0, 0, 0
        self.sampler: Any = None
        self.is_hr_pass = False
        self.sd_model_name = "small"

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    def setup_prompts(self) -> None:
        count = self.batch_size * self.n_iter
        self.all_prompts = self.prompt if isinstance(self.prompt, list) else count * [self.prompt]
        self.all_negative_prompts = count * [self.negative_prompt]
        if self.enable_hr:
            self.all_hr_prompts = [self.hr_prompt or text for text in self.all_prompts]
            self.all_hr_negative_prompts = count * [self.hr_negative_prompt or self.negative_prompt]

    def setup_conds(self) -> None:
        model = sys.modules["modules.shared"].sd_model
        total = self.steps * SAMPLERS[self.sampler_name]
        if self.is_hr_pass:
            hires = (self.hr_second_pass_steps or self.steps) * SAMPLERS[
                self.hr_sampler_name or self.sampler_name
            ]
            self.hr_uc = get_learned_conditioning(model, self.hr_negative_prompts, total, hires)
            self.hr_c = get_multicond_learned_conditioning(model, self.hr_prompts, total, hires)
            return
        self.uc = get_learned_conditioning(model, self.negative_prompts, total)
        self.c = get_multicond_learned_conditioning(model, self.prompts, total)

    def get_conds(self) -> tuple[Any, Any]:
        return (self.hr_c, self.hr_uc) if self.is_hr_pass else (self.c, self.uc)

    def sample(self) -> Tensor:
        steps = max(1, self.steps // 2) if hasattr(self, "init_images") else self.steps
        self.sampler = Sampler(self.sampler_name)
        x = self.sampler.sample(self, self.rng.next(), steps, self.c)
        if not self.enable_hr or sys.modules["modules.shared"].state.interrupted:
            return x
        self.is_hr_pass = True
        size = (self.hr_upscale_to_y // 8, self.hr_upscale_to_x // 8)
        x = torch.nn.functional.interpolate(x, size)
        self.sampler = Sampler(self.hr_sampler_name or self.sampler_name)
        self.setup_conds()
        self.scripts.call("before_hr", self)
        x = self.sampler.sample(self, x, self.hr_second_pass_steps or self.steps, self.hr_c)
        self.is_hr_pass = False
        return x


class Processed:
    def __init__(
        self,
        p: Processing,
        images: list[Image.Image],
        seed: int = -1,
        info: str = "",
        infotexts: list[str] | None = None,
    ) -> None:
        self.images, self.info = images, info
        self.infotexts = infotexts or [info] * len(images)
        self.index_of_first_image = 0
        self.comments = "".join(f"{comment}\n" for comment in p.comments)
        self.all_prompts = list(p.all_prompts)
        self.all_negative_prompts = list(p.all_negative_prompts)
        self.all_seeds = list(getattr(p, "all_seeds", [p.seed]))
        self.all_subseeds = list(self.all_seeds)


class Noise:
    """Return noise by each image's seed, independent of other images."""

    def __init__(self, shape: tuple[int, ...], seeds: list[int], **_: Any) -> None:
        self.shape, self.seeds = shape, seeds

    def next(self) -> Tensor:
        return torch.stack(
            [torch.randn(self.shape, generator=torch.Generator().manual_seed(s)) for s in self.seeds]
        )


def fix_seed(p: Processing) -> None:
    p.seed = 4711 if p.seed == -1 else p.seed


def process_images(p: Processing) -> Processed:
    """Generate the images of a job, calling all callbacks in the webui's order."""
    p.scripts.call("before_process", p)
    shared = sys.modules["modules.shared"]
    own_model = shared.sd_model
    try:
        return _process(p, shared)
    finally:
        shared.sd_model = own_model


def _process(p: Processing, shared: Any) -> Processed:
    p.setup_prompts()
    seed = 815 if p.seed == -1 else p.seed
    p.all_seeds = [seed + i for i in range(len(p.all_prompts))]
    p.all_subseeds = list(p.all_seeds)
    p.scripts.call("process", p)
    images: list[Image.Image] = []
    infotexts: list[str] = []
    for n in range(p.n_iter):
        p.iteration = n
        shared.state.skipped = False
        if shared.state.interrupted:
            break
        chosen = slice(n * p.batch_size, (n + 1) * p.batch_size)
        p.prompts, p.negative_prompts = p.all_prompts[chosen], p.all_negative_prompts[chosen]
        p.seeds, p.subseeds = p.all_seeds[chosen], p.all_subseeds[chosen]
        p.rng = Noise((4, p.height // 8, p.width // 8), p.seeds)
        about = {"batch_number": n, "prompts": p.prompts, "seeds": p.seeds, "subseeds": p.subseeds}
        p.scripts.call("before_process_batch", p, **about)
        if not p.prompts:
            break
        p.prompts = [NoNetworks.parse_prompt(text)[0] for text in p.prompts]
        if p.enable_hr:
            p.hr_prompts, p.hr_negative_prompts = p.all_hr_prompts[chosen], p.all_hr_negative_prompts[chosen]
        p.scripts.call("process_batch", p, **about)
        p.setup_conds()
        with torch.no_grad():
            latents = p.sample()
        p.scripts.call("postprocess_batch", p, images=latents, batch_number=n)
        p.prompts = p.all_prompts[chosen]
        for i, latent in enumerate(latents):
            p.batch_index = i
            pp = SimpleNamespace(image=_decode(latent))
            p.scripts.call("postprocess_image", p, pp)
            text = _infotext(p, n * p.batch_size + i)
            if p.save:
                path = Path(p.outpath_samples) / f"{len(images):05}-{p.seeds[i]}.png"
                pp.image.save(path)
                pp.image.already_saved_as = str(path)
            images.append(pp.image)
            infotexts.append(text)
    processed = Processed(p, images, p.all_seeds[0], _infotext(p, 0), infotexts or [_infotext(p, 0)])
    p.scripts.call("postprocess", p, processed)
    return processed


def _infotext(p: Processing, index: int) -> str:
    more = "".join(
        f", {k}: {v if ',' not in str(v) and ':' not in str(v) else repr(v)}"
        for k, v in p.extra_generation_params.items()
    )
    return f"{p.all_prompts[index]}\nSteps: {p.steps}, Sampler: {p.sampler_name}, Seed: {p.all_seeds[index]}{more}"


def _decode(latent: Tensor) -> Image.Image:
    pixels = ((latent[:3].clamp(-2, 2) + 2) * 63).byte().permute(1, 2, 0).numpy()
    size = (latent.shape[2] * 8, latent.shape[1] * 8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


# --- the modules ---


class Package(ModuleType):
    """The stand-in for the webui's package."""


class Letters:
    """A tokenizer: each letter is a token, a space ends a word."""

    id_end = 0

    class tokenizer:
        @staticmethod
        def convert_ids_to_tokens(number: int) -> str:
            return f"{chr(number)}</w>"

    @staticmethod
    def tokenize_line(text: str) -> tuple[list[Any], int]:
        numbers = [ord(letter) for letter in text.replace(" ", "")]
        return [SimpleNamespace(tokens=[1, *numbers, 0], fixes=[])], len(numbers)


def model_of(unet: nn.Module, width: int) -> Any:
    """Make a webui model around a U-Net."""
    return SimpleNamespace(
        model=SimpleNamespace(diffusion_model=unet),
        width=width,
        condition=lambda context: context,
        cond_stage_model=Letters(),
    )


class KModel:
    """Forge's model: its U-Net, which is told what each chunk of a call is."""

    def __init__(self, unet: nn.Module) -> None:
        self.diffusion_model = unet

    def apply_model(self, x: Tensor, context: Tensor, kinds: list[int]) -> Tensor:
        """Call the U-Net; extensions that build images from tiles replace this."""
        options = {"cond_or_uncond": kinds}
        out: Tensor = self.diffusion_model(
            x, torch.full((len(x),), 500), context=context, transformer_options=options
        )
        return out


def forge_model(unet: nn.Module, width: int) -> Any:
    """Make a model of Forge around a U-Net."""
    return SimpleNamespace(
        forge_objects=SimpleNamespace(unet=SimpleNamespace(model=KModel(unet))),
        width=width,
        condition=lambda context: context,
        text_processing_engine=Letters(),
    )


def install(data_path: Path) -> None:
    """Install the modules in their state after the webui has started; no model is loaded.

    Once for all tests of a process: the extension binds their names when it is imported.
    """
    if isinstance(sys.modules.get("modules"), Package):
        return
    state = SimpleNamespace(interrupted=False, skipped=False, job_count=-1, job_timestamp="1", textinfo=None)
    opts = Options(use_old_scheduling=False, batch_cond_uncond=True, skip_uncond_from=None)
    contents: dict[str, dict[str, Any]] = {
        "devices": {"autocast": nullcontext},
        "extra_networks": {"parse_prompt": NoNetworks.parse_prompt},
        "paths": {"data_path": str(data_path)},
        "processing": {"process_images": process_images, "fix_seed": fix_seed, "Processed": Processed},
        "prompt_parser": {
            "SdConditioning": SdConditioning,
            "get_learned_conditioning": get_learned_conditioning,
            "get_multicond_learned_conditioning": get_multicond_learned_conditioning,
            "get_multicond_prompt_list": get_multicond_prompt_list,
            "get_learned_conditioning_prompt_schedules": get_learned_conditioning_prompt_schedules,
        },
        "rng": {"ImageRNG": Noise},
        "scripts": {"Script": Script, "AlwaysVisible": AlwaysVisible(), "scripts_data": []},
        "script_callbacks": {},
        "sd_models": {"model_data": SimpleNamespace(sd_model=None)},
        "sd_samplers": {"find_sampler_config": lambda name: SamplerConfig(name=name)},
        "sd_samplers_common": {
            "setup_img2img_steps": lambda p, steps=None: (p.steps, (steps or max(1, p.steps // 2)) - 1)
        },
        "shared": {
            "state": state,
            "opts": opts,
            "cmd_opts": SimpleNamespace(),
            "OptionInfo": OptionInfo,
            "callbacks": [],
            "sd_model": None,
        },
    }
    package = Package("modules")
    sys.modules["modules"] = package
    for name, values in contents.items():
        module = ModuleType(f"modules.{name}")
        vars(module).update(values)
        sys.modules[f"modules.{name}"] = module
        setattr(package, name, module)


@contextmanager
def other_script(change: Callable[[Processing], None]) -> Iterator[Any]:
    """Make an extension whose ``process`` changes a job, as Dynamic Prompts does."""
    yield SimpleNamespace(args_from=0, args_to=0, process=lambda p: change(p))


def copied(p: Processing, **changes: Any) -> Processing:
    """Make a job of the same kind, as a plot makes one for each cell."""
    other = copy(p)
    for name, value in changes.items():
        setattr(other, name, value)
    return other
