"""Save the results of a generation to a folder, and collect maps for overview pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from lib_dumpunet.app.overview import Overview, WordSheet
from lib_dumpunet.app.results import ResultFolder
from lib_dumpunet.blocks import BlockOrder
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hosts.diffusers.job import Job
from lib_dumpunet.image.compare import draw_change
from lib_dumpunet.ports import Page, Picture


class Collector:
    """Saves images, pictures and pages with their generation parameters; ``say`` gets a message about each page."""

    def __init__(
        self,
        folder: ResultFolder,
        job: Job,
        order: BlockOrder,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder, self._job, self._say = folder, job, say
        self._sheets: dict[str, Overview | WordSheet] = {
            "overview": Overview(order),
            "differences": Overview(order, "difference"),
            "words": WordSheet(job.prompts[0], job.sampling.negative),
        }
        self._plain: dict[int, Image.Image] = {}
        self._problems: list[DumpUNetError] = []

    def picture(self, picture: Picture) -> Path:
        """Save a picture and return its path; several threads may call this at once."""
        for sheet in () if picture.is_plain else self._sheets.values():
            sheet.add(picture)
        parameters = f"{self._job.parameters(picture.tag.image)}, {picture.caption}"
        return self._folder.save_picture(picture, {"parameters": parameters})

    def plain(self, number: int, image: Image.Image) -> None:
        """Save an image without per-block prompts, and keep it to compare with the image of the same number."""
        self._plain[number] = image
        self._folder.save_image(
            f"{number:03}-plain", image, {"parameters": self._job.plain_parameters(number)}
        )

    def image(self, number: int, image: Image.Image) -> None:
        """Save an image, and how it differs from the plain one if there is one."""
        parameters = {"parameters": self._job.parameters(number)}
        self._folder.save_image(f"{number:03}", image, parameters)
        plain = self._plain.pop(number, None)
        if plain is not None:
            try:
                self._folder.save_change(f"{number:03}-difference", draw_change(plain, image), parameters)
            except HostError as error:  # the images themselves are saved
                self._problems.append(error)

    def page(self, page: Page) -> None:
        """Save an explorer page."""
        self._say(page.about)
        self._folder.save_page(f"{page.image:03}", page.html)

    def save_sheets(self) -> list[DumpUNetError]:
        """Save the overview pictures; return all errors, including those in ``image``."""
        for name, collected in self._sheets.items():
            sheet = collected.draw()
            if sheet is not None:
                try:
                    self._folder.save_sheet(name, sheet, {"parameters": self._job.parameters(0)})
                except HostError as error:
                    self._problems.append(error)
        return self._problems
