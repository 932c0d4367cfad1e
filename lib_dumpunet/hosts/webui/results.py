"""Pictures on their way into the webui's gallery: on disk as soon as they are drawn, beside their image at the end."""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.image.draw import png_bytes, with_text
from lib_dumpunet.ports import Picture
from lib_dumpunet.sinks.files import explain, write_whole

log = logging.getLogger("dumpunet")

KEPT = 4
"""Jobs whose pictures stay on disk for the page to show, where they were not saved beside their images."""
_folders: deque[Path] = deque()


@dataclass(frozen=True)
class Shot:
    """A picture that was drawn, in a file without its parameters yet."""

    tag: Tag
    stem: str
    caption: dict[str, str]
    file: Path


class Gallery:
    """Collects the pictures of one job; memory holds none of them."""

    def __init__(self) -> None:
        self._folder = _new_folder()
        self._shots: list[Shot] = []
        self._lock = threading.Lock()

    def show(self, picture: Picture) -> None:
        """Take a picture; several threads may do so at once.

        Raises:
            HostError: if it cannot be written.
        """
        stem = stem_of(picture)
        file = self._folder / f"{picture.tag.image:03}-{stem}.png"
        try:
            write_whole(file, [png_bytes(picture.image, {})])
        except OSError as error:
            problem, remedy = explain(error)
            raise HostError(
                f"a picture could not be written to {self._folder}, {problem}", remedy=remedy
            ) from error
        with self._lock:
            self._shots.append(Shot(picture.tag, stem, dict(picture.info), file))

    def of_image(self, image: int) -> list[Shot]:
        """List the pictures of an image: by pass, what they show, block, step; averages ahead of their grids."""
        return sorted((shot for shot in self._shots if shot.tag.image == image), key=_order)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._shots)


def stem_of(picture: Picture) -> str:
    """Name a picture, without its image's number: ``unet-OUT11-020``, ``qk-IN07-hr005``, ``word-red_circle``."""
    _, _, rest = picture.tag.stem.partition("-")
    if picture.tag.kind in ("word", "point"):
        return rest
    block, step, *kind = rest.split("-")
    return "-".join([*kind, *([picture.title] if picture.title else []), block, step])


def publish(shot: Shot, infotext: str, beside: str | None) -> Image.Image:
    """Give a picture its parameters and its place: beside the image of the path ``beside``, or where it is.

    The image that is returned reads its file only when someone looks at the pixels.

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
    image.is_dumpunet_picture = True  # type: ignore[attr-defined]
    return image


def infotext_of(shot: Shot, base: str) -> str:
    """Add what a picture shows to the parameters of its image, so that the webui can read it as those of an image."""
    return ", ".join([base, *(f"{name}: {_quoted(value)}" for name, value in shot.caption.items())])


def _quoted(value: str) -> str:
    """Quote a value as the webui does in its parameters."""
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ',:\n"') else value


_KINDS: Sequence[str] = ("difference", "feature", "word", "point", "qk", "k", "vqk", "self", "pca")


def _order(shot: Shot) -> tuple[Any, ...]:
    tag = shot.tag
    group = {"IN": 0, "M": 1, "OUT": 2}.get(tag.block.rstrip("0123456789"), 3)
    kind = _KINDS.index(tag.kind) if tag.kind in _KINDS else len(_KINDS)
    # "unet-average" stands ahead of "unet", and so does an average of any kind.
    return (
        kind,
        tag.hires,
        group,
        tag.block,
        tag.step,
        tag.site,
        tag.name,
        "average" not in shot.stem,
        shot.stem,
    )


def _free(stem: str) -> Path:
    """Find a name that no file has."""
    names = (Path(f"{stem}.png"), *(Path(f"{stem}-{n}.png") for n in range(1, 1000)))
    return next((name for name in names if not name.exists()), names[-1])


class _Reopened(io.RawIOBase):
    """A file that is open only while it is read: a gallery may have more pictures than a process may have files."""

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


def _new_folder() -> Path:
    """Make a folder for the pictures of a job, and remove those of jobs long past."""
    if not _folders:
        atexit.register(_clear)
    while len(_folders) >= KEPT:
        shutil.rmtree(_folders.popleft(), ignore_errors=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix="dumpunet-"))
    except OSError as error:
        problem, remedy = explain(error)
        raise HostError(f"no folder for pictures could be made, {problem}", remedy=remedy) from error
    _folders.append(folder)
    return folder


def _clear() -> None:
    while _folders:
        shutil.rmtree(_folders.popleft(), ignore_errors=True)


@dataclass(frozen=True)
class Shown:
    """An image as the webui shows it, and its parameters."""

    image: Image.Image
    infotext: str


def shown_by(processed: Any) -> list[Shown]:
    """List the images of a job, without grids."""
    first = processed.index_of_first_image
    pairs = zip(processed.images[first:], processed.infotexts[first:], strict=False)
    return [Shown(image, text) for image, text in pairs]


def deliver(
    gallery: Gallery, processed: Any, plain: Sequence[Shown], *, save: bool, plain_first: bool
) -> list[DumpUNetError]:
    """Put each picture behind its image in what the webui is going to show; returns what went wrong.

    An image without per-block prompts stands beside the one with them, ahead of it if ``plain_first``. Lists that go
    with the gallery grow with it, so that seeds and parameters stay those of the picture that they belong to.
    """
    problems: dict[str, DumpUNetError] = {}
    out = _Lists(processed)
    for number, places in enumerate(_places(processed)):
        beside = plain[number : number + 1]
        if plain_first:
            out.add(number, beside)
        out.keep(number, places)
        if not plain_first:
            out.add(number, beside)
        source = processed.images[places[0]]
        saved = getattr(source, "already_saved_as", None) if save else None
        for shot in gallery.of_image(number):
            text = infotext_of(shot, out.text_at(places[0]))
            try:
                out.add(number, [Shown(publish(shot, text, saved), text)])
            except HostError as error:
                problems.setdefault(str(error), error)
    if not processed.images:  # interrupted before the second run has made any
        for number, image in enumerate(plain):
            out.add(number, [image])
    out.install()
    return list(problems.values())


def first_picture_first(processed: Any) -> None:
    """Let a picture stand where a plot of many jobs takes its cell from."""
    index = next(
        (i for i, image in enumerate(processed.images) if hasattr(image, "is_dumpunet_picture")), None
    )
    if index is not None:
        for values in (processed.images, processed.infotexts):
            values.insert(0, values.pop(index))


def _places(processed: Any) -> list[range]:
    """Find the images among what is shown: each takes as many places, as masks may follow it."""
    first = processed.index_of_first_image
    count = len(processed.images) - first
    texts = len(processed.infotexts) - first
    each = count // texts if texts > 0 and count > texts and count % texts == 0 else 1
    return [range(start, start + each) for start in range(first, first + count, each)]


class _Lists:
    """What the webui shows and tells, as it grows."""

    PER_IMAGE = ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds")

    def __init__(self, processed: Any) -> None:
        self._processed = processed
        first = processed.index_of_first_image
        self._images = list(processed.images[:first])
        self._texts = list(processed.infotexts[:first])
        self._numbers: list[int] = []

    def text_at(self, place: int) -> str:
        """Give the parameters of what stands in a place; the webui may have fewer of them than images."""
        texts = self._processed.infotexts
        return str(texts[min(place, len(texts) - 1)] if texts else self._processed.info)

    def keep(self, number: int, places: range) -> None:
        """Take over an image, with the masks that follow it."""
        self.add(number, [Shown(self._processed.images[i], self.text_at(places[0])) for i in places])

    def add(self, number: int, shown: Iterable[Shown]) -> None:
        """Put something of an image here."""
        for one in shown:
            self._images.append(one.image)
            self._texts.append(one.infotext)
            self._numbers.append(number)

    def install(self) -> None:
        """Replace the lists."""
        self._processed.images, self._processed.infotexts = self._images, self._texts
        for name in self.PER_IMAGE:
            values = getattr(self._processed, name, None)
            if values and max(self._numbers, default=0) < len(values):
                setattr(self._processed, name, [values[number] for number in self._numbers])
