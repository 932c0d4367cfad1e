"""The readers, one per kind, that capture attention layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lib_dumpunet.hooks.calls import Out, Read, Seen
from lib_dumpunet.hooks.probabilities import pooled_self_attention, self_map
from lib_dumpunet.hooks.taps import require_places
from lib_dumpunet.kinds import Kind

Source = Literal["cross", "self", "output", "transformer"]
"""Where a kind is captured: query and key of cross-attention or of self-attention, the output of cross-attention, or
input and output of a block's transformer."""


def read_keys(out: Out, seen: Seen) -> None:
    """Send the keys "head token dim" of the prompt."""
    require_places(seen.q.shape[1], seen.shape)
    if seen.row.branch == "cond":
        out.send(seen.tag("k"), seen.keys())


def read_maps(out: Out, seen: Seen) -> None:
    """Send the prompt's cross-attention maps: "head token h w"."""
    require_places(seen.q.shape[1], seen.shape)
    if seen.row.branch == "cond":
        out.send(seen.tag("qk"), seen.maps().unflatten(2, seen.shape))


def add_words(out: Out, seen: Seen) -> None:
    """Add the cross-attention maps, averaged over heads, to the sums of the text that was read."""
    require_places(seen.q.shape[1], seen.shape)
    if seen.row.branch in out.want.branches:
        text = out.want.text_of(seen.row, seen.layer.block, seen.model_call.step)
        out.sums.add(seen.row, "word", seen.mean().unflatten(1, seen.shape), text)


def read_lattice(out: Out, seen: Seen) -> None:
    """Send the self-attention maps of a grid of query points: "head row column h w"."""
    if _is_of_prompt(seen):
        queries = _lattice(out.want.lattice, seen.shape).to(seen.q.device)
        maps = self_map(seen.q, seen.k, seen.scale, queries.flatten())[..., seen.image]
        out.send(seen.tag("self"), maps.unflatten(1, queries.shape).unflatten(-1, seen.shape))


def read_pooled(out: Out, seen: Seen) -> None:
    """Send pooled self-attention, averaged over heads and summed over parts of the map: "h w row column"."""
    if _is_of_prompt(seen):
        pooled = pooled_self_attention(seen.q, seen.k, seen.scale, seen.shape, seen.image)
        out.send(seen.tag("pooled_self"), pooled.unflatten(0, seen.shape))


def add_points(out: Out, seen: Seen) -> None:
    """Add the self-attention maps of the chosen points, averaged over heads, to the image's sums."""
    if _is_of_prompt(seen):
        height, width = seen.shape
        places = [_cell(y, height) * width + _cell(x, width) for x, y in out.want.points]
        queries = torch.tensor(places, device=seen.q.device)
        maps = self_map(seen.q, seen.k, seen.scale, queries).mean(0)[..., seen.image]
        out.sums.add(seen.row, "point", maps.unflatten(-1, seen.shape))


def _is_of_prompt(seen: Seen) -> bool:
    """Whether a self-attention layer belongs to the prompt; check that it has a query and a key for each position."""
    if seen.row.branch != "cond":
        return False
    for count in (seen.q.shape[1], seen.k[:, seen.image].shape[1]):
        require_places(count, seen.shape)
    return True


def _lattice(side: int, shape: tuple[int, int]) -> Tensor:
    """Spread query points evenly over a map, at the centres of equal parts: position indices "row column"."""
    rows, columns = ([(2 * i + 1) * length // (2 * side) for i in range(side)] for length in shape)
    return torch.tensor(rows)[:, None] * shape[1] + torch.tensor(columns)


def _cell(place: float, length: int) -> int:
    """Return the index of the cell at a fraction of a length."""
    return min(int(place * length), length - 1)


@dataclass(frozen=True)
class Reader:
    """Where a kind is captured, and the function that does it; outputs and transformers need only the source."""

    source: Source
    read: Read | None = None


READERS: dict[Kind, Reader] = {
    "k": Reader("cross", read_keys),
    "qk": Reader("cross", read_maps),
    "word": Reader("cross", add_words),
    "vqk": Reader("output"),
    "update": Reader("transformer"),
    "self": Reader("self", read_lattice),
    "pooled_self": Reader("self", read_pooled),
    "point": Reader("self", add_points),
}
"""The readers by kind."""
