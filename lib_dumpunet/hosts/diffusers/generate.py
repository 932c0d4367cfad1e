"""Make images with a diffusers pipeline while looking into its U-Net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image

from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hosts.diffusers.clock import SchedulerClock
from lib_dumpunet.hosts.diffusers.job import Job
from lib_dumpunet.hosts.diffusers.loading import block_table
from lib_dumpunet.hosts.diffusers.sampling import Onlooker, Progress, Sampler, give_all
from lib_dumpunet.planning import Subject, needs_table
from lib_dumpunet.ports import Page, Picture
from lib_dumpunet.session import open_session
from lib_dumpunet.settings import Settings
from lib_dumpunet.sinks.dump import DumpRequest
from lib_dumpunet.unet.sites import describe


@dataclass
class Outcome:
    """What a request gave: how many images came out, whether it was stopped, and what went wrong on the way."""

    images: int = 0
    was_stopped: bool = False
    problems: list[DumpUNetError] = field(default_factory=list)


@dataclass(frozen=True)
class Outlet:
    """Where results go. ``picture`` is called from several worker threads at once, the others are not.

    ``plain`` gets each image as it is without per-block prompts, before the image itself, where the two are compared.
    ``preview`` gets images as they grow. ``stopped`` is asked all the time; once it says so, sampling ends, and what
    has come so far is given out.
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

    def __init__(self, pipe: Any, outlet: Outlet) -> None:
        self.clock = SchedulerClock(pipe)
        self._outlet = outlet

    def show(self, picture: Picture) -> None:
        """Pass a picture on."""
        self._outlet.picture(picture)

    def write_page(self, page: Page) -> None:
        """Pass an explorer page on."""
        self._outlet.page(page)


def generate(pipe: Any, job: Job, settings: Settings, outlet: Outlet) -> Outcome:
    """Run the job, showing pictures and images as they come; the pipeline is left as it was found.

    A fault of sampling ends the job, one of saving an image ends it after its batch; it is told in the outcome.

    Raises:
        SettingsError: for a mistake, before sampling.
    """
    host = DiffusersHost(pipe, outlet)
    onlooker = Onlooker(outlet.progress, outlet.preview, outlet.stopped)
    sampler = Sampler(pipe, job, host.clock, onlooker, runs=2 if settings.difference.enabled else 1)
    steered, plain = sampler.condition(job.plan), None
    subject = Subject(
        dump_request(pipe, job, with_table=needs_table(settings)),
        job.width,
        job.height,
        steered.texts,
        steered.steering if job.plan.has_brackets else None,
    )
    outcome = Outcome()
    with open_session(describe(pipe.unet), settings, host, subject) as session, sampler:
        outcome.problems = session.problems
        if session.compares:
            plain = sampler.condition(job.plan.plain)
        try:
            for images in job.batches:
                faults: list[HostError] = []
                if plain is not None:
                    with session.plain_run():
                        faults += give_all(outlet.plain, images, sampler.sample(plain, images))
                if not sampler.was_stopped:
                    with session.run():
                        samples = sampler.sample(steered, images)
                        lost = give_all(outlet.image, images, samples)
                        outcome.images += len(samples) - len(lost)
                        for index, sample in zip(images, samples, strict=False):
                            session.finish(index, sample.image)
                    faults += lost
                outcome.was_stopped = sampler.was_stopped
                faults += [sampler.fault] if sampler.fault is not None else []
                if faults or sampler.was_stopped:
                    session.problems += faults
                    break
        except HostError as error:  # what came before it is worth telling
            session.problems.append(error)
    if host.clock.trouble is not None and host.clock.trouble not in outcome.problems:
        outcome.problems.append(host.clock.trouble)
    return outcome


def dump_request(pipe: Any, job: Job, *, with_table: bool) -> DumpRequest:
    """Collect what dumps and pages say about themselves; the block table takes a moment."""
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
