"""Collect the maps for a page: quantise them at once, and keep them on disk until the image is finished."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.explorer.maps import Float32, Quantised, Size, as_maps, quantise
from lib_dumpunet.image.average import average
from lib_dumpunet.kinds import KINDS, modes, of_image
from lib_dumpunet.sinks.spool import Spool

AVERAGES = ("sum", "1-norm", "2-norm")
"""The average maps that a page has of each block."""
LEVEL = 6  # of compression
SUMMARY, DETAILS = "summary", "details"
MARKS = ("<pad>",)
"""Labels of tokens that are left out."""
Labels = Callable[[Tag, int], Sequence[str]]


class Layer(NamedTuple):
    """Identifies the maps of one block, or of one of its attention layers, in one pass."""

    mode: str
    hires: bool
    block: str
    site: int


class Name(NamedTuple):
    """Names a map by its channel, average, token or point; ``head`` counts from 1."""

    text: str
    head: int = 0


@dataclass
class Part:
    """The maps of a layer collected so far: either its summary or its single maps.

    Attributes:
        ratio: compression ratio of the first record.
        names: index of each name, in order of first appearance.
        frames: by step, the indices of the names in its record, in order.
        spread: sum over steps of the variance of each name's maps.
        counts: number of steps in these sums.
    """

    size: Size
    ratio: float
    names: dict[Name, int] = field(default_factory=dict)
    frames: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    spread: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, step: int, names: Sequence[Name], variance: Float32) -> None:
        """Note the contents of a step's record."""
        for name in names:
            self.names.setdefault(name, len(self.names))
        more = len(self.names) - len(self.spread)
        self.spread, self.counts = np.pad(self.spread, (0, more)), np.pad(self.counts, (0, more))
        places = np.array([self.names[name] for name in names], np.int64)
        self.spread[places] += variance
        self.counts[places] += 1
        self.frames[step] = places

    @property
    def variance(self) -> Float32:
        """Mean variance of each name's maps."""
        mean: Float32 = (self.spread / np.maximum(self.counts, 1)).astype(np.float32)
        return mean


@dataclass
class Collected:
    """Everything collected of one image: its layers, and the maps of its words and points."""

    layers: dict[Layer, dict[str, Part]] = field(default_factory=dict)
    words: dict[Tag, Float32] = field(default_factory=dict)


class Collection:
    """Keeps the maps for pages; several threads may add to it.

    Args:
        labels: returns the labels of the tokens that a layer reads; empty if they are not known.
        folder: where to keep waiting maps; None for the system's folder for temporary files.
    Raises:
        HostError: if the file for them cannot be created.
    """

    def __init__(self, labels: Labels, folder: str | None = None) -> None:
        self._spool = Spool("the maps of the explorer page", folder)
        self._labels = labels
        self._lock = threading.Lock()
        self._images: dict[int, Collected] = {}

    def add(self, capture: Capture) -> None:
        """Add a capture, if pages show its kind.

        Raises:
            HostError: if the disk is full.
        """
        tag = capture.tag
        if of_image(tag.kind):
            with self._lock:
                self._image(tag.image).words[tag] = as_maps(capture.tensor[None])[0]
        elif KINDS[tag.kind].mode:
            for part, names, tensor in self._parts(capture):
                self._put(tag, part, names, as_maps(tensor))

    def of(self, image: int) -> Collected:
        """Return everything collected of an image."""
        with self._lock:
            return self._image(image)

    def read(self, image: int, layer: Layer, part: str, step: int, size: Size) -> Quantised:
        """Read back a record of maps of ``size``.

        Raises:
            HostError: if the file cannot be read.
        """
        record = self._spool.read(_tag_of(image, layer, part, step))
        assert record is not None
        data: NDArray[np.uint8] = record.numpy()
        count = len(data) // (size[0] * size[1] + 8)
        low, high = data[: 8 * count].view(np.float32).reshape(2, count)
        return Quantised(data[8 * count :].reshape(count, *size), low, high)

    def forget(self, image: int) -> None:
        """Remove an image, so that its disk space can be reused."""
        with self._lock:
            collected = self._images.pop(image, Collected())
        for layer, parts in collected.layers.items():
            for name, part in parts.items():
                for step in part.frames:
                    self._spool.take(_tag_of(image, layer, name, step))

    def close(self) -> None:
        """Remove everything."""
        self._spool.close()

    def _image(self, number: int) -> Collected:
        return self._images.setdefault(number, Collected())

    def _put(self, tag: Tag, part: str, names: Sequence[Name], values: Float32) -> None:
        layer = Layer(KINDS[tag.kind].mode, tag.hires, tag.block, tag.layer)
        with np.errstate(all="ignore"):
            variance = np.nan_to_num(values.var((1, 2), dtype=np.float32), posinf=0.0)
        maps = quantise(values)
        record = np.concatenate([maps.low.view(np.uint8), maps.high.view(np.uint8), maps.levels.reshape(-1)])
        self._spool.put(_tag_of(tag.image, layer, part, tag.step), torch.from_numpy(record))
        with self._lock:
            parts = self._image(tag.image).layers.setdefault(layer, {})
            if part not in parts:
                parts[part] = Part((values.shape[1], values.shape[2]), compressed(record) / len(record))
            parts[part].add(tag.step, names, variance)

    def _parts(self, capture: Capture) -> Iterator[tuple[str, Sequence[Name], Tensor]]:
        tensor, tag = capture.tensor, capture.tag
        kept = KINDS[tag.kind].page_parts
        if kept == "points":
            rows, columns = tensor.shape[1:3]
            names = [Name(f"{row},{column}") for row in range(rows) for column in range(columns)]
            yield SUMMARY, names, tensor.float().mean(0)
        elif kept == "tokens":
            yield from self._tokens(tag, tensor)
        else:
            averages = [average(tensor, kind) for kind in AVERAGES]
            yield (
                SUMMARY,
                [Name(kind) for kind in AVERAGES],
                torch.stack([a for a in averages if a is not None]),
            )
            yield DETAILS, [Name(str(channel)) for channel in range(len(tensor))], tensor

    def _tokens(self, tag: Tag, tensor: Tensor) -> Iterator[tuple[str, Sequence[Name], Tensor]]:
        """Yield the maps of the text's tokens: means over heads as summary, maps of each head as details."""
        count = tensor.shape[1]
        labels = list(self._labels(tag, count))
        if len(labels) != count:
            labels = [str(number) for number in range(count)]
        kept = [number for number, label in enumerate(labels) if label not in MARKS]
        texts = _told_apart([labels[number] for number in kept])
        maps = tensor[:, kept].float()
        yield SUMMARY, [Name(text) for text in texts], maps.mean(0)
        heads = range(1, len(tensor) + 1)
        yield DETAILS, [Name(text, head) for head in heads for text in texts], maps


def compressed(record: NDArray[np.uint8]) -> int:
    """Return the compressed size of a record in bytes."""
    return len(zlib.compress(record.data, LEVEL))


def _told_apart(labels: Sequence[str]) -> list[str]:
    """Number repeated labels: ``a``, ``a (2)``."""
    counts: dict[str, int] = {}
    told: list[str] = []
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
        told.append(label if counts[label] == 1 else f"{label} ({counts[label]})")
    return told


def _tag_of(image: int, layer: Layer, part: str, step: int) -> Tag:
    return Tag(image, step, layer.block, modes()[layer.mode].name, layer.site, part, hires=layer.hires)
