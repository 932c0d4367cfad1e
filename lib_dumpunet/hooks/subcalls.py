"""Find which rows and tokens a part covers when another extension runs an attention layer in parts.

NegPiP runs a layer once for the prompts and once for the negative prompts, each with its own tokens at the end;
Regional Prompter runs it once for each region, with that region's part of the text. The input of ``to_k`` is compared
with the text that the layer received, so nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lib_dumpunet.errors import HostError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.models.unet import TEXT


@dataclass(frozen=True)
class Place:
    """The part of a layer's text: first row, first token, and number of tokens."""

    row: int
    token: int
    tokens: int


class SubCalls:
    """Watches one attention layer; ``place`` locates the latest call of its ``to_k``."""

    def __init__(self) -> None:
        self._text: Tensor | None = None
        self._given: Tensor | None = None

    def install(self, hooks: HookSet, attention: nn.Module) -> None:
        """Install the hooks; call this before installing hooks that use ``place``."""
        hooks.before(attention, self._enter)
        hooks.before(attention.to_k, self._see)  # type: ignore[arg-type]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and tokens of the text that the layer received."""
        assert self._text is not None
        return self._text.shape[0], self._text.shape[1]

    @property
    def is_whole(self) -> bool:
        """Whether the layer works on all rows and tokens at once, as far as is known."""
        return self._text is None or self._given is None or self._text.shape == self._given.shape

    def place(self) -> Place:
        """Find the part of the text that the latest call covers.

        Raises:
            HostError: if no part matches, or several rows have the same text.
        """
        assert self._text is not None
        assert self._given is not None
        found: dict[int, Place] = {}
        text, given = self._text.to(self._given.dtype), self._given
        for row in range(len(text) - len(given) + 1):
            rows = text[row : row + len(given)]
            starts = (rows == given[:, :1]).all(2).all(0).nonzero().flatten().tolist()
            places = [Place(row, start, _common(rows[:, start:], given)) for start in starts]
            if places:
                found[row] = max(places, key=lambda place: place.tokens)
        most = max((place.tokens for place in found.values()), default=0)
        best = [place for place in found.values() if place.tokens == most]
        if not best:
            raise HostError(
                "another extension makes the layer read something else than the text it was given"
            )
        if len(best) > 1:
            raise HostError(
                "another extension runs the layer in parts, and several images or both prompts have the same text, "
                "so the parts cannot be assigned to them"
            )
        return best[0]

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        text = TEXT.of(args, kwargs)
        # With an IP-Adapter, diffusers passes a pair, but calls `to_k` once with the whole text.
        self._text = text if isinstance(text, Tensor) else None
        self._given = None

    def _see(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._given = args[0] if args else next(iter(kwargs.values()))


def _common(rows: Tensor, given: Tensor) -> int:
    """Count the tokens of the common prefix of two texts "row token dim"."""
    count = min(rows.shape[1], given.shape[1])
    same = (rows[:, :count] == given[:, :count]).all(2).all(0)
    return int(same.long().cumprod(0).sum())
