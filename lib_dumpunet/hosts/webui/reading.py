"""What the blocks of a job's images read: the webui's prompts, planned and encoded for each pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from modules import shared
from torch import Tensor

from lib_dumpunet.captures import Branch
from lib_dumpunet.hooks.steer import Steering
from lib_dumpunet.hosts.webui import compat
from lib_dumpunet.hosts.webui.clock import DenoiserClock
from lib_dumpunet.hosts.webui.family import family_of
from lib_dumpunet.hosts.webui.text import Encodings, fill, schedules, timing_of, tokenize
from lib_dumpunet.models.model import Model
from lib_dumpunet.ports import BatchRow, ModelCall
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.plan import PromptPlan, plan_prompts
from lib_dumpunet.prompt.template import Template
from lib_dumpunet.prompt.texts import Schedule, Texts, Tokens

BRANCHES: tuple[Branch, ...] = ("cond", "uncond")


@dataclass(frozen=True)
class Prompts:
    """The prompts of one pass by image, as in the webui's parameters."""

    cond: tuple[str, ...]
    uncond: tuple[str, ...]
    hires: bool

    @property
    def fields(self) -> tuple[str, str]:
        """Their names in messages."""
        return ("Hires prompt", "Hires negative prompt") if self.hires else ("Prompt", "Negative prompt")


def prompts_of(p: Any, *, hires: bool) -> Prompts:
    """Return a job's prompts, once it has set them up."""
    if hires:
        return Prompts(tuple(p.all_hr_prompts), tuple(p.all_hr_negative_prompts), True)
    return Prompts(tuple(p.all_prompts), tuple(p.all_negative_prompts), False)


class Reading:
    """One pass of a job: its prompt plan, and the embeddings of its texts.

    Raises:
        PromptSyntaxError: for a broken per-block bracket.
    """

    def __init__(
        self, p: Any, prompts: Prompts, unet: Model, clock: DenoiserClock, *, brackets: bool
    ) -> None:
        self.steps = compat.sampled_steps(p, hires=prompts.hires)
        attending = unet.attending
        cond, uncond = (
            _templates(texts, unet, field, brackets=brackets)
            for texts, field in zip((prompts.cond, prompts.uncond), prompts.fields, strict=True)
        )
        self.plan = plan_prompts(cond, uncond, attending, self.steps)
        self._timing = timing_of(p, hires=prompts.hires)
        self._encodings = Encodings(self._timing)
        self._schedules: dict[str, Schedule] = {}
        self._tokens: dict[str, Tokens] = {}
        self._order = unet.order
        self._clock = clock
        self._repeats = family_of(shared.sd_model).has_chunks

    @property
    def steering(self) -> Steering | None:
        """What the steering hooks need; None if no prompt has brackets."""
        if not self.plan.has_brackets:
            return None
        return Steering(self.plan, self._at, fill, self._join if self._repeats else None)

    def texts(self, *, tokens: bool) -> Texts:
        """Return what blocks read, with tokens if ``tokens``."""
        return self._texts_of(self.plan, tokens=tokens)

    def plain_texts(self, *, tokens: bool) -> Texts:
        """Return what blocks read without per-block prompts."""
        return self._texts_of(self.plan.plain, tokens=tokens)

    def _texts_of(self, plan: PromptPlan, *, tokens: bool) -> Texts:
        length_of = partial(self._length, plan) if self._repeats else None
        if not tokens:
            return Texts(plan, length_of=length_of)
        timed: dict[str, Schedule] = {}
        for branch in BRANCHES:
            timed |= schedules(plan.texts(branch), branch, self._timing)
        self._schedules |= timed
        self._tokens |= tokenize(dict.fromkeys(text for schedule in timed.values() for _, text in schedule))
        return Texts(plan, self._tokens, schedules=self._schedules, length_of=length_of)

    def hear(self, images: range, branch: Branch, said: Sequence[str]) -> None:
        """Note the texts that the webui actually encoded for the main texts: NegPiP removes words before encoding."""
        for main, text in zip(self.mains(images, branch, plain=False), said, strict=True):
            if text != main and main in self._schedules:
                self._schedules |= {main: schedules((text,), branch, self._timing)[text]}
                self._tokens |= tokenize(part for _, part in self._schedules[main])

    def encode(self, images: range, state: object) -> None:
        """Encode the texts that blocks of some images read, except main texts read alone, which the webui encodes.

        Nothing is left to encode while sampling. ``state`` is that of the text encoder, as in ``Encodings``.
        """
        for branch in BRANCHES:
            rows = [BatchRow(image, branch) for image in images]
            own = (self.plan.own(row, block, step) for row in rows for block, step in self._places())
            texts = dict.fromkeys(share.text for shares in own for share in shares or ())
            self._encodings.learn(texts, branch, state)

    def _places(self) -> Iterator[tuple[str, int]]:
        return product(self.plan.attending, range(1, self.steps + 1))

    def mains(self, images: range, branch: Branch, *, plain: bool) -> list[str]:
        """Return the main text of each image, which the webui encodes for the whole U-Net.

        With ``plain``, return the base prompts instead.
        """
        plan = self.plan.plain if plain else self.plan
        return [plan.main(BatchRow(image, branch)) for image in images]

    def base(self, text: str) -> str:
        """Return a prompt without its brackets."""
        return parse_prompt(text, self._order).erased

    def _at(self, text: str, _: int, row: BatchRow) -> Any:
        # The clock's count, because a sampler may evaluate the model twice in a step.
        return self._encodings.at(text, row.branch, row.part, self._clock.evaluation)

    def _join(
        self, block: str, model_call: ModelCall, own: Sequence[Tensor | None], passed: Tensor
    ) -> list[Tensor]:
        """Repeat the texts of a call to one length, after padding those of the prompts, or negative prompts, to one."""
        assert self._clock.chunks is not None
        passed_lengths = self._clock.chunks.lengths
        contexts = []
        for row, one, given in zip(model_call.rows, own, passed, strict=True):
            context = given[: passed_lengths[row.branch]] if one is None else one
            contexts.append(fill(context, self._length(self.plan, row, block, model_call.step)))
        tokens = math.lcm(*map(len, contexts))
        return [context.repeat(tokens // len(context), 1) for context in contexts]

    def _length(self, plan: PromptPlan, row: BatchRow, block: str, step: int) -> int:
        """Return the length to which the webui pads the texts of all prompts, or of all negative prompts, in a block.

        Only the texts that the block reads count. The webui has padded main texts already.
        """
        chunks = self._clock.chunks
        assert chunks is not None
        parts = chunks.parts if row.branch == "cond" else 1
        rows = [BatchRow(image, row.branch, part) for image in chunks.images for part in range(parts)]
        lengths = set()
        for one in rows:
            own = plan.own(one, block, step)
            lengths |= {len(self._at(share.text, step, one)) for share in own or ()}
            if own is None:
                lengths.add(chunks.lengths[row.branch])
        return max(lengths)


def encoder_state(p: Any, *, hires: bool) -> object:
    """Return a value that identifies the text encoder's state: checkpoint and extra networks."""
    networks = getattr(p, "hr_extra_network_data" if hires else "extra_network_data", None) or {}
    named = {kind: [getattr(one, "items", one) for one in several] for kind, several in networks.items()}
    # The webui may load another checkpoint into the same object.
    checkpoint = getattr(getattr(shared.sd_model, "sd_checkpoint_info", None), "filename", None)
    return checkpoint or id(shared.sd_model), repr(named)


def _templates(texts: Sequence[str], unet: Model, field: str, *, brackets: bool) -> list[Template]:
    known: dict[str, Template] = {}
    for text in dict.fromkeys(texts):
        # As written, so that errors have the right position, and a <lora:...> in a bracket is an error.
        parse_prompt(text, unet.order, field=field)
        template = parse_prompt(compat.without_networks(text), unet.order, field=field)
        known[text] = template if brackets else template.plain
    return [known[text] for text in texts]
