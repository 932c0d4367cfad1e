"""The extension's two scripts: the panel in the Script dropdown, and an always-on script that does the work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gradio as gr
from modules import processing, scripts, shared

from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hosts.common.log_capture import TITLE
from lib_dumpunet.hosts.webui import axes, brackets, compat, options
from lib_dumpunet.hosts.webui.host import Refused, is_api, refusal, refuse, tell, was_refused
from lib_dumpunet.hosts.webui.job_settings import REQUEST, other_script, read_arguments, settings_of
from lib_dumpunet.hosts.webui.page import build_page, paste_fields
from lib_dumpunet.hosts.webui.request import Request
from lib_dumpunet.hosts.webui.results import Shown, Shows
from lib_dumpunet.settings.infotext import to_infotext

log = logging.getLogger("dumpunet")

JOB, INSIDE = "dumpunet_job", "dumpunet_inside"
"""Attributes set on the webui's job: its ``Request``, and whether another extension began it inside another job, as
detailers do."""


class Current:
    """The running job; the webui runs one at a time."""

    job: Request | None = None


class AlwaysOnScript(scripts.Script):
    """Does the work in every job that has settings for it, whichever script generates the images."""

    def title(self) -> str:
        """Return the panel's title, so that the API has one name; the API finds this class as it comes first here."""
        return TITLE

    def show(self, is_img2img: bool) -> Any:
        """Make the script always on."""
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        """Return one hidden control, whose value is the dictionary of settings from the API."""
        box = gr.Textbox(label=f"{TITLE} settings", value="", visible=False)
        box.do_not_save_to_config = True
        return [box]

    def before_process(self, p: Any, given: Any = "", *_: Any) -> None:
        """Begin a job if its settings ask for anything."""
        current = Current.job
        setattr(p, INSIDE, False)
        if current is not None:
            if current.makes_images and current.task == str(shared.state.job_timestamp):
                setattr(p, JOB, None)
                setattr(p, INSIDE, True)
                return
            if current.is_plain:
                return
        end_job()
        setattr(p, JOB, None)
        try:
            job = _job_for(p, given)
        except DumpUNetError as error:
            refuse(p, error)
            return
        if job is not None:
            Current.job = job
            setattr(p, JOB, job)
            _guard(p, job, lambda: job.begin(p))

    def before_process_batch(self, p: Any, *_: Any, batch_number: int = 0, **__: Any) -> None:
        """Check everything: prompts of other extensions are final now, and no sampling would be lost."""
        job = _job_of(p)
        if job is not None:
            _guard(p, job, lambda: job.prepare(p, batch_number))
        elif batch_number == 0 and not getattr(p, INSIDE, False):
            brackets.warn_of_brackets(p)

    def process_batch(self, p: Any, *_: Any, batch_number: int = 0, **__: Any) -> None:
        """Replace a batch's prompts by the texts that the webui should encode."""
        job = _job_of(p)
        if job is not None:
            _guard(p, job, lambda: job.begin_batch(p, batch_number))
        elif getattr(p, INSIDE, False):
            p.prompts = [brackets.erased(text) for text in p.prompts]
            p.negative_prompts = [brackets.erased(text) for text in p.negative_prompts]

    def before_hr(self, p: Any, *_: Any) -> None:
        """Begin the second pass of a hires fix."""
        job = _job_of(p)
        if job is not None:
            job.begin_hires(p)

    def postprocess_batch(self, p: Any, *_: Any, **__: Any) -> None:
        """End sampling."""
        job = _job_of(p)
        if job is not None:
            job.end_sampling()

    def postprocess_image(self, p: Any, pp: Any, *_: Any) -> None:
        """Finish an image and its pictures."""
        job = _job_of(p)
        if job is not None:
            _lenient(p, lambda: job.finish_image(p, pp.image))

    def postprocess(self, p: Any, processed: Any, *_: Any) -> None:
        """End the job."""
        job = _job_of(p)
        if job is None:
            return
        _lenient(p, lambda: job.finish(p, processed))
        if not job.is_plain:
            end_job()


class Panel(scripts.Script):
    """The entry in the Script dropdown."""

    def __init__(self) -> None:
        self._size: dict[str, Any] = {}

    def title(self) -> str:
        """Return the entry's name."""
        return TITLE

    def show(self, is_img2img: bool) -> bool:
        """Show the entry on both pages."""
        return True

    def ui(self, is_img2img: bool) -> list[Any]:
        """Build the panel from the settings, anew at each call."""
        tab = "img2img" if is_img2img else "txt2img"
        controls, panel = build_page(tab, compat.on_this_page(self._size.values()))
        self.infotext_fields = paste_fields(panel)
        self.paste_field_names = [str(name) for _, name in self.infotext_fields]
        return controls

    def after_component(self, component: Any, **given: Any) -> None:
        """Keep the page's width and height controls."""
        tab = "img2img" if self.is_img2img else "txt2img"
        for side in ("width", "height"):
            if given.get("elem_id") == f"{tab}_{side}":
                self._size[side] = component

    def run(self, p: Any, *args: Any) -> Any:
        """Generate the images; ``AlwaysOnScript`` does what the settings ask for."""
        p.extra_generation_params["Script"] = TITLE
        try:
            settings = read_arguments(args)
        except DumpUNetError as error:
            if is_api(p):
                raise refusal(p, error) from None
            refuse(p, error)
            return _nothing(p)
        if not settings.wants_anything:
            tell(
                p,
                "nothing is selected. Tick Extract U-Net features, Extract attention or Enable Layer Prompt, "
                "or choose None as the script.",
            )
        setattr(p, REQUEST, settings)
        try:
            return processing.process_images(p)
        except Refused:
            return _nothing(p)
        except DumpUNetError as error:  # per-block prompts failed during sampling
            if is_api(p):
                raise
            tell(p, str(error))
            return _nothing(p)
        except IndexError:  # webui 1.6 cannot end a job that has no images
            if was_refused(p):
                return _nothing(p)
            if shared.state.interrupted and Current.job is not None and Current.job.plain_images:
                return _shown(p, Current.job.plain_images)
            raise
        finally:
            end_job()


def on_denoiser(params: Any) -> None:
    """Follow the sampler; called by the webui before each evaluation of the model."""
    job = Current.job
    if job is not None:
        job.see_denoiser(params)


def end_job() -> None:
    """End the running job, and remove its hooks."""
    job, Current.job = Current.job, None
    if job is not None:
        job.abandon()


def _job_for(p: Any, given: Any) -> Request | None:
    """Make the ``Request`` of a job; None if the settings ask for nothing.

    Raises:
        DumpUNetError: for a mistake in the settings, or if pictures cannot be shown or saved.
    """
    settings = settings_of(p, given, _panel_of(p))
    if settings is None or not settings.wants_anything:
        return None
    p.extra_generation_params = {**p.extra_generation_params, **to_infotext(settings)}
    return Request(settings, shows=_what_to_show(p), threads=options.threads())


def _panel_of(p: Any) -> Panel | None:
    selectable = getattr(p.scripts, "selectable_scripts", [])
    return next((script for script in selectable if isinstance(script, Panel)), None)


def _what_to_show(p: Any) -> Shows:
    """Decide which pictures to add to the images: other scripts count images, and a plot takes the first."""
    if axes.shows_map(p):
        return "first"
    return "saved" if other_script(p, _panel_of(p)) and not hasattr(p, REQUEST) else "all"


def _job_of(p: Any) -> Request | None:
    """Return the ``Request`` of ``p`` if it is the running one."""
    job = getattr(p, JOB, None)
    return job if job is not None and job is Current.job else None


def _guard(p: Any, job: Request, action: Callable[[], None]) -> None:
    """Run an action before sampling; an error ends the job, as the webui would swallow it and sample anyway."""
    try:
        action()
    except DumpUNetError as error:
        job.refuse(p, error)
    except Exception as error:
        log.exception("preparing a job failed")
        job.refuse(p, HostError(f"preparing failed ({type(error).__name__}: {error})"))


def _lenient(p: Any, action: Callable[[], None]) -> None:
    """Run an action after sampling; an error is only reported, so that the images are kept."""
    try:
        action()
    except Exception as error:
        log.exception("finishing a job failed")
        tell(p, f"finishing failed ({type(error).__name__}: {error}). The images are not affected.")


def _shown(p: Any, images: list[Shown]) -> Any:
    texts = [one.infotext for one in images]
    return processing.Processed(p, [one.image for one in images], p.seed, texts[0], infotexts=texts)


def _nothing(p: Any) -> Any:
    return processing.Processed(p, [], p.seed, "")
