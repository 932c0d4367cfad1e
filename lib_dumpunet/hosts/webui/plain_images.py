"""The images without per-block prompts, which are made first where the two are compared."""

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
    """Makes them by a job of its own, within the one that they belong to."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        """Those that have been made."""
        self.under_way = False
        """Whether they are being made."""
        self._lists: dict[str, list[Any]] = {}

    def make(self, p: Any) -> None:
        """Make them; where the webui fails, so does the sampling of ``p``."""
        processing.fix_seed(p)
        # A copy, not a new object, which would be set up anew by the page's values.
        plain = copy(p)
        plain.extra_generation_params = _without_parameters(p.extra_generation_params)
        plain.override_settings = dict(p.override_settings)
        plain.styles = list(p.styles)
        jobs = shared.state.job_count
        shared.state.job_count = jobs + p.n_iter if jobs > 0 else 2 * p.n_iter
        self.under_way = True
        # Both begin with the same state: in img2img the webui takes a random sample when it encodes the image.
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
        """Let the images use the prompts and seeds of these, whatever extensions have filled in meanwhile."""
        if self.under_way:
            if batch == 0:
                self._lists = filled_in(p)
        elif any(values != self._lists.get(name) for name, values in filled_in(p).items()):
            put_back(p, self._lists, batch)


def _without_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Take out what only counts with per-block prompts, from the parameters of an image that has none."""
    return {
        name: value for name, value in parameters.items() if not name.startswith(PREFIX) and value != TITLE
    }


def _raise(error: Exception, *_: object, **__: object) -> NoReturn:
    raise error
