"""The files that a command leaves."""

from __future__ import annotations

import threading
from pathlib import Path

from PIL import Image

from lib_dumpunet.image.draw import png_bytes
from lib_dumpunet.ports import Picture
from lib_dumpunet.sinks.files import prepare_folder, write_whole


class ResultFolder:
    """A folder with the images of one run, and the pictures and dumps that belong to them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: list[Path] = []
        self.pictures: list[Path] = []
        self.overview: Path | None = None
        self._lock = threading.Lock()

    @property
    def dump(self) -> Path:
        """Where dumps go."""
        return self.path / "dump"

    def save_image(self, name: str, image: Image.Image, info: dict[str, str]) -> None:
        """Write a generated image."""
        path = self.path / f"{name}.png"
        self._write(path, image, info)
        self.images.append(path)

    def save_picture(self, picture: Picture, info: dict[str, str]) -> None:
        """Write a picture of what was seen; several threads may do so at once."""
        path = self.path / "features" / f"{picture.stem}.png"
        path.parent.mkdir(exist_ok=True)
        self._write(path, picture.image, info)
        with self._lock:
            self.pictures.append(path)

    def save_overview(self, sheet: Image.Image, info: dict[str, str]) -> None:
        """Write the picture of all average maps."""
        self.overview = self.path / "overview.png"
        self._write(self.overview, sheet, info)

    def _write(self, path: Path, image: Image.Image, info: dict[str, str]) -> None:
        data = png_bytes(image, info)
        write_whole(path, [data])


def open_results(path: Path | None) -> ResultFolder:
    """Make a folder for the results of one run.

    Earlier results are never overwritten: where the folder holds some, the run gets a folder ``run-2``, ``run-3`` ...
    inside it.

    Raises:
        SettingsError: if it cannot be made or written to.
    """
    folder = prepare_folder(path or Path("dumpunet-out"))
    number = 1
    inner = folder
    while any(inner.glob("*.png")) or (inner / "dump").exists() or (inner / "features").exists():
        number += 1
        inner = folder / f"run-{number}"
    return ResultFolder(prepare_folder(inner))
