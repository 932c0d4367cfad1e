"""The images without per-block prompts, which a difference generates first."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any, NoReturn

import torch
from modules import processing, shared

from lib_dumpunet.hosts.common.log_capture import TITLE
from lib_dumpunet.hosts.webui.lists import filled_in, put_back
from lib_dumpunet.hosts.webui.results import Shown, shown_by
from lib_dumpunet.settings.fields import PREFIX


class PlainImages:
    """Generates the images without per-block prompts, in a job inside the job that they belong to."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        """The finished images."""
        self.under_way = False
        """Whether the images are being generated."""
        self._lists: dict[str, list[Any]] = {}

    def make(self, p: Any) -> None:
        """Generate the images; if the webui fails, so does the sampling of ``p``."""
        processing.fix_seed(p)
        # A copy, because a new object would be set up again from the page's values.
        plain = copy(p)
        plain.extra_generation_params = _without_parameters(p.extra_generation_params)
        plain.override_settings = dict(p.override_settings)
        plain.styles = list(p.styles)
        jobs = shared.state.job_count
        shared.state.job_count = jobs + p.n_iter if jobs > 0 else 2 * p.n_iter
        self.under_way = True
        # Both jobs start from the same random state: in img2img the webui samples when it encodes the image.
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        try:
            with torch.random.fork_rng(devices):
                processed = processing.process_images(plain)
        except Exception as error:
            p.sample = partial(_raise, error)
        else:
            self.shown = shown_by(processed)
        finally:
            self.under_way = False

    def note_or_repeat(self, p: Any, batch: int) -> None:
        """Note the prompts and seeds of these images, and use them again for ``p``, whatever extensions filled in."""
        if self.under_way:
            if batch == 0:
                self._lists = filled_in(p)
        elif any(values != self._lists.get(name) for name, values in filled_in(p).items()):
            put_back(p, self._lists, batch)


def _without_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Remove this extension's parameters from those of an image without per-block prompts."""
    return {
        name: value for name, value in parameters.items() if not name.startswith(PREFIX) and value != TITLE
    }


def _raise(error: Exception, *_: object, **__: object) -> NoReturn:
    raise error
