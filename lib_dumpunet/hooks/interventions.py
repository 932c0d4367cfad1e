"""What is changed while the U-Net runs, and in which order: texts, then edits; what is captured comes after both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from lib_dumpunet.hooks.reading import Report
from lib_dumpunet.hooks.steer import Steering, steer
from lib_dumpunet.models.model import Model
from lib_dumpunet.ports import Clock

Stage = Literal["text", "edit"]
STAGES: Sequence[Stage] = ("text", "edit")
"""The order in which interventions are put on: hooks on one module run in the order in which they came."""


class Intervention(Protocol):
    """A change of what blocks read or put out, told as data; it is put on for each run of the sampler."""

    @property
    def stage(self) -> Stage:
        """What it changes: the text that blocks read, or activations."""

    def put_on(self, model: Model, clock: Clock, report: Report) -> AbstractContextManager[None]:
        """Change what it changes while the ``with`` lasts; ``report`` hears of what could not be."""


@dataclass(frozen=True)
class TextPerBlock:
    """Blocks read texts of their own."""

    steering: Steering
    stage: Stage = "text"

    def put_on(self, model: Model, clock: Clock, report: Report) -> AbstractContextManager[None]:
        """Replace what the blocks' cross-attention reads."""
        return steer(model, self.steering, clock, report)


@contextmanager
def intervening(
    model: Model, interventions: Sequence[Intervention], clock: Clock, report: Report
) -> Iterator[None]:
    """Put interventions on, stage by stage, in whatever order they are given."""
    with ExitStack() as stack:
        for stage in STAGES:
            for intervention in interventions:
                if intervention.stage == stage:
                    stack.enter_context(intervention.put_on(model, clock, report))
        yield
