"""The folder and files with a command's results."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from itertools import count
from pathlib import Path

from PIL import Image

from lib_dumpunet.errors import HostError
from lib_dumpunet.image.draw import png_bytes
from lib_dumpunet.kinds import KINDS
from lib_dumpunet.ports import Picture
from lib_dumpunet.sinks.files import FIELD, explain, is_full, prepare_folder, remove_abandoned, write_whole

MARK = ".dumpunet-run"
"""An empty file that marks a folder with a run's results."""


class ResultFolder:
    """A folder with the images of one run, and their pictures, pages and dumps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: list[Path] = []
        self.pictures: list[Path] = []
        self.sheets: dict[str, Path] = {}
        self.texts: list[Path] = []
        self.changes: list[Path] = []
        self.pages: list[Path] = []
        self.is_full = False
        """Whether the disk is full, so that an image needed the reserved space."""
        self._lock = threading.Lock()
        self._room = 0

    @property
    def dump(self) -> Path:
        """The folder for dumps."""
        return self.path / "dump"

    def keep_room(self, size: int) -> None:
        """Reserve disk space for images, in bytes, before anything else takes it.

        Raises:
            HostError: if there is not enough space.
        """
        self._room = size
        try:
            # Random bytes, because zeros take no space on a compressing file system.
            write_whole(self._room_file, [os.urandom(size)])
        except OSError as error:
            problem, remedy = explain(error)
            raise HostError(f"{problem}, so no image could be saved", remedy=remedy, field=FIELD) from error

    def save_image(self, name: str, image: Image.Image, info: dict[str, str]) -> None:
        """Write a generated image, using the reserved space if the disk is full."""
        path = self.path / f"{name}.png"
        try:
            self._write(path, image, info)
        except HostError as error:
            if not is_full(error) or not self._room_file.exists():
                raise
            self.is_full = True
            self._room_file.unlink()
            self._write(path, image, info)
            with suppress(HostError):  # keep the remaining space for the other images of the batch
                self.keep_room(max(0, self._room - path.stat().st_size))
        self.images.append(path)

    def give_room_back(self) -> None:
        """Release the reserved disk space."""
        self._room_file.unlink(missing_ok=True)

    @property
    def _room_file(self) -> Path:
        return self.path / ".room"

    def save_picture(self, picture: Picture, info: dict[str, str]) -> Path:
        """Write a picture and return its path; several threads may call this at once."""
        path = self.path / KINDS[picture.tag.kind].folder / f"{picture.stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write(path, picture.image, info)
        with self._lock:
            self.pictures.append(path)
        return path

    def save_sheet(self, name: str, sheet: Image.Image, info: dict[str, str]) -> None:
        """Write an overview picture, such as that of all average maps."""
        path = self.path / f"{name}.png"
        self._write(path, sheet, info)
        self.sheets[name] = path

    def save_change(self, name: str, image: Image.Image, info: dict[str, str]) -> None:
        """Write a picture of how two images differ, next to them."""
        path = self.path / f"{name}.png"
        self._write(path, image, info)
        self.changes.append(path)

    def save_page(self, name: str, html: bytes) -> None:
        """Write an explorer page, next to the image of the same name."""
        path = self.path / f"{name}.html"
        self._write_bytes(path, html)
        self.pages.append(path)

    def save_text(self, name: str, text: str) -> None:
        """Write a text file, such as a table."""
        path = self.path / name
        self._write_bytes(path, text.encode("utf-8"))
        self.texts.append(path)

    def by_room(self) -> dict[str, list[Path]]:
        """Group the pictures by their folder."""
        rooms: dict[str, list[Path]] = {}
        for path in self.pictures:
            rooms.setdefault(path.parent.name, []).append(path)
        return rooms

    def _write(self, path: Path, image: Image.Image, info: dict[str, str]) -> None:
        self._write_bytes(path, png_bytes(image, info))

    def _write_bytes(self, path: Path, data: bytes) -> None:
        try:
            try:
                write_whole(path, [data])
            except FileNotFoundError:  # the folder was removed in the meantime
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, [data])
        except OSError as error:
            problem, remedy = explain(error)
            raise HostError(f"{path} could not be written, {problem}", remedy=remedy, field=FIELD) from error


def open_results(path: str | None) -> ResultFolder:
    """Create a folder for the results of one run.

    Earlier results are never overwritten: if the folder contains results, the run gets a folder ``run-2``, ``run-3``
    ... inside it.

    Raises:
        SettingsError: if it cannot be created or written to.
    """
    folder = prepare_folder("dumpunet-out" if path is None else path)
    for inner in (*folder.glob("*/"), *folder.glob("run-*/*/")):
        remove_abandoned(inner)
    candidates = (folder if n == 1 else folder / f"run-{n}" for n in count(1))
    return ResultFolder(next(candidate for candidate in candidates if _claim(candidate)))


def _claim(folder: Path) -> bool:
    """Claim a folder for one run, unless another run has it, even one that starts at the same moment."""
    prepare_folder(folder)
    if any(folder.glob("*.png")):
        return False
    try:
        (folder / MARK).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
