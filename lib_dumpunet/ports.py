"""What the program around the core supplies: time, and a place to put pictures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from PIL import Image

from lib_dumpunet.captures import PLAIN, Branch, Tag
from lib_dumpunet.kinds import KINDS, Role


class BatchRow(NamedTuple):
    """Whose a row of the U-Net's batch is: which image, and the prompt or the negative prompt.

    A prompt of several parts, which a host combines to one prediction (``AND`` in the webui), has a row for each;
    ``part`` counts them from 0. The first stands for the prompt where it is looked at.
    """

    image: int
    branch: Branch
    part: int = 0


class ModelCall(NamedTuple):
    """One call of the U-Net: the sampler's step, from 1, and the owner of each batch row in order.

    ``step`` 0 stands for a call that belongs to no step of the sampler; nothing is captured from it. ``hires`` tells
    the second pass of a hires fix, which has steps of its own, from 1.
    """

    step: int
    rows: tuple[BatchRow, ...]
    hires: bool = False


class Clock(Protocol):
    """Only a host knows which step and whose rows the U-Net is working on."""

    def now(self) -> ModelCall:
        """Return the U-Net call that is under way."""


@dataclass(frozen=True)
class Picture:
    """A picture to show: ``role`` tells those of one tag apart, ``info`` has its captions by name.

    ``numbers`` tells of the numbers that it shows, by name, such as ``"max": "4.13"``. ``is_plain`` tells those of a
    run without per-block prompts, beside which there is one with them.
    """

    image: Image.Image
    tag: Tag
    role: Role
    info: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    is_plain: bool = False

    @property
    def title(self) -> str:
        """The end of its name, which tells those of one tag apart: ``average``; empty for the whole of most kinds."""
        return KINDS[self.tag.kind].titles.get(self.role, "")

    @property
    def caption(self) -> str:
        """The info as one line, ``Layer Name: OUT11, Feature Steps: 20``."""
        return ", ".join(f"{name}: {value}" for name, value in self.info.items())

    @property
    def stem(self) -> str:
        """File name without ending, the same for every host: ``000-OUT11-020-unet``, ``000-OUT11-020-unet-plain``."""
        return "-".join(filter(None, (self.tag.stem, self.title, PLAIN * self.is_plain)))

    def as_plain(self) -> Picture:
        """Mark it as one of the run without per-block prompts."""
        return replace(self, info={**self.info, "Run": PLAIN}, is_plain=True)


@dataclass(frozen=True)
class Page:
    """A self-contained HTML file about one image; ``about`` says in a sentence how large it is, and what it lacks."""

    image: int
    html: bytes
    about: str


class Host(Protocol):
    """The program around the core. ``show`` is called from worker threads, several at once."""

    @property
    def clock(self) -> Clock: ...

    def show(self, picture: Picture) -> None:
        """Take a finished picture."""

    def write_page(self, page: Page) -> None:
        """Write an explorer page; called from one thread at a time.

        Raises:
            HostError: if it cannot be written.
        """
