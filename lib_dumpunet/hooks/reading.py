"""Common parts of all capturing hooks: choosing batch rows, copying them, and handling errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from lib_dumpunet.blocks import spans
from lib_dumpunet.captures import Branch, Capture
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.ports import BatchRow, Clock, ModelCall

log = logging.getLogger("dumpunet")

Emit = Callable[[Capture], None]
Report = Callable[[DumpUNetError], None]
Ready = Callable[[], None]


class Picker:
    """Chooses the batch rows of a U-Net call to capture.

    If a step has several calls, the first with an image's row counts; of a prompt with several parts, the first part.
    """

    def __init__(self, steps: Container[int], clock: Clock, branches: Sequence[Branch] = ("cond",)) -> None:
        self._steps, self._clock, self._branches = steps, clock, branches
        self._step = (False, 0)
        self._seen: set[BatchRow] = set()

    @property
    def is_wanted(self) -> bool:
        """Whether the current call evaluates the images in a wanted step."""
        model_call = self._clock.now()
        return model_call.step >= 1 and model_call.step in self._steps and not model_call.is_extra

    def pick(self, count: int) -> tuple[ModelCall, dict[int, BatchRow]]:
        """Return the current U-Net call, and the rows to take from a batch of ``count`` rows, by index.

        Raises:
            HostError: if the clock expects another number of rows.
        """
        model_call = self._clock.now()
        if not self.is_wanted:
            return model_call, {}
        if (model_call.hires, model_call.step) != self._step:
            self._step = model_call.hires, model_call.step
            self._seen.clear()
        require_rows(model_call, count)
        picked: dict[int, BatchRow] = {}
        for index, row in enumerate(model_call.rows):
            if row.branch in self._branches and not row.part and row not in self._seen:
                picked[index] = row
                self._seen.add(row)
        return model_call, picked


def require_rows(model_call: ModelCall, count: int) -> None:
    """Check that a batch of ``count`` rows is the one that the clock expects.

    Raises:
        HostError: if not.
    """
    if not model_call.rows:
        raise HostError(
            f"it is not known which images the {count} rows of the U-Net's batch belong to",
            remedy="Another extension adds rows, or changes the prompts' embeddings; turn it off.",
        )
    if len(model_call.rows) != count:
        raise HostError(f"the U-Net's batch has {count} rows, but {len(model_call.rows)} were expected")


class Tap(Protocol):
    """A hook on a part of a block; ``fired`` says whether it has ever run."""

    block: str
    fired: bool


def stopping(hooks: HookSet, report: Report) -> Report:
    """Return a report function that first removes the hooks, so that capturing stops."""

    def stop(error: DumpUNetError) -> None:
        hooks.remove()
        report(error)

    return stop


@contextmanager
def guarded(block: str, stop: Report) -> Iterator[None]:
    """Keep errors away from the sampler, so that the image is always generated."""
    try:
        yield
    except Exception as error:
        log.debug("reading block %s failed", block, exc_info=True)
        remedy = "The image is not affected."
        if isinstance(error, DumpUNetError):
            reason, remedy = error.problem, f"{error.remedy} {remedy}".strip()
        else:
            reason = str(error)
        stop(HostError(f"block {block} could not be read: {reason}", remedy=remedy))


NOTHING = "nothing came from {blocks} in the first U-Net call, so capturing was stopped"


class FirstCall:
    """Checks after the first U-Net call that every tap has run; ``problem`` is the message if not."""

    def __init__(self, taps: Sequence[Tap], stop: Report, problem: str = NOTHING) -> None:
        self._taps, self._stop, self._problem = taps, stop, problem
        self._done = False

    def __call__(self, _: Tensor) -> None:
        dead = tuple(dict.fromkeys(tap.block for tap in self._taps if not tap.fired))
        if dead and not self._done:
            self._stop(
                HostError(
                    self._problem.format(blocks=spans(dead)),
                    remedy="Likely causes: torch.compile, TensorRT or another replacement of the U-Net, or an "
                    "extension that skips these blocks. Turn it off and try again.",
                )
            )
        self._done = True


def copy_rows(batch: Tensor, rows: Sequence[int]) -> tuple[Tensor, Ready]:
    """Copy rows of a tensor "b ..." to the CPU; also return a function that waits until the copy is complete.

    The rows are copied even on the CPU, because FreeU and ControlNet change block outputs in place.
    """
    first, last = rows[0], rows[-1]
    if last - first + 1 != len(rows):
        return to_cpu(batch.detach()[list(rows)])
    part = batch.detach()[first : last + 1]
    return to_cpu(part.clone() if part.device.type == "cpu" else part)


def to_cpu(tensor: Tensor) -> tuple[Tensor, Ready]:
    """Copy a tensor to the CPU unless it is there; also return a function that waits until the copy is complete.

    From a CUDA device it is copied to pinned memory asynchronously, so that sampling continues.
    """
    if tensor.device.type != "cuda":
        return tensor.to("cpu"), _done
    target = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    target.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(tensor.device))
    return target, event.synchronize


def _done() -> None:
    return None
