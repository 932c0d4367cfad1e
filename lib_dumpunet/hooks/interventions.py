"""Change what the U-Net computes: first texts, then edits; captures come after both."""

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
"""The order in which interventions are installed; hooks on a module run in the order of installation."""


class Intervention(Protocol):
    """A change to the inputs or outputs of blocks, described as data and installed for each run of the sampler."""

    @property
    def stage(self) -> Stage:
        """What it changes: the text that blocks read, or activations."""

    def put_on(self, model: Model, clock: Clock, report: Report) -> AbstractContextManager[None]:
        """Install the change for the duration of the ``with``; ``report`` gets errors."""


@dataclass(frozen=True)
class TextPerBlock:
    """Gives each block its own text."""

    steering: Steering
    stage: Stage = "text"

    def put_on(self, model: Model, clock: Clock, report: Report) -> AbstractContextManager[None]:
        """Replace the text that the blocks' cross-attention reads."""
        return steer(model, self.steering, clock, report)


@contextmanager
def intervening(
    model: Model, interventions: Sequence[Intervention], clock: Clock, report: Report
) -> Iterator[None]:
    """Install interventions stage by stage."""
    with ExitStack() as stack:
        for stage in STAGES:
            for intervention in interventions:
                if intervention.stage == stage:
                    stack.enter_context(intervention.put_on(model, clock, report))
        yield
