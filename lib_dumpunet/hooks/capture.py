"""Capture the outputs of blocks while the U-Net runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.reading import Emit, FirstCall, Picker, Report, copy_rows, guarded, stopping
from lib_dumpunet.hooks.streams import CallStreams
from lib_dumpunet.kinds import Kind
from lib_dumpunet.models.model import Block, Model
from lib_dumpunet.plan import CaptureRequest
from lib_dumpunet.ports import Clock


@contextmanager
def capture_blocks(
    model: Model, want: CaptureRequest, clock: Clock, emit: Emit, report: Report
) -> Iterator[None]:
    """Emit the output of each wanted block, one capture for each image, from the prompt's batch rows.

    If a step has several U-Net calls, the first with an image's row counts. Errors never reach the sampler: capturing
    stops, and ``report`` gets the error; it also gets one if the first call did not reach all hooks.
    """
    with HookSet() as hooks:
        stop = stopping(hooks, report)
        streams = CallStreams(model)
        streams.install(hooks)
        taps: list[_Tap] = []
        for block in model.blocks:
            if block.name in want.blocks:
                taps.append(_Tap(block, want.kind, Picker(want.steps, clock), emit, stop, streams))
                hooks.around(block.output.module, taps[-1])
        hooks.after(model.module, FirstCall(taps, stop))
        yield


class _Tap:
    """A hook on one block's output."""

    def __init__(
        self, block: Block, kind: Kind, picker: Picker, emit: Emit, stop: Report, streams: CallStreams
    ) -> None:
        self.block = block.name
        self.fired = False
        self._port, self._streams = block.output, streams
        self._kind, self._picker, self._emit, self._stop = kind, picker, emit, stop

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self.fired = True
        with guarded(self.block, self._stop):
            image = self._port.read(output, self._streams.now)
            model_call, rows = self._picker.pick(len(image))
            if rows:
                tensor, ready = copy_rows(image, list(rows))
                for row, part in zip(rows.values(), tensor, strict=True):
                    tag = Tag(row.image, model_call.step, self.block, self._kind, hires=model_call.hires)
                    self._emit(Capture(tag, part, ready))
