"""Look into a pipeline that the user already has: three lines in a notebook."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from lib_dumpunet.captures import Branch, Kind
from lib_dumpunet.errors import HostError, SettingsError
from lib_dumpunet.hooks.attention import AttentionWant
from lib_dumpunet.hooks.capture import Want
from lib_dumpunet.hooks.heat import Heat, HeatSum
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock, require_plain
from lib_dumpunet.hosts.diffusers.seen import Trace
from lib_dumpunet.hosts.diffusers.steered import Inputs
from lib_dumpunet.hosts.diffusers.tokens import tokens_of
from lib_dumpunet.planning import CAPTURED, Plan, attention_blocks, components_of
from lib_dumpunet.ports import Row
from lib_dumpunet.prompt.selection import StepChoice, parse_steps, select_blocks
from lib_dumpunet.prompt.texts import Tokens
from lib_dumpunet.session import record
from lib_dumpunet.settings import AttentionSettings
from lib_dumpunet.unet.sites import Unet, describe

log = logging.getLogger("dumpunet")


@contextmanager
def trace(
    pipe: Any,
    layers: str = "",
    steps: str = "",
    *,
    attention: str = "",
    features: bool = True,
    steered: Inputs | None = None,
) -> Iterator[Trace]:
    """Keep what the U-Net does while a pipeline runs, any number of times.

    All tensors stay in memory: choose few blocks and steps, as in
    ``with trace(pipe, layers="OUT11", steps="1,20") as seen: pipe("a red circle")``.

    Args:
        pipe: a text-to-image, img2img or inpainting pipeline of Stable Diffusion 1.x, 2.x or XL.
        layers: blocks, such as ``"IN00-OUT11(+2)"``; empty means all.
        steps: sampling steps, such as ``"1,5-20(+5)"``; empty means all.
        attention: what to keep of attention layers, such as ``"qk,words"``: any of k, qk, vqk, self and words.
            Words take no more memory for more steps.
        features: whether to keep the outputs of blocks.
        steered: what ``steer`` has given, if the pipeline is steered: words are found in what each block reads then.
    Raises:
        SettingsError: for a mistake in ``layers``, ``steps`` or ``attention``.
        UnsupportedModelError: if the pipeline's U-Net has an unknown layout.
        HostError: if the pipeline adds rows of its own to the U-Net's batch.
    """
    require_plain(pipe)
    unet = describe(pipe.unet)
    clock = SchedulerClock(pipe)
    chosen = parse_steps(steps, field="steps")
    seen = Trace(steered=steered)
    prompts = _Prompts(pipe, clock, seen.texts)
    plan = Plan(
        Want(select_blocks(layers, unet.order, field="layers"), chosen) if features else None,
        attention=_want(unet, layers, chosen, attention),
    )
    if steered is not None and plan.attention is not None:
        plan = replace(plan, attention=replace(plan.attention, text_of=steered.text))
    plan = replace(plan, sinks=(*components_of(plan.attention), seen))
    with HookSet() as hooks:
        prompts.install(hooks)
        hooks.before(unet.module, clock.see_call)
        hooks.before(unet.module, prompts.see_call)
        with record(unet, plan, clock, seen.problems) as recording:
            try:
                yield seen
            finally:
                seen.heat.update(_sums(recording.heat))
    if clock.trouble is not None:
        seen.problems.append(clock.trouble)
    if not seen.tensors and not seen.heat and not seen.problems:
        seen.problems.append(_nothing_seen(steps, clock.now().step))
    for problem in seen.problems:
        log.warning("%s", problem)


def _want(unet: Unet, layers: str, steps: StepChoice, attention: str) -> AttentionWant | None:
    names = tuple(part.strip() for part in attention.split(",") if part.strip())
    if not names:
        return None
    try:
        kinds = AttentionSettings(kinds=names).kinds
    except SettingsError as error:
        raise SettingsError(error.problem, remedy=error.remedy, field="attention") from None
    wanted = frozenset[Kind]().union(*(CAPTURED[kind] for kind in kinds))
    blocks = attention_blocks(unet, layers, field="layers")
    return AttentionWant(blocks, steps, wanted, branches=("cond", "uncond"))


class _Prompts:
    """Finds out the tokens of each image's prompt from what goes into the text encoder before the U-Net is called."""

    def __init__(self, pipe: Any, clock: SchedulerClock, texts: dict[Row, Tokens]) -> None:
        self._clock, self._texts = clock, texts
        self._encoder = getattr(pipe, "text_encoder", None) or getattr(pipe, "text_encoder_2", None)
        self._tokenizer = getattr(pipe, "tokenizer", None) or getattr(pipe, "tokenizer_2", None)
        self._encoded: list[Tensor] = []
        self._known: set[Row] = set()

    def install(self, hooks: HookSet) -> None:
        """Watch the text encoder; a pipeline of its U-Net alone has none."""
        if self._encoder is not None:
            hooks.before(self._encoder, self._see_ids)

    def _see_ids(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs.get("input_ids")
        if isinstance(ids, Tensor):
            self._encoded.append(ids.detach().cpu())

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Attribute what was encoded since the pipeline's last call to the images that have come up new.

        Where that fails, the images have no words; the pipeline's call goes on.
        """
        new = [row for row in self._clock.now().rows if row not in self._known]
        if not new:
            return
        self._known.update(new)
        encoded, self._encoded = self._encoded, []
        try:
            self._attribute(new, encoded)
        except Exception:
            log.debug("the tokens of the prompt could not be read", exc_info=True)

    def _attribute(self, new: list[Row], encoded: list[Tensor]) -> None:
        # A pipeline encodes its prompts, then its negative prompts. Anything else was encoded by someone else.
        for branch, ids in zip(("cond", "uncond"), encoded if len(encoded) <= 2 else (), strict=False):
            rows = [row for row in new if row.branch == branch]
            each = len(rows) // len(ids)  # num_images_per_prompt
            if each * len(ids) == len(rows):
                for number, row in enumerate(rows):
                    self._texts[row] = tokens_of(self._tokenizer, ids[number // each].tolist())


def _sums(heat: Heat) -> dict[Row, tuple[HeatSum, ...]]:
    branches: tuple[Branch, ...] = ("cond", "uncond")
    rows = (Row(image, branch) for image in heat.images for branch in branches)
    return {row: sums for row in rows if (sums := tuple(heat.sums(row, "word")))}


def _nothing_seen(steps: str, last: int) -> HostError:
    if last:
        return HostError(
            f"none of the steps {steps} was sampled", remedy=f"The last step was {last}.", field="steps"
        )
    return HostError("the pipeline did not run", remedy="Call it inside the with statement.")
