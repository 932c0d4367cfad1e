"""Put what a generation gives into a folder, and collect the pictures of many along the way."""

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
    """Saves images and pictures with the parameters that made them; ``say`` is told of what takes much room."""

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
        """Take a picture of what was seen, and tell where it is; several threads may do so at once."""
        for sheet in () if picture.is_plain else self._sheets.values():
            sheet.add(picture)
        parameters = f"{self._job.parameters(picture.tag.image)}, {picture.caption}"
        return self._folder.save_picture(picture, {"parameters": parameters})

    def plain(self, number: int, image: Image.Image) -> None:
        """Take an image without per-block prompts, to be compared to the one of the same number that will come."""
        self._plain[number] = image
        self._folder.save_image(
            f"{number:03}-plain", image, {"parameters": self._job.plain_parameters(number)}
        )

    def image(self, number: int, image: Image.Image) -> None:
        """Take an image."""
        parameters = {"parameters": self._job.parameters(number)}
        self._folder.save_image(f"{number:03}", image, parameters)
        plain = self._plain.pop(number, None)
        if plain is not None:
            try:
                self._folder.save_change(f"{number:03}-difference", draw_change(plain, image), parameters)
            except HostError as error:  # the images themselves are there
                self._problems.append(error)

    def page(self, page: Page) -> None:
        """Take an explorer page."""
        self._say(page.about)
        self._folder.save_page(f"{page.image:03}", page.html)

    def save_sheets(self) -> list[DumpUNetError]:
        """Save the pictures of many; returns what went wrong, here or with pictures of changes."""
        for name, collected in self._sheets.items():
            sheet = collected.draw()
            if sheet is not None:
                try:
                    self._folder.save_sheet(name, sheet, {"parameters": self._job.parameters(0)})
                except HostError as error:
                    self._problems.append(error)
        return self._problems
