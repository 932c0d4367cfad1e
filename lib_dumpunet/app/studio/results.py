"""The results of a run so far: images, pictures and pages in its folder, with thumbnails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from lib_dumpunet.app.collect import Collector
from lib_dumpunet.app.results import ResultFolder
from lib_dumpunet.blocks import BlockOrder
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.hosts.diffusers.job import Job
from lib_dumpunet.kinds import KINDS, Role, of_image
from lib_dumpunet.ports import Page, Picture

SMALL = 256
"""Longest side of a thumbnail, in pixels."""
SMALL_ROOM = ".small"
"""Folder of thumbnails, inside the run's folder."""
ORDER = {row.name: (row.scope != "image", n) for n, row in enumerate(KINDS.values()) if row.heading}
"""The order of kinds that have pictures: words and points first."""


@dataclass(frozen=True)
class Item:
    """A picture, image or page among the results.

    Attributes:
        path, small: paths of the file and of its thumbnail, relative to the run's folder.
        image: number of the image that it belongs to.
        kind: the kind of capture, or "image", "plain" or "page".
        block: name of the block, or the text of a word or point.
        step: the sampling step, for display; empty if it has none.
        role: which picture of a tensor it is.
        order: sort key among the results of its image.
        text: description for display.
        numbers: statistics by name.
    """

    path: str
    small: str
    image: int
    kind: str
    block: str
    order: tuple[object, ...]
    text: str
    step: str = ""
    role: Role = "whole"
    numbers: dict[str, str] = field(default_factory=dict)


class RunResults:
    """Collects the results of a run; several threads may add pictures at once."""

    def __init__(self, folder: ResultFolder, job: Job, order: BlockOrder, say: Callable[[str], None]) -> None:
        self.folder, self._job = folder, job
        self._order = {name: number for number, name in enumerate(order)}
        self._collector = Collector(folder, job, order, say)
        self._items: list[Item] = []
        self._lock = threading.Lock()

    @property
    def items(self) -> list[Item]:
        """All results so far, in display order."""
        with self._lock:
            return sorted(self._items, key=lambda item: (item.image, item.order))

    def image(self, number: int, image: Image.Image) -> None:
        """Take an image."""
        self._collector.image(number, image)
        self._add_made(
            f"{number:03}", number, "image", image, f"image {number}, seed {self._job.seeds[number]}"
        )

    def plain(self, number: int, image: Image.Image) -> None:
        """Take an image without per-block prompts."""
        self._collector.plain(number, image)
        text = f"image {number} without per-block prompts"
        self._add_made(f"{number:03}-plain", number, "plain", image, text)

    def picture(self, picture: Picture) -> None:
        """Take a picture."""
        path = self._collector.picture(picture)
        tag, role = picture.tag, picture.role
        # Words are in prompt order.
        number = self._order[tag.block] if tag.block else self._job.prompts[tag.image].find(tag.name)
        order = (
            2,
            ORDER[tag.kind],
            (number, tag.hires, tag.step, tag.layer, tag.branch, tag.name),
            (picture.is_plain, role != "average", picture.title),
        )
        text = picture.caption if role == "whole" else f"{picture.caption}, {role}"
        block, step = (tag.name, "") if of_image(tag.kind) else (tag.block, tag.when)
        item = Item("", "", tag.image, tag.kind, block, order, text, step, role, picture.numbers)
        self._add(path, picture.image, item)

    def page(self, page: Page) -> None:
        """Take an explorer page."""
        self._collector.page(page)
        with self._lock:
            self._items.append(Item(f"{page.image:03}.html", "", page.image, "page", "", (1,), page.about))

    def finish(self) -> list[DumpUNetError]:
        """Save the overview pictures; return errors."""
        return self._collector.save_sheets()

    def _add_made(self, name: str, number: int, kind: str, image: Image.Image, text: str) -> None:
        numbers = {"size": f"{image.width}×{image.height}"}
        place: tuple[object, ...] = (0, kind == "image")
        self._add(
            self.folder.path / f"{name}.png",
            image,
            Item("", "", number, kind, "", place, text, numbers=numbers),
        )

    def _add(self, path: Path, image: Image.Image, item: Item) -> None:
        small = self._save_small(path, image)
        names = [part.relative_to(self.folder.path).as_posix() for part in (path, small)]
        with self._lock:
            self._items.append(replace(item, path=names[0], small=names[1]))

    def _save_small(self, path: Path, image: Image.Image) -> Path:
        """Write a thumbnail and return its path; return ``path`` if the picture is small or the disk is full."""
        if max(image.size) <= SMALL:
            return path
        room = self.folder.path / SMALL_ROOM
        small = room / path.relative_to(self.folder.path).with_suffix(".webp").as_posix().replace("/", "-")
        copy = image.convert("RGBA" if "A" in image.getbands() else "RGB")
        copy.thumbnail((SMALL, SMALL), Image.Resampling.BOX, reducing_gap=2.0)
        try:
            room.mkdir(exist_ok=True)
            copy.save(small, "WEBP", quality=80, method=0)
        except OSError:
            return path
        return small
