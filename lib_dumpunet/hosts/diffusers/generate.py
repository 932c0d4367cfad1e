"""Generate images with a diffusers pipeline while capturing and steering its U-Net."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from PIL import Image

from lib_dumpunet.assemble import Generation
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hosts.common.runs import open_runs
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock
from lib_dumpunet.hosts.diffusers.job import Job
from lib_dumpunet.hosts.diffusers.loading import block_table
from lib_dumpunet.hosts.diffusers.sampling import Progress, Sample, Sampler, SamplingCallbacks, give_all
from lib_dumpunet.models.describe import describe
from lib_dumpunet.ports import Page, Picture
from lib_dumpunet.resolve import needs_table
from lib_dumpunet.settings import Settings
from lib_dumpunet.sinks.request import DumpRequest


@dataclass
class Outcome:
    """The outcome of a request: the number of images, whether it was stopped, and errors."""

    images: int = 0
    was_stopped: bool = False
    problems: list[DumpUNetError] = field(default_factory=list)


@dataclass(frozen=True)
class ResultHandlers:
    """Callbacks for results. Several worker threads may call ``picture`` at once; the others run on one thread.

    For a difference, ``plain`` gets each image without per-block prompts before ``image`` gets the one with them.
    ``preview`` gets unfinished images. ``stopped`` is called often; once it returns True, sampling ends, and the
    results so far are delivered.
    """

    image: Callable[[int, Image.Image], None]
    picture: Callable[[Picture], object]
    progress: Progress
    plain: Callable[[int, Image.Image], None] = lambda number, image: None
    page: Callable[[Page], None] = lambda page: None
    preview: Callable[[Image.Image], None] | None = None
    stopped: Callable[[], bool] | None = None


class DiffusersHost:
    """The core's host for one request."""

    def __init__(self, clock: SchedulerClock, outlet: ResultHandlers) -> None:
        self.clock = clock
        self._outlet = outlet

    def show(self, picture: Picture) -> None:
        """Pass a picture on."""
        self._outlet.picture(picture)

    def write_page(self, page: Page) -> None:
        """Pass an explorer page on."""
        self._outlet.page(page)


def generate(pipe: Any, job: Job, settings: Settings, outlet: ResultHandlers) -> Outcome:
    """Run a job, passing pictures and images on as they are finished; the pipeline is left unchanged.

    An error in sampling ends the job, an error in saving an image ends it after the batch; both are in the outcome.

    Raises:
        SettingsError: for a mistake, before sampling.
    """
    host = DiffusersHost(SchedulerClock(pipe), outlet)
    callbacks = SamplingCallbacks(outlet.progress, outlet.preview, outlet.stopped)
    sampler = Sampler(pipe, job, host.clock, callbacks, runs=2 if settings.difference.enabled else 1)
    steered = sampler.condition(job.plan)
    generation = Generation(
        dump_request(pipe, job, with_table=needs_table(settings)),
        job.width,
        job.height,
        steered.texts,
        steered.steering if job.plan.has_brackets else None,
    )
    outcome = Outcome()

    def without_brackets() -> Generation:
        return replace(generation, texts=sampler.condition(job.plan.plain).texts, steering=None)

    with ExitStack() as stack:
        opening = open_runs(describe(pipe.unet), settings, host, generation, without_brackets)
        runs = stack.enter_context(opening)
        stack.enter_context(sampler)
        plain = sampler.condition(job.plan.plain) if runs.compares else None
        try:
            for images in job.batches:
                faults: list[HostError] = []
                if plain is not None:
                    with runs.plain():
                        samples = sampler.sample(plain, images)
                    faults += give_all(outlet.plain, images, samples)
                    _finish(runs.finish_plain, images, samples)
                if not sampler.was_stopped:
                    with runs.steered():
                        samples = sampler.sample(steered, images)
                        lost = give_all(outlet.image, images, samples)
                        outcome.images += len(samples) - len(lost)
                        _finish(runs.finish, images, samples)
                    faults += lost
                outcome.was_stopped = sampler.was_stopped
                faults += [sampler.fault] if sampler.fault is not None else []
                for fault in faults:
                    runs.report(fault)
                if faults or sampler.was_stopped:
                    break
        except HostError as error:  # keep the results so far
            runs.report(error)
    outcome.problems = runs.problems
    if host.clock.trouble is not None and host.clock.trouble not in outcome.problems:
        outcome.problems.append(host.clock.trouble)
    return outcome


def _finish(finish: Callable[[int, Image.Image], None], images: range, samples: Sequence[Sample]) -> None:
    """Finish the images of a batch; a stopped batch may have none."""
    for index, sample in zip(images, samples, strict=False):
        finish(index, sample.image)


def dump_request(pipe: Any, job: Job, *, with_table: bool) -> DumpRequest:
    """Collect the metadata of dumps and pages; the block table takes a moment."""
    table = (
        {row.block: asdict(row) for row in block_table(pipe.unet.config, job.width, job.height)}
        if with_table
        else {}
    )
    return DumpRequest(
        prompts=job.prompts,
        negative_prompts=(job.sampling.negative,),
        seeds=job.seeds,
        sampler=job.sampler,
        guidance=job.sampling.guidance,
        steps=job.sampling.steps,
        model=job.model,
        blocks=table,
    )
