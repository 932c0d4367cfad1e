"""Pass the text embeddings that a pipeline makes to its clock, which identifies batch rows by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lib_dumpunet.hosts.diffusers.clock import SchedulerClock


@contextmanager
def observe_embeddings(pipe: Any, clock: SchedulerClock) -> Iterator[None]:
    """Pass the pipeline's text embeddings to the clock while the context is open."""
    with ExitStack() as stack:
        if hasattr(pipe, "encode_prompt"):
            stack.enter_context(_observed(pipe, "encode_prompt", lambda _, result: clock.know(*result[:2])))
        # Modular pipelines pass their embeddings to a guider, which evaluates each in a separate call.
        guider = getattr(pipe, "guider", None)
        if hasattr(guider, "prepare_inputs"):

            def observe(given: tuple[Any, ...], _: Any) -> None:
                cond, uncond = given[0]["prompt_embeds"]
                clock.know(cond, uncond, apart=True)

            stack.enter_context(_observed(guider, "prepare_inputs", observe))
        yield


@contextmanager
def _observed(owner: Any, name: str, observe: Callable[[tuple[Any, ...], Any], None]) -> Iterator[None]:
    """Wrap a method so that ``observe`` gets the arguments and the result of each call."""
    method, own = getattr(owner, name), vars(owner).get(name)

    def observed(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        observe(args, result)
        return result

    setattr(owner, name, observed)
    try:
        yield
    finally:
        delattr(owner, name)
        if own is not None:
            setattr(owner, name, own)
