"""What to read in a run: settings that have been resolved, as data without a tensor or a module."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from lib_dumpunet.captures import Branch
from lib_dumpunet.kinds import FEATURE, Kind
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.prompt.points import Point
from lib_dumpunet.prompt.texts import WordChoice
from lib_dumpunet.settings import Settings


@dataclass(frozen=True)
class CaptureRequest:
    """Which blocks to read in which sampling steps, and what the captures are called."""

    blocks: tuple[str, ...]
    steps: Container[int]
    kind: Kind = FEATURE


def _same_text(row: BatchRow, block: str, step: int) -> str:
    return ""


@dataclass(frozen=True)
class AttentionRequest:
    """What to read of the attention layers and transformers of which blocks in which sampling steps.

    Attributes:
        lattice: points in a row and in a column of the lattice of ``self``.
        points: places "x y" of the image, as fractions of its width and height, for ``point``.
        branches: whose words to sum up: the prompt's, the negative prompt's, or both.
        text_of: gives the text that a row reads in a block and step; words of different texts are summed up apart.
    """

    blocks: tuple[str, ...]
    steps: Container[int]
    kinds: frozenset[Kind]
    lattice: int = 8
    points: tuple[tuple[float, float], ...] = ()
    branches: tuple[Branch, ...] = ("cond",)
    text_of: Callable[[BatchRow, str, int], str] = _same_text


@dataclass(frozen=True)
class Plan:
    """What is read in a run, and the settings that say how it is drawn and where it is dumped.

    Attributes:
        layers: attention layers by block, of the model that the plan is made for.
        notes: what of the settings was left out, for people.
    """

    settings: Settings = field(default_factory=lambda: Settings())
    layers: Mapping[str, int] = field(default_factory=dict)
    features: CaptureRequest | None = None
    difference: CaptureRequest | None = None
    attention: AttentionRequest | None = None
    words: Mapping[Branch, WordChoice] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()
