"""The texts that a pipeline encodes by itself, for its clock, which tells rows apart by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lib_dumpunet.hosts.diffusers.clock import SchedulerClock


@contextmanager
def overhearing(pipe: Any, clock: SchedulerClock) -> Iterator[None]:
    """Let the clock know the texts that a pipeline encodes, as they tell rows apart."""
    with ExitStack() as stack:
        if hasattr(pipe, "encode_prompt"):
            stack.enter_context(_heard(pipe, "encode_prompt", lambda _, result: clock.know(*result[:2])))
        # Modular pipelines hand their texts to a guider, which has each evaluated by itself.
        guider = getattr(pipe, "guider", None)
        if hasattr(guider, "prepare_inputs"):

            def hear(given: tuple[Any, ...], _: Any) -> None:
                cond, uncond = given[0]["prompt_embeds"]
                clock.know(cond, uncond, apart=True)

            stack.enter_context(_heard(guider, "prepare_inputs", hear))
        yield


@contextmanager
def _heard(owner: Any, name: str, hear: Callable[[tuple[Any, ...], Any], None]) -> Iterator[None]:
    """Let ``hear`` have the arguments and the result of each call of a method."""
    method, own = getattr(owner, name), vars(owner).get(name)

    def heard(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        hear(args, result)
        return result

    setattr(owner, name, heard)
    try:
        yield
    finally:
        delattr(owner, name)
        if own is not None:
            setattr(owner, name, own)
