"""What to capture in a run: resolved settings as plain data, without tensors or modules."""

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
    """Which blocks to capture in which sampling steps, and as which kind."""

    blocks: tuple[str, ...]
    steps: Container[int]
    kind: Kind = FEATURE


def _same_text(row: BatchRow, block: str, step: int) -> str:
    return ""


@dataclass(frozen=True)
class AttentionRequest:
    """What to capture from attention layers and transformers, in which blocks and sampling steps.

    Attributes:
        lattice: query points per side of the grid of ``self``.
        points: query points "x y" of ``point``, as fractions of the image's width and height.
        branches: whose words to sum: the prompt's ("cond"), the negative prompt's ("uncond"), or both.
        text_of: returns the text that a batch row reads in a block and step; different texts are summed separately.
        length_of: returns the number of tokens of that text; None if the host does not repeat it to match longer ones.
    """

    blocks: tuple[str, ...]
    steps: Container[int]
    kinds: frozenset[Kind]
    lattice: int = 8
    points: tuple[tuple[float, float], ...] = ()
    branches: tuple[Branch, ...] = ("cond",)
    text_of: Callable[[BatchRow, str, int], str] = _same_text
    length_of: Callable[[BatchRow, str, int], int] | None = None


@dataclass(frozen=True)
class Plan:
    """What to capture in a run, and the settings for drawing and dumping it.

    Attributes:
        layers: number of attention layers by block, in the model that the plan is for.
        notes: messages for the user about settings that were ignored.
    """

    settings: Settings = field(default_factory=lambda: Settings())
    layers: Mapping[str, int] = field(default_factory=dict)
    features: CaptureRequest | None = None
    difference: CaptureRequest | None = None
    attention: AttentionRequest | None = None
    words: Mapping[Branch, WordChoice] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()
