"""Composition root: settings, a U-Net and a host become hooks, a queue and sinks for one run of the sampler."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.hooks.capture import Want, capture_blocks
from lib_dumpunet.ports import Clock, Host
from lib_dumpunet.prompt.selection import select_blocks, select_steps
from lib_dumpunet.settings import FeatureSettings, Settings
from lib_dumpunet.sinks.base import Fanout, Sink
from lib_dumpunet.sinks.dump import DumpRequest, DumpSink
from lib_dumpunet.sinks.picture import PictureSink
from lib_dumpunet.unet.sites import Unet


@dataclass
class Session:
    """A run that is being watched; ``problems`` is complete once the run's ``with`` has ended."""

    problems: list[DumpUNetError] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """Settings resolved against a model and a number of steps; making one finds every mistake before sampling."""

    want: Want
    sinks: tuple[Sink, ...]


@contextmanager
def open_session(
    unet: Unet, settings: Settings, host: Host, request: DumpRequest, *, ratio: float = 1.0
) -> Iterator[Session]:
    """Watch what the host samples inside the ``with``, as ``settings`` ask.

    Args:
        request: what is generated; its ``expected`` is filled in here.
        ratio: width / height of the images.
    Raises:
        SettingsError: for a mistake in the settings, before anything is hooked. What goes wrong later is in
            ``problems`` and does not disturb the sampler.
    """
    session = Session()
    plan = make_plan(unet, settings.features, host, request, ratio)
    if plan is None:
        yield session
        return
    with record(unet, plan.want, host.clock, plan.sinks, session.problems):
        yield session


@contextmanager
def record(
    unet: Unet, want: Want, clock: Clock, sinks: Sequence[Sink], problems: list[DumpUNetError]
) -> Iterator[None]:
    """Let captures flow from the hooks to the sinks; ``problems`` gets what went wrong on the way."""
    queue = Fanout(sinks)
    try:
        with capture_blocks(unet, want, clock, queue.put, problems.append):
            yield
    finally:
        try:
            queue.close()
        finally:
            problems.extend(queue.problems)


def make_plan(
    unet: Unet, features: FeatureSettings, host: Host, request: DumpRequest, ratio: float
) -> Plan | None:
    """Resolve the settings; None if nothing is to be captured."""
    if not features.enabled:
        return None
    blocks = select_blocks(features.layers, unet.order)
    steps: Container[int] = frozenset(select_steps(features.steps, request.steps))
    sinks: list[Sink] = [PictureSink(features, ratio, host.show)]
    if features.dump.enabled:
        expected = replace(request, expected=frozenset(blocks))
        sinks.append(DumpSink(features.dump.path, features.dump.format, expected))
    return Plan(Want(blocks, steps), tuple(sinks))
