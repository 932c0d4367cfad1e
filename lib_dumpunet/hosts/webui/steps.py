"""Which sampling step an evaluation of the model belongs to.

Samplers evaluate the model once or several times in a step, and not all of them tell the webui how often. Those in
k-diffusion's style go through the steps in a loop, so its index is read from the running function.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any

from lib_dumpunet.hosts.webui import compat

INDEX = "i"
"""The loop's variable in k-diffusion's samplers, and in those of the webui and its successors."""


def step_counter(p: Any, *, hires: bool) -> Callable[[int], int]:
    """Return a function from the number of an evaluation in a pass, from 0, to the sampling step, from 1.

    It must be called from inside the sampler. Without a loop over steps, as in DPM adaptive, it counts evaluations as
    the webui's prompt schedules do.
    """
    counted = _count(compat.sampler_name(p, hires=hires))
    is_loop = False

    def step_of(evaluation: int) -> int:
        nonlocal is_loop
        index = _loop_index(p.sampler)
        if evaluation == 0:
            is_loop = index == 0  # else the variable belongs to another loop
        return index + 1 if is_loop and index is not None else counted(evaluation)

    return step_of


def _count(sampler: str) -> Callable[[int], int]:
    if sampler == "PLMS":  # its first step takes a second evaluation
        return lambda evaluation: max(1, evaluation)
    per_step = compat.evaluations_per_step(sampler)
    return lambda evaluation: evaluation // per_step + 1


def _loop_index(sampler: Any) -> int | None:
    """Read the index from the sampler's function, which is on the stack; None if it has none."""
    code = _code(getattr(sampler, "func", None))
    frame = sys._getframe(1) if code is not None else None
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    index = None if frame is None else frame.f_locals.get(INDEX)
    return index if isinstance(index, int) else None


def _code(function: Any) -> CodeType | None:
    while isinstance(function, partial):
        function = function.func
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return code if isinstance(code, CodeType) else None
