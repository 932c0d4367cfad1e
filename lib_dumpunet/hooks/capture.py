"""Read the outputs of blocks while the U-Net runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.reading import Emit, FirstCall, Picker, Report, copy_rows, guarded, stopping
from lib_dumpunet.kinds import Kind
from lib_dumpunet.plan import CaptureRequest
from lib_dumpunet.ports import Clock
from lib_dumpunet.unet.sites import Unet


@contextmanager
def capture_blocks(
    unet: Unet, want: CaptureRequest, clock: Clock, emit: Emit, report: Report
) -> Iterator[None]:
    """Emit the output of each wanted block as it comes, one capture for each image of the prompt's rows.

    Of several U-Net calls within one step, the first that has an image's row counts. Nothing that goes wrong here
    reaches the sampler: capturing stops and ``report`` hears of it, and of hooks that the first call did not reach.
    """
    with HookSet() as hooks:
        stop = stopping(hooks, report)
        taps = [
            _Tap(site.block, want.kind, Picker(want.steps, clock), emit, stop)
            for site in unet.sites
            if site.block in want.blocks
        ]
        for tap in taps:
            hooks.after(unet.sites[unet.order.index(tap.block)].output, tap)
        hooks.after(unet.module, FirstCall(taps, stop))
        yield


class _Tap:
    """A hook on one block's output."""

    def __init__(self, block: str, kind: Kind, picker: Picker, emit: Emit, stop: Report) -> None:
        self.block = block
        self.fired = False
        self._kind, self._picker, self._emit, self._stop = kind, picker, emit, stop

    def __call__(self, output: Tensor) -> None:
        self.fired = True
        with guarded(self.block, self._stop):
            moment, rows = self._picker.pick(len(output))
            if rows:
                tensor, ready = copy_rows(output, list(rows))
                for row, part in zip(rows.values(), tensor, strict=True):
                    tag = Tag(row.image, moment.step, self.block, self._kind, hires=moment.hires)
                    self._emit(Capture(tag, part, ready))
