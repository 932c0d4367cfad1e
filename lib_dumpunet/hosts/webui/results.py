"""Add pictures to the webui's results, after their images, and save them next to the images on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hosts.webui.gallery import Gallery, Written, infotext_of, publish

Shows = Literal["all", "saved", "first"]
"""Which pictures to show: "all" after their images; "saved" only saves them, because another script counts the images;
"first" shows all, and repeats one at the very front, where a plot takes its cell from."""


@dataclass(frozen=True)
class Shown:
    """An image in the webui's gallery, and its parameters."""

    image: Image.Image
    infotext: str


@dataclass
class Outcome:
    """The number of pictures saved next to their images, the explorer pages, and errors."""

    saved: int = 0
    pages: list[Written] = field(default_factory=list)
    problems: dict[str, DumpUNetError] = field(default_factory=dict)


def shown_by(processed: Any) -> list[Shown]:
    """List the images of a job, without grids."""
    first = processed.index_of_first_image
    pairs = zip(processed.images[first:], processed.infotexts[first:], strict=False)
    return [Shown(image, text) for image, text in pairs]


def deliver(gallery: Gallery, processed: Any, plain: Sequence[Shown], *, save: bool, shows: Shows) -> Outcome:
    """Insert each picture after its image in the webui's results, and save it next to the image on disk.

    An image without per-block prompts comes before the one with them. The lists of prompts, seeds and parameters grow
    accordingly, so that each entry still belongs to its picture.
    """
    outcome = Outcome()
    lists = _Lists(processed)
    for number, places in enumerate(_places(processed)):
        saved = getattr(processed.images[places[0]], "already_saved_as", None) if save else None
        pictures = list(_published(gallery, number, lists.text_of(number), saved, outcome))
        _publish_page(gallery, number, saved, outcome)
        lists.add(number, plain[number : number + 1])
        lists.keep(number, places)
        lists.add(number, pictures)
        if shows == "first" and pictures:
            lists.put_first(pictures[0])
            shows = "all"
    if not processed.images:  # interrupted before the second run has made any
        for number, image in enumerate(plain):
            lists.add(number, [image])
    if shows != "saved":
        lists.install()
    return outcome


def _published(
    gallery: Gallery, number: int, base: str, saved: str | None, outcome: Outcome
) -> Iterable[Shown]:
    """Yield the pictures of an image; one that cannot be saved next to it is shown from its temporary file."""
    for shot in gallery.of_image(number):
        text = infotext_of(shot, base)
        # After a first error, such as a full disk, saving others would fail too.
        for place in [saved, None] if saved is not None and not outcome.problems else [None]:
            try:
                image = publish(shot, text, place)
            except HostError as error:
                outcome.problems.setdefault(str(error), error)
            else:
                outcome.saved += place is not None
                yield Shown(image, text)
                break


def _publish_page(gallery: Gallery, number: int, saved: str | None, outcome: Outcome) -> None:
    """Save the page of an image next to it; if that fails, keep its temporary file."""
    for place in [saved, None] if saved is not None else [None]:
        try:
            page = gallery.publish_page(number, place)
        except HostError as error:
            outcome.problems.setdefault(str(error), error)
        else:
            outcome.pages += [page] if page is not None else []
            break


def _places(processed: Any) -> list[range]:
    """Return the positions of each image in the results: one, or several if masks follow each image."""
    first = processed.index_of_first_image
    count = len(processed.images) - first
    texts = len(processed.infotexts) - first
    each = count // texts if texts > 0 and count > texts and count % texts == 0 else 1
    return [range(start, start + each) for start in range(first, first + count, each)]


class _Lists:
    """The webui's lists of images and parameters, while pictures are inserted."""

    PER_IMAGE = ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds")

    def __init__(self, processed: Any) -> None:
        self._processed = processed
        first = processed.index_of_first_image
        self._images = list(processed.images[:first])
        self._texts = list(processed.infotexts[:first])
        self._numbers: list[int] = []

    def text_of(self, number: int) -> str:
        """Return the parameters of an image; masks have none."""
        texts = self._processed.infotexts
        place = self._processed.index_of_first_image + number
        return str(texts[min(place, len(texts) - 1)] if texts else self._processed.info)

    def keep(self, number: int, places: range) -> None:
        """Append an image, with the masks that follow it."""
        self.add(number, [Shown(self._processed.images[i], self.text_of(number)) for i in places])

    def add(self, number: int, shown: Iterable[Shown]) -> None:
        """Append pictures of an image."""
        for one in shown:
            self._images.append(one.image)
            self._texts.append(one.infotext)
            self._numbers.append(number)

    def put_first(self, shown: Shown) -> None:
        """Insert a picture at the very front, before grids: of a cell's lists, a plot uses only the first picture."""
        self._images.insert(0, shown.image)
        self._texts.insert(0, shown.infotext)

    def install(self) -> None:
        """Replace the lists."""
        self._processed.images, self._processed.infotexts = self._images, self._texts
        if self._texts:
            self._processed.info = self._texts[0]  # shown until a picture is clicked
        for name in self.PER_IMAGE:
            values = getattr(self._processed, name, None)
            if values and self._numbers and max(self._numbers) < len(values):
                setattr(self._processed, name, [values[number] for number in self._numbers])
