"""Read the outputs of blocks while the U-Net runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_dumpunet.blocks import spans
from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.ports import Clock
from lib_dumpunet.unet.sites import Unet

log = logging.getLogger("dumpunet")

Emit = Callable[[Capture], None]
Report = Callable[[DumpUNetError], None]


@dataclass(frozen=True)
class Want:
    """Which blocks to read in which sampling steps."""

    blocks: tuple[str, ...]
    steps: Container[int]


@contextmanager
def capture_blocks(unet: Unet, want: Want, clock: Clock, emit: Emit, report: Report) -> Iterator[None]:
    """Emit the output of each wanted block as it comes, one capture for each image of the prompt's rows.

    Of several U-Net calls within one step, the first that has an image's row counts. Nothing that goes wrong here
    reaches the sampler: capturing stops and ``report`` hears of it, and of hooks that the first call did not reach.
    """
    with HookSet() as hooks:

        def stop(error: DumpUNetError) -> None:
            hooks.remove()
            report(error)

        taps = [_Tap(site.block, want, clock, emit, stop) for site in unet.sites if site.block in want.blocks]
        for tap in taps:
            hooks.after(unet.sites[unet.order.index(tap.block)].output, tap)
        watch = _FirstCall(taps, stop)
        hooks.after(unet.module, watch)
        yield


class _Tap:
    """A hook on one block's output."""

    def __init__(self, block: str, want: Want, clock: Clock, emit: Emit, stop: Report) -> None:
        self.block = block
        self.fired = False
        self._want, self._clock, self._emit, self._stop = want, clock, emit, stop
        self._step = 0
        self._seen: set[Tag] = set()

    def __call__(self, output: Tensor) -> None:
        self.fired = True
        try:
            for capture in self._captures(output):
                self._emit(capture)
        except Exception as error:  # whatever it is, the image must come out
            log.debug("reading block %s failed", self.block, exc_info=True)
            self._stop(
                HostError(
                    f"block {self.block} could not be read ({error})", remedy="The image is not affected."
                )
            )

    def _captures(self, output: Tensor) -> Iterator[Capture]:
        moment = self._clock.now()
        if moment.step < 1 or moment.step not in self._want.steps:
            return
        if moment.step != self._step:
            self._step = moment.step
            self._seen.clear()
        if len(moment.rows) != len(output):
            raise HostError(
                f"the U-Net's batch has {len(output)} rows where {len(moment.rows)} were expected"
            )
        rows, tags = [], []
        for index, row in enumerate(moment.rows):
            tag = Tag(row.image, moment.step, self.block)
            if row.branch == "cond" and tag not in self._seen:
                rows.append(index)
                tags.append(tag)
        self._seen.update(tags)
        if rows:
            tensor, ready = copy_rows(output, rows)
            yield from (Capture(tag, row, ready) for tag, row in zip(tags, tensor, strict=True))


class _FirstCall:
    """Checks, after the first U-Net call, that every tap was reached."""

    def __init__(self, taps: Sequence[_Tap], stop: Report) -> None:
        self._taps = taps
        self._stop = stop
        self._done = False

    def __call__(self, _: Tensor) -> None:
        dead = tuple(tap.block for tap in self._taps if not tap.fired)
        if dead and not self._done:
            self._stop(
                HostError(
                    f"nothing came from {spans(dead)} in the first U-Net call, so capturing was stopped",
                    remedy="Likely causes: torch.compile, TensorRT or another replacement of the U-Net, or an "
                    "extension that skips these blocks. Switch it off and try again.",
                )
            )
        self._done = True


def copy_rows(batch: Tensor, rows: Sequence[int]) -> tuple[Tensor, Callable[[], None]]:
    """Copy rows of a tensor "b ..." to the CPU, and give a function that waits until the copy is complete.

    A copy is made even on the CPU: FreeU and ControlNet change block outputs in place. From a CUDA device it goes to
    pinned memory and is not waited for, so that sampling goes on.
    """
    first, last = rows[0], rows[-1]
    adjoining = last - first + 1 == len(rows)
    part = batch.detach()[first : last + 1] if adjoining else batch.detach()[list(rows)]
    if part.device.type != "cuda":
        return (part.to("cpu", copy=True) if adjoining or part.device.type != "cpu" else part), _done
    target = torch.empty(part.shape, dtype=part.dtype, device="cpu", pin_memory=True)
    target.copy_(part, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(part.device))
    return target, event.synchronize


def _done() -> None:
    return None
