"""The vocabulary of the stream that flows from the hooks to the sinks; ``kinds.py`` says what kinds there are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lib_dumpunet.kinds import FEATURE, Kind, of_image

if TYPE_CHECKING:  # reading settings and drawing files need no torch, which takes a second to import
    from torch import Tensor

Branch = Literal["cond", "uncond"]

PLAIN = "plain"
"""Marks what is of a run without per-block prompts, beside one with them: in names, captions and folders."""


@dataclass(frozen=True, order=True)
class Tag:
    """What a tensor is: ``image`` counts from 0 over a whole request, ``step`` from 1 as the sampler's own.

    ``layer`` is the n-th attention layer inside the block, from 0; 0 too for what a block has only one of. A word or
    point is a mean over blocks and steps: its ``block`` is empty and its ``step`` 0, and ``name`` says which word or
    point. ``branch`` is "uncond" for words of the negative prompt. ``hires`` tells the second pass of a hires fix,
    which counts its steps from 1 again; words and points are means over both passes.
    """

    image: int
    step: int
    block: str
    kind: Kind = FEATURE
    layer: int = 0
    name: str = ""
    branch: Branch = "cond"
    hires: bool = False

    @property
    def when(self) -> str:
        """The step for people: ``20``, ``hr20`` in a hires pass."""
        return f"hr{self.step}" if self.hires else str(self.step)

    @property
    def stem(self) -> str:
        """Start of the names of files: ``000-OUT11-020``, ``000-IN07-020-qk2`` (second layer), ``000-word-red_circle``,
        ``000-OUT11-020-difference``, ``000-OUT11-hr020`` (hires pass).

        Different tags have different stems, on file systems that ignore case too.
        """
        if of_image(self.kind):
            what = "negative" if self.branch == "uncond" else self.kind
            return f"{self.image:03}-{what}-{slug(self.name)}"
        layer = "" if self.kind == FEATURE else f"-{self.kind}{self.layer + 1 if self.layer else ''}"
        return f"{self.image:03}-{self.block}-{'hr' * self.hires}{self.step:03}{layer}"


LONGEST_SLUG = 40  # characters


def slug(text: str) -> str:
    """Make a text fit for a file name: letters and digits of any script, all else ``_``; told apart by a hash."""
    kept = "".join(c if c.isalnum() else "_" for c in text.casefold())[:LONGEST_SLUG]
    if kept.replace("_", " ") == text:
        return kept
    return f"{kept}_{hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=3).hexdigest()}"


def _nothing() -> None:
    return None


@dataclass(frozen=True, eq=False)
class Capture:
    """One tensor of one image, on the CPU, with the axes of its kind.

    A copy from an accelerator may still be under way: ``ready`` waits for it and must be called before ``tensor``
    is read. The queue between hooks and sinks does so, hence a sink may read at once.
    """

    tag: Tag
    tensor: Tensor
    ready: Callable[[], None] = field(default=_nothing, repr=False)
