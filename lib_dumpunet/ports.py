"""What a host provides to the core: the current step and batch rows, and somewhere to show pictures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from PIL import Image

from lib_dumpunet.captures import PLAIN, Branch, Tag
from lib_dumpunet.kinds import KINDS, Role


class BatchRow(NamedTuple):
    """Identifies a row of the U-Net's batch: its image, and whether it belongs to the prompt or the negative prompt.

    A prompt of several parts, which the host combines into one prediction (``AND`` in the webui), has a row for each
    part; ``part`` counts them from 0. Only the first part is captured.
    """

    image: int
    branch: Branch
    part: int = 0


class ModelCall(NamedTuple):
    """One call of the U-Net: the sampling step, from 1, and its batch rows in order.

    ``step`` 0 marks a call that belongs to no sampling step; nothing is captured from it. ``hires`` marks the second
    pass of a hires fix, which counts its steps from 1 again. ``is_extra`` marks a call that does not evaluate the image
    itself, but for example a reference beside it: it reads the blocks' texts, and is not captured.
    """

    step: int
    rows: tuple[BatchRow, ...]
    hires: bool = False
    is_extra: bool = False


class Clock(Protocol):
    """Tells the current step and batch rows, which only a host knows."""

    def now(self) -> ModelCall:
        """Return the current U-Net call."""


@dataclass(frozen=True)
class Picture:
    """A picture to show: ``role`` distinguishes pictures of the same tag, ``info`` has captions by name.

    ``numbers`` has statistics of the tensor by name, such as ``"max": "4.13"``. ``is_plain`` marks pictures of the run
    without per-block prompts, if there is also a run with them.
    """

    image: Image.Image
    tag: Tag
    role: Role
    info: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    is_plain: bool = False

    @property
    def title(self) -> str:
        """The end of its file name, which depends on the role: ``average``; empty for the whole of most kinds."""
        return KINDS[self.tag.kind].titles.get(self.role, "")

    @property
    def caption(self) -> str:
        """The info as one line, ``Layer Name: OUT11, Feature Steps: 20``."""
        return ", ".join(f"{name}: {value}" for name, value in self.info.items())

    @property
    def stem(self) -> str:
        """File name without extension, the same on every host: ``000-OUT11-020-unet``, ``000-OUT11-020-unet-plain``."""
        return "-".join(filter(None, (self.tag.stem, self.title, PLAIN * self.is_plain)))

    def as_plain(self) -> Picture:
        """Return a copy marked as a picture of the run without per-block prompts."""
        return replace(self, info={**self.info, "Run": PLAIN}, is_plain=True)


@dataclass(frozen=True)
class Page:
    """A self-contained HTML file about one image; ``about`` is a sentence on its size and anything left out."""

    image: int
    html: bytes
    about: str


class Host(Protocol):
    """The program around the core. Several worker threads may call ``show`` at once."""

    @property
    def clock(self) -> Clock: ...

    def show(self, picture: Picture) -> None:
        """Take a finished picture."""

    def write_page(self, page: Page) -> None:
        """Write an explorer page; only one thread calls this at a time.

        Raises:
            HostError: if it cannot be written.
        """
