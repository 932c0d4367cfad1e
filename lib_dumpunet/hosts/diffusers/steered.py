"""Per-block prompts for the user's own pipeline, in two lines of a notebook."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lib_dumpunet.errors import DumpUNetError, HostError, SettingsError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.steer import steer as steer_unet
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock
from lib_dumpunet.hosts.diffusers.conditioning import Encodings, condition
from lib_dumpunet.hosts.diffusers.job import read_prompts
from lib_dumpunet.hosts.diffusers.pipelines import hides_guidance, is_a, require_plain
from lib_dumpunet.models.describe import describe
from lib_dumpunet.ports import BatchRow, ModelCall
from lib_dumpunet.prompt.plan import PromptPlan
from lib_dumpunet.prompt.texts import Texts, Tokens

log = logging.getLogger("dumpunet")


class Inputs(dict[str, Any]):
    """Arguments for the pipeline. Pass them to ``trace`` too, so that it knows what each block reads."""

    def __init__(self, arguments: dict[str, Any], texts: Texts, images: int) -> None:
        super().__init__(arguments)
        self._texts, self._images = texts, images

    def text(self, row: BatchRow, block: str, step: int) -> str:
        """Return the text that a block reads; images are counted over all calls of the pipeline."""
        return self._texts.text(self._own(row), block, step)

    def tokens(self, row: BatchRow, block: str, step: int) -> Tokens:
        """Return the tokens of the text that a block reads; without a block, those of the main text."""
        assert self._texts.plan is not None
        text = self.text(row, block, step) if block else self._texts.plan.main(self._own(row))
        return self._texts.tokens[text]

    def columns(self, row: BatchRow, block: str, step: int, count: int) -> Tokens:
        """Return the ``count`` tokens that a block reads, including padding."""
        return self._texts.columns(self._own(row), block, step, count)

    def known(self, text: str) -> Tokens:
        """Return the tokens of a text that some block reads."""
        return self._texts.tokens[text]

    def _own(self, row: BatchRow) -> BatchRow:
        return BatchRow(row.image % self._images, row.branch)


@contextmanager
def steer(
    pipe: Any,
    prompt: str | Sequence[str],
    negative_prompt: str | None = "",
    *,
    steps: int = 50,
    images_per_prompt: int = 1,
) -> Iterator[Inputs]:
    """Give blocks their own texts while a pipeline runs, any number of times with the same prompts.

    ``with steer(pipe, "a (~: M00: blue :~) circle", steps=20) as inputs: pipe(**inputs)``. The inputs are the prompt
    embeddings and the number of steps, which per-block prompts may refer to; pass all other arguments, such as
    ``guidance_scale``, to the call yourself. A call without the inputs raises a HostError.

    Args:
        prompt: a prompt for each image of the batch, read as on the command line: emphasis, BREAK, any length.
        images_per_prompt: number of images per prompt in the batch.

    Raises:
        SettingsError: if there is no prompt, or more than one negative prompt.
        PromptSyntaxError: for a broken per-block bracket.
        UnsupportedModelError: if the pipeline's U-Net has an unknown layout.
        HostError: if the pipeline does not accept embeddings, or cannot be followed.
    """
    require_plain(pipe)
    if is_a(pipe, "ModularPipeline"):
        raise HostError(
            f"{type(pipe).__name__} takes no embeddings, because it encodes every prompt itself",
            remedy="Steer a StableDiffusionXLPipeline with the same components.",
        )
    images = [text for text in _texts(prompt, "prompt") for _ in range(images_per_prompt)]
    (negative,) = _texts("" if negative_prompt is None else negative_prompt, "negative_prompt")
    if not images or not isinstance(steps, int) or steps < 1:
        field, value = ("steps", steps) if images else ("images_per_prompt", images_per_prompt)
        raise SettingsError(f"{value!r} is not a number from 1", remedy="Use 1 or more.", field=field)
    unet = describe(pipe.unet)
    plan = read_prompts(unet, images, negative, steps)
    conditioning = condition(Encodings(pipe), plan, range(len(images)))
    clock = _Clock(pipe, plan, conditioning.arguments)
    with HookSet() as hooks:
        hooks.before(unet.module, clock.see_call)
        with steer_unet(unet, conditioning.steering, clock, _warn):
            arguments = {**conditioning.arguments, "num_inference_steps": steps}
            yield Inputs(arguments, conditioning.texts, len(images))


def _texts(given: object, field: str) -> list[str]:
    """Return the prompts as a list; there can be only one negative prompt."""
    texts = [given] if isinstance(given, str) else given
    several = field == "prompt"
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        what = "texts" if several else "a text"
        raise SettingsError(
            f"{given!r} is not {what}", remedy="Write what the image should show.", field=field
        )
    if len(texts) > 1 and not several:
        raise SettingsError("all images share one", remedy="Give a single text.", field=field)
    return list(texts)


class _Clock(SchedulerClock):
    """Counts images from 0 in each call of the pipeline, because all calls have the same prompts."""

    def __init__(self, pipe: Any, plan: PromptPlan, arguments: dict[str, Tensor]) -> None:
        super().__init__(pipe)
        self._plan = plan
        self._embeds = arguments["prompt_embeds"]
        self.know(self._embeds, arguments.get("negative_prompt_embeds"))

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a U-Net call.

        Raises:
            HostError: if it cannot be attributed, or has another number of images or other prompts: an image without
                its per-block texts would be worse than none.
        """
        self.begin(0)
        super().see_call(args, kwargs)
        model_call = self.now()
        if model_call.step < 1 and self.trouble is not None:
            raise self.trouble
        images = len({row.image for row in model_call.rows})
        if images not in (0, len(self._embeds)) and not hides_guidance(self._pipe):
            raise HostError(
                f"the pipeline makes {images} images, but there are prompts for {len(self._embeds)}",
                remedy="Pass it the inputs unchanged; for more images per prompt, give steer images_per_prompt.",
            )
        context = kwargs.get("encoder_hidden_states")
        # Only once per run, because comparing synchronises with the GPU.
        if model_call.step == 1 and isinstance(context, Tensor) and not hides_guidance(self._pipe):
            cond = context[[row.branch == "cond" for row in model_call.rows]]
            if cond.shape != self._embeds.shape or not torch.equal(cond, self._embeds.to(cond)):
                raise HostError(
                    "the pipeline was called with other prompts inside steer",
                    remedy="Call it as pipe(**inputs, ...), and make other calls outside the with.",
                )

    def _probed(self, step: int, rows: Callable[[], tuple[BatchRow, ...]]) -> ModelCall:
        """Steer a pipeline's look-ahead calls too."""
        return ModelCall(step, rows())

    def _are_alike(self, rows: Sequence[BatchRow]) -> bool:
        return len({self._plan.template(row) for row in rows}) == 1


def _warn(error: DumpUNetError) -> None:
    log.warning("%s", error)
