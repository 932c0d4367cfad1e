"""Captures, which flow from the hooks to the sinks, and the tags that identify them; ``kinds.py`` lists their kinds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lib_dumpunet.kinds import FEATURE, Kind, of_image

if TYPE_CHECKING:  # torch takes a second to import; reading settings and drawing files work without it
    from torch import Tensor

Branch = Literal["cond", "uncond"]

PLAIN = "plain"
"""Marks results of the run without per-block prompts in names, captions and folders."""


@dataclass(frozen=True, order=True)
class Tag:
    """Identifies a captured tensor.

    ``image`` counts from 0 over a whole request, ``step`` is the sampling step, from 1. ``layer`` is the index of the
    attention layer inside the block, from 0; it is also 0 for kinds with one tensor per block. A word or point is a
    mean over blocks and steps: its ``block`` is empty, its ``step`` is 0, and ``name`` is the word or point. ``branch``
    is "uncond" for words of the negative prompt. ``hires`` marks the second pass of a hires fix, which counts its steps
    from 1 again; words and points are means over both passes.
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
        """The step for display: ``20``, or ``hr20`` in a hires pass."""
        return f"hr{self.step}" if self.hires else str(self.step)

    @property
    def stem(self) -> str:
        """Start of file names: ``000-OUT11-020``, ``000-IN07-020-qk2`` (second layer), ``000-word-red_circle``,
        ``000-OUT11-020-difference``, ``000-OUT11-hr020`` (hires pass).

        Different tags have different stems, even on file systems that ignore case.
        """
        if of_image(self.kind):
            what = "negative" if self.branch == "uncond" else self.kind
            return f"{self.image:03}-{what}-{slug(self.name)}"
        layer = "" if self.kind == FEATURE else f"-{self.kind}{self.layer + 1 if self.layer else ''}"
        return f"{self.image:03}-{self.block}-{'hr' * self.hires}{self.step:03}{layer}"


LONGEST_SLUG = 40  # characters


def slug(text: str) -> str:
    """Turn a text into a part of a file name: other characters than letters and digits become ``_``.

    A hash is appended where different texts could give the same name.
    """
    kept = "".join(c if c.isalnum() else "_" for c in text.casefold())[:LONGEST_SLUG]
    if kept.replace("_", " ") == text:
        return kept
    return f"{kept}_{hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=3).hexdigest()}"


def _nothing() -> None:
    return None


@dataclass(frozen=True, eq=False)
class Capture:
    """One tensor of one image, on the CPU, with the axes of its kind.

    The copy from a GPU may still be in progress: call ``ready``, which waits for it, before reading ``tensor``. The
    queue between hooks and sinks does this, so sinks can read at once.
    """

    tag: Tag
    tensor: Tensor
    ready: Callable[[], None] = field(default=_nothing, repr=False)
