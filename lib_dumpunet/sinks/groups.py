"""Collect the tensors of one image and step until all expected ones have come; each group is one safetensors file."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from lib_dumpunet.captures import Tag
from lib_dumpunet.sinks.names import key_of

STALE = 128
"""Number of captures after which a group that got none of them counts as final."""


@dataclass
class Group:
    """The captures of one image and step so far; ``fed`` is the number of the last one."""

    image: int
    hires: bool
    step: int
    tensors: dict[Tag, Tensor] = field(default_factory=dict)
    fed: int = 0


class Groups:
    """Collect captures until the group of an image and step is complete.

    A group that stays incomplete, because blocks of the model were skipped, is returned as it is after 128 captures
    without one of its own, so that memory does not grow with the number of steps. Other groups never wait that long:
    at most as many captures as a batch has images, plus a few from other threads.
    """

    def __init__(self, expected: Mapping[str, Container[int]]) -> None:
        self._expected = expected
        self._open: dict[tuple[int, bool, int], Group] = {}
        self._count = 0
        self._lock = threading.Lock()

    def add(self, tag: Tag, tensor: Tensor) -> list[Group]:
        """Take a capture and return the groups to write now."""
        with self._lock:
            self._count += 1
            key = (tag.image, tag.hires, tag.step)
            group = self._open.pop(key, None) or Group(*key)
            group.tensors[tag] = tensor
            group.fed = self._count
            complete = self._is_complete(group)
            if not complete:
                self._open[key] = group  # at the end: the group that has waited longest comes first
            stale = [key for key, other in self._open.items() if self._count - other.fed > STALE]
            return ([group] if complete else []) + [self._open.pop(key) for key in stale]

    def _is_complete(self, group: Group) -> bool:
        expected = {key for key, steps in self._expected.items() if group.step in steps}
        return bool(expected) and expected <= set(map(key_of, group.tensors))

    def rest(self) -> Iterator[Group]:
        """Yield the remaining groups one by one, so that each is freed before the next."""
        while self._open:
            yield self._open.pop(next(iter(self._open)))
