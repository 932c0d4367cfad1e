"""Per-block prompts for a pipeline that the user already has: two lines in a notebook."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lib_dumpunet.errors import DumpUNetError, HostError, SettingsError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.steer import steer as steer_unet
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock
from lib_dumpunet.hosts.diffusers.conditioning import Encodings, condition
from lib_dumpunet.hosts.diffusers.job import read_prompts
from lib_dumpunet.unet.sites import describe

log = logging.getLogger("dumpunet")


@contextmanager
def steer(
    pipe: Any,
    prompt: str | Sequence[str],
    negative_prompt: str = "",
    *,
    steps: int = 50,
    images_per_prompt: int = 1,
) -> Iterator[dict[str, Any]]:
    """Give blocks texts of their own while a pipeline runs, any number of times with the same prompts.

    ``with steer(pipe, "a (~: M00: blue :~) circle", steps=20) as inputs: pipe(**inputs)``. The inputs are the prompts
    as embeddings, and the number of steps, which per-block prompts may refer to; all else, such as ``guidance_scale``,
    is up to the call. A call that makes another number of images is stopped by a HostError.

    Args:
        prompt: one for each image of the batch, read as on the command line: emphasis, BREAK, any length.
        images_per_prompt: images of each prompt in the batch.
    Raises:
        SettingsError: if there is no prompt.
        PromptSyntaxError: for a broken per-block bracket.
        UnsupportedModelError: if the pipeline's U-Net has an unknown layout.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    images = [text for text in prompts for _ in range(images_per_prompt)]
    if not images:
        raise SettingsError("no prompt is given", remedy="Write what the image should show.", field="prompt")
    unet = describe(pipe.unet)
    plan = read_prompts(unet, images, negative_prompt, steps)
    conditioning = condition(Encodings(pipe), plan, range(len(images)))
    clock = _Clock(pipe, len(images))
    with HookSet() as hooks:
        hooks.before(unet.module, clock.see_call)
        with steer_unet(unet, conditioning.steering, clock, _warn):
            yield {**conditioning.arguments, "num_inference_steps": steps}
    if clock.trouble is not None:
        log.warning("%s", clock.trouble)


class _Clock(SchedulerClock):
    """Counts images from 0 again in each call of the pipeline, as all calls have the same prompts."""

    def __init__(self, pipe: Any, images: int) -> None:
        super().__init__(pipe)
        self._count = images

    def see_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a U-Net call.

        Raises:
            HostError: if it is for another number of images than have prompts.
        """
        self.begin(0)
        super().see_call(args, kwargs)
        images = len({row.image for row in self.now().rows})
        if images not in (0, self._count):
            raise HostError(
                f"the pipeline makes {images} images where {self._count} have prompts",
                remedy="Pass it the inputs as they are; for more images of a prompt give steer images_per_prompt.",
            )


def _warn(error: DumpUNetError) -> None:
    log.warning("%s", error)
