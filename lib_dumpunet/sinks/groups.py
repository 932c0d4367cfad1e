"""The tensors of one image and step, collected until all that are expected have come: one file each of safetensors."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from lib_dumpunet.captures import Tag
from lib_dumpunet.sinks.names import key_of

STALE = 128
"""Captures; an unfinished group that so many have passed by is not going to be completed."""


@dataclass
class Group:
    """What has come for one image and step, and the number of the capture that came last."""

    image: int
    hires: bool
    step: int
    tensors: dict[Tag, Tensor] = field(default_factory=dict)
    fed: int = 0


class Groups:
    """Collect captures until those of one image and step are complete.

    A step that will never be complete, because the model was made to leave blocks out, is given out as it is once
    128 captures have come since its last one: memory must not grow with the number of steps. A group that may still
    be completed is fed after as many captures as a batch has images, and a few more that other threads get ahead.
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
                self._open[key] = group  # at the end, so that the one that waits longest stands first
            stale = [key for key, other in self._open.items() if self._count - other.fed > STALE]
            return ([group] if complete else []) + [self._open.pop(key) for key in stale]

    def _is_complete(self, group: Group) -> bool:
        expected = {key for key, steps in self._expected.items() if group.step in steps}
        return bool(expected) and expected <= set(map(key_of, group.tensors))

    def rest(self) -> Iterator[Group]:
        """Return what is left, one by one, so that the memory of each is free before the next."""
        while self._open:
            yield self._open.pop(next(iter(self._open)))
