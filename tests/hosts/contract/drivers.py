"""Hosts that generate images of the same request, so that one test checks the contract for all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lib_dumpunet.assemble import Generation
from lib_dumpunet.captures import Branch
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.hooks.steer import Steering
from lib_dumpunet.hosts.common.log_capture import capture_log
from lib_dumpunet.hosts.common.runs import open_runs
from lib_dumpunet.hosts.diffusers.generate import ResultHandlers, generate
from lib_dumpunet.hosts.diffusers.job import make_job
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.ports import BatchRow, ModelCall, Page, Picture
from lib_dumpunet.prompt.plan import PromptPlan, plan_prompts
from lib_dumpunet.prompt.reading import read_prompt
from lib_dumpunet.prompt.template import Template
from lib_dumpunet.prompt.texts import Texts
from lib_dumpunet.prompt.words import Token
from lib_dumpunet.settings import GenerateSettings, PanelSettings
from lib_dumpunet.settings.json import from_dict
from lib_dumpunet.sinks.request import DumpRequest
from tests.hosts.webui import standin
from tests.hosts.webui.conftest import Lab
from tests.unets import diffusers_unet

STEPS = 3
NEVER = ModelCall(0, ())
CHUNK = 6


@dataclass
class Asked:
    """A request: the prompts of one batch, generated ``batches`` times, and settings as in every host's API."""

    settings: Mapping[str, Any]
    prompts: Sequence[str] = ("a b",)
    negative: str = "c"
    batches: int = 1
    seed: int = 1


@dataclass
class Made:
    """The results; ``told`` are the messages that the user got."""

    images: list[bytes] = field(default_factory=list)
    pages: list[bytes] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


class Driver(Protocol):
    """A host."""

    module: nn.Module

    def make(self, asked: Asked) -> Made:
        """Generate the images."""

    def encode(self, text: str) -> Tensor:
        """The host's embedding of a text alone: "token dim"."""


# --- the smallest host that there can be ---


def _letters(text: str) -> tuple[Token, ...]:
    """Cut a text into letters, each of them a word, in chunks of one length."""
    found = [Token(letter.encode(), ends_word=True) for letter in text.replace(" ", "")]
    rest = -(len(found) + 1) % CHUNK
    return (Token(mark="start"), *found, *[Token(mark="end" if i == 0 else "pad") for i in range(rest)])


@dataclass
class FakeHost:
    """Samples with a U-Net in three lines; the rest is what every host supplies."""

    module: nn.Module = field(default_factory=lambda: diffusers_unet("sd1"))
    model_call: ModelCall = NEVER
    made: Made = field(default_factory=Made)

    @property
    def clock(self) -> FakeHost:
        return self

    def now(self) -> ModelCall:
        return self.model_call

    def show(self, picture: Picture) -> None:
        """Drop a picture: dumps contain the same."""

    def write_page(self, page: Page) -> None:
        self.made.pages.append(page.html)

    def encode(self, text: str) -> Tensor:
        """Return different numbers for each letter."""
        numbers = [sum(token.piece) + 300 * len(token.mark) for token in _letters(text)]
        return torch.stack([torch.randn(16, generator=torch.Generator().manual_seed(n)) for n in numbers])

    def make(self, asked: Asked) -> Made:
        self.made = Made()
        panel = from_dict(asked.settings)
        with capture_log(self.made.told, to_console=False):
            try:
                self._make(asked, panel)
            except DumpUNetError as error:
                self.made.told.append(str(error))
        return self.made

    def _make(self, asked: Asked, panel: PanelSettings) -> None:
        model = describe(self.module)
        prompts = tuple(asked.prompts) * asked.batches
        cond = [self._read(model, prompt, "Prompt", panel) for prompt in prompts]
        uncond = [self._read(model, asked.negative, "Negative prompt", panel)]
        plan = plan_prompts(cond, uncond, model.attending, STEPS)
        seeds = tuple(range(asked.seed, asked.seed + len(prompts)))
        request = DumpRequest(prompts, (asked.negative,), seeds, "fake", STEPS)
        steering = Steering(plan, lambda text, *_: self.encode(text), _filled) if plan.has_brackets else None
        generation = Generation(request, 64, 64, self._texts(plan), steering)

        def plain() -> Generation:
            return replace(generation, texts=self._texts(plan.plain), steering=None)

        with open_runs(model, panel.core, self, generation, plain) as runs:
            for first in range(0, len(prompts), len(asked.prompts)):
                images = range(first, first + len(asked.prompts))
                if runs.compares:
                    with runs.plain():
                        self._sample(plan.plain, images, seeds)
                with runs.steered():
                    latents = self._sample(plan, images, seeds)
                for image, latent in zip(images, latents, strict=True):
                    self.made.images.append(latent.numpy().tobytes())
                    runs.finish(image, standin._decode(latent))
        self.made.told += map(str, runs.problems)

    def _read(self, model: Model, text: str, name: str, panel: PanelSettings) -> Template:
        template = read_prompt(text, model.order, name)
        return template if panel.layer_prompt.enabled else template.plain

    def _texts(self, plan: PromptPlan) -> Texts:
        return Texts(plan, {text: _letters(text) for b in ("cond", "uncond") for text in plan.texts(b)})

    def _sample(self, plan: PromptPlan, images: range, seeds: Sequence[int]) -> Tensor:
        branches: tuple[Branch, ...] = ("uncond", "cond")
        rows = tuple(BatchRow(image, branch) for branch in branches for image in images)
        contexts = [self.encode(plan.main(row)) for row in rows]
        context = torch.stack([_filled(c, max(map(len, contexts))) for c in contexts])
        noise = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seeds[i])) for i in images]
        x = torch.stack(noise)
        for step in range(1, STEPS + 1):
            self.model_call = ModelCall(step, rows)
            with torch.no_grad():
                uncond, cond = self.module(torch.cat([x, x]), 500, context).sample.chunk(2)
            x = x - 0.1 * (uncond + 2 * (cond - uncond))
        self.model_call = NEVER
        return x


def _filled(context: Tensor, tokens: int) -> Tensor:
    missing = tokens - len(context)
    return context if missing <= 0 else torch.cat([context, context[-1:].expand(missing, -1)])


# --- the real ones ---


@dataclass
class Diffusers:
    """The command line's host, on the bundled model."""

    pipe: Any

    @property
    def module(self) -> nn.Module:
        module: nn.Module = self.pipe.unet
        return module

    def encode(self, text: str) -> Tensor:
        with torch.no_grad():
            embeds: Tensor = self.pipe.encode_prompt(text, "cpu", 1, False)[0]
        return embeds[0]

    def make(self, asked: Asked) -> Made:
        made = Made()
        panel = from_dict(asked.settings)
        prompts = [p if panel.layer_prompt.enabled else _without_brackets(p) for p in asked.prompts]
        sampling = GenerateSettings(
            steps=STEPS, seed=asked.seed, count=asked.batches, negative=asked.negative, width=64, height=64
        )
        outlet = ResultHandlers(
            lambda _, image: made.images.append(image.tobytes()),
            lambda _: None,
            lambda *_: None,
            page=lambda page: made.pages.append(page.html),
        )
        with capture_log(made.told, to_console=False):
            try:
                outcome = generate(self.pipe, make_job(self.pipe, prompts, sampling), panel.core, outlet)
                made.told += map(str, outcome.problems)
            except DumpUNetError as error:
                made.told.append(str(error))
        return made


def _without_brackets(prompt: str) -> str:
    return read_prompt(prompt, describe(diffusers_unet("sd1")).order, "prompt").erased


@dataclass
class Webui:
    """The webui's host, in its stand-in."""

    lab: Lab

    @property
    def module(self) -> nn.Module:
        from lib_dumpunet.hosts.webui.family import live_unet

        return live_unet(sys.modules["modules.shared"].sd_model)

    def encode(self, text: str) -> Tensor:
        return standin.encode(text, 16)

    def make(self, asked: Asked) -> Made:
        shared = sys.modules["modules.shared"]
        shared.state.interrupted = False
        job = self.lab.job(
            asked.settings,
            prompt=list(asked.prompts) * asked.batches,
            negative_prompt=asked.negative,
            batch_size=len(asked.prompts),
            n_iter=asked.batches,
            seed=asked.seed,
            steps=STEPS,
        )
        made = Made()
        taken: Callable[..., None] = lambda p, pp, *_: made.images.append(pp.image.tobytes())  # noqa: E731
        watch = _Behind(taken)
        self.lab.scripts.alwayson_scripts.append(watch)
        try:
            processed = standin.process_images(job)
        finally:
            self.lab.scripts.alwayson_scripts.remove(watch)
        made.images = made.images[-len(asked.prompts) * asked.batches :]  # the plain ones come first
        made.told = [line.removeprefix("Dump U-Net: ") for line in processed.comments.splitlines()]
        made.pages = [
            Path(line.rpartition("It is ")[2]).read_bytes() for line in made.told if "It is " in line
        ]
        return made


@dataclass
class _Behind:
    """A script that keeps each finished image."""

    postprocess_image: Callable[..., None]
    args_from: int = 0
    args_to: int = 0
