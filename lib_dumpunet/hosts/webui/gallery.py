"""Pictures for the webui's gallery: written to disk as soon as they are drawn, moved next to their image at the end."""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lib_dumpunet.captures import PLAIN, Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.image.draw import png_bytes, with_text
from lib_dumpunet.kinds import KINDS, Role, of_image
from lib_dumpunet.ports import Page, Picture
from lib_dumpunet.sinks.files import explain, write_whole

log = logging.getLogger("dumpunet")

KEPT = 4
"""Number of tasks whose pictures stay on disk for the page to show, if they were not saved next to their images."""
_folders: dict[str, list[Path]] = {}
"""Folders of pictures by task of the webui, oldest first."""


@dataclass(frozen=True)
class Shot:
    """A drawn picture in a file, still without parameters."""

    tag: Tag
    role: Role
    stem: str
    caption: dict[str, str]
    file: Path
    is_plain: bool


@dataclass(frozen=True)
class Written:
    """An explorer page on disk, and its description."""

    file: Path
    about: str


class Gallery:
    """Collects the pictures of one job on disk.

    ``task`` identifies what the user started, such as a plot, which may have many jobs. ``rank`` gives the order of an
    image's words and points; by default all are equal.
    """

    def __init__(self, task: str) -> None:
        self.rank: Callable[[Tag], int] = lambda tag: 0
        self._folder = _new_folder(task)
        self._shots: list[Shot] = []
        self._pages: dict[int, Written] = {}
        self._count = 0
        self._lock = threading.Lock()

    def show(self, picture: Picture) -> None:
        """Take a picture; several threads may call this at once.

        Raises:
            HostError: if it cannot be written.
        """
        with self._lock:
            self._count += 1
            file = self._folder / f"{self._count:06}.png"
        self._write(file, png_bytes(picture.image, {}), "a picture")
        with self._lock:
            self._shots.append(
                Shot(picture.tag, picture.role, stem_of(picture), dict(picture.info), file, picture.is_plain)
            )

    def add_page(self, page: Page) -> None:
        """Take an explorer page.

        Raises:
            HostError: if it cannot be written.
        """
        log.info(page.about)
        file = self._folder / f"explorer-{page.image:03}.html"
        self._write(file, page.html, "an explorer page")
        self._pages[page.image] = Written(file, page.about)

    def publish_page(self, image: int, beside: str | None) -> Written | None:
        """Move the page of an image next to the image file ``beside``, if given, and return it; None without a page.

        Raises:
            HostError: if it cannot be written.
        """
        page = self._pages.get(image)
        if page is None or beside is None:
            return page
        place = _free(f"{os.path.splitext(beside)[0]}-dumpunet-explorer", ".html")
        try:
            write_whole(place, [page.file.read_bytes()])
            page.file.unlink(missing_ok=True)
        except OSError as error:
            problem, remedy = explain(error)
            raise HostError(f"{place} could not be written, {problem}", remedy=remedy) from error
        return Written(place, page.about)

    def _write(self, file: Path, data: bytes, what: str) -> None:
        try:
            write_whole(file, [data])
        except OSError as error:
            problem, remedy = explain(error)
            raise HostError(
                f"{what} could not be written to {self._folder}, {problem}", remedy=remedy
            ) from error

    @property
    def count(self) -> int:
        """The number of pictures."""
        return len(self._shots)

    def of_image(self, image: int) -> list[Shot]:
        """List the pictures of an image in order: kind, pass, block, step; averages before their grids."""
        shots = (shot for shot in self._shots if shot.tag.image == image)
        return sorted(shots, key=lambda shot: _order(shot, self.rank(shot.tag)))


def stem_of(picture: Picture) -> str:
    """Return a picture's name without the image number: ``unet-OUT11-020``, ``qk-IN07-hr005``, ``word-red_circle``."""
    _, _, rest = picture.tag.stem.partition("-")
    plain = PLAIN * picture.is_plain
    if of_image(picture.tag.kind):
        return "-".join(filter(None, (rest, picture.title, plain)))
    block, step, *kind = rest.split("-")
    return "-".join(filter(None, (*kind, picture.title, block, step, plain)))


def publish(shot: Shot, infotext: str, beside: str | None) -> Image.Image:
    """Add parameters to a picture, and move it next to the image file ``beside``, if given.

    The returned image reads its file only when its pixels are accessed.

    Raises:
        HostError: if it cannot be written.
    """
    place = shot.file if beside is None else _free(f"{os.path.splitext(beside)[0]}-dumpunet-{shot.stem}")
    try:
        data = with_text(shot.file.read_bytes(), {"parameters": infotext})
        write_whole(place, [data])
        if beside is not None:
            shot.file.unlink(missing_ok=True)
    except OSError as error:
        problem, remedy = explain(error)
        raise HostError(f"{place} could not be written, {problem}", remedy=remedy) from error
    image = Image.open(_Reopened(place))  # type: ignore[arg-type]
    image.already_saved_as = str(place)  # type: ignore[attr-defined]
    return image


def infotext_of(shot: Shot, base: str) -> str:
    """Append a picture's caption to the parameters of its image, in the webui's format."""
    return ", ".join([base, *(f"{name}: {_quoted(value)}" for name, value in shot.caption.items())])


def _quoted(value: str) -> str:
    """Quote a value as the webui does in parameters."""
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ',:\n"') else value


def _order(shot: Shot, rank: int) -> tuple[Any, ...]:
    tag = shot.tag
    group = {"IN": 0, "M": 1, "OUT": 2}.get(tag.block.rstrip("0123456789"), 3)
    return (
        shot.is_plain,
        KINDS[tag.kind].gallery,
        tag.hires,
        group,
        tag.block,
        tag.step,
        tag.layer,
        tag.branch,
        rank,
        tag.name,
        shot.role != "average",
        shot.stem.removesuffix(f"-{PLAIN}"),
    )


def _free(stem: str, ending: str = ".png") -> Path:
    """Return a path that does not exist yet."""
    names = (Path(f"{stem}{ending}"), *(Path(f"{stem}-{n}{ending}") for n in range(1, 1000)))
    return next((name for name in names if not name.exists()), names[-1])


class _Reopened(io.RawIOBase):
    """A file that is open only during reads, because a gallery may have more pictures than a process can open files."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence)
        self._at = offset + (os.path.getsize(self._path) if start is None else start)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        with open(self._path, "rb") as file:
            file.seek(self._at)
            count = file.readinto(buffer)
        self._at += count
        return count


def _new_folder(task: str) -> Path:
    """Create a folder for the pictures of a job, and remove those of old tasks."""
    if not _folders:
        atexit.register(_forget, 0)
    try:
        folder = Path(tempfile.mkdtemp(prefix="dumpunet-"))
    except OSError as error:
        problem, remedy = explain(error)
        raise HostError(f"the folder for pictures could not be created, {problem}", remedy=remedy) from error
    _folders.setdefault(task, []).append(folder)
    _forget(KEPT)
    return folder


def _forget(kept: int) -> None:
    while len(_folders) > kept:
        for folder in _folders.pop(next(iter(_folders))):
            shutil.rmtree(folder, ignore_errors=True)
