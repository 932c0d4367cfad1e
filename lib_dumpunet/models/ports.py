"""Where the values of a block are: an argument or the output of a module, and how they lie in it.

Ports are data. What is behind one is always the same to whoever reads or changes it: an image is "b c h w", a text is
"b token c", whether the model computes with maps, with tokens in rows, or with a sequence of text and image joined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a module's call."""


@dataclass(frozen=True)
class Streams:
    """What one call of a model works on, where its blocks see tokens: the map that the image's tokens fill.

    Attributes:
        height, width: of the map, in tokens.
        text: tokens of the text.
        first: which of the two a joined sequence begins with.
    """

    height: int
    width: int
    text: int = 0
    first: Literal["text", "image"] = "text"

    @property
    def image_tokens(self) -> slice:
        """Where a joined sequence holds the image."""
        start = self.text if self.first == "text" else 0
        return slice(start, start + self.height * self.width)

    @property
    def text_tokens(self) -> slice:
        """Where a joined sequence holds the text."""
        start = 0 if self.first == "text" else self.height * self.width
        return slice(start, start + self.text)


@dataclass(frozen=True)
class Argument:
    """An argument of a module: by one of its names, or by its position where it is given without."""

    names: tuple[str, ...]
    position: int

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the argument of a call, None where it has none."""
        name = self._name(kwargs)
        if name is not None:
            return kwargs[name]
        return args[self.position] if len(args) > self.position else None

    def replaced(self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> Arguments:
        """Return the arguments of a call with another value in its place."""
        name = self._name(kwargs)
        if name is not None:
            return args, {**kwargs, name: value}
        return (*args[: self.position], value, *args[self.position + 1 :]), kwargs

    def _name(self, kwargs: dict[str, Any]) -> str | None:
        return next((name for name in self.names if name in kwargs), None)


class Layout(Protocol):
    """How an image lies in a value that a module is given or puts out."""

    def read(self, value: Any, streams: Streams | None) -> Tensor:
        """Return the image "b c h w", as a view where that can be."""

    def write(self, value: Any, image: Tensor, streams: Streams | None) -> Any:
        """Return the value with another image "b c h w" in it; the text in it stays."""


@dataclass(frozen=True)
class Maps:
    """A tensor "b c h w", or a tuple that begins with one."""

    def read(self, value: Any, streams: Streams | None) -> Tensor:
        image: Tensor = value if isinstance(value, Tensor) else value[0]
        return image

    def write(self, value: Any, image: Tensor, streams: Streams | None) -> Any:
        return image if isinstance(value, Tensor) else (image, *value[1:])


@dataclass(frozen=True)
class Tokens:
    """Tokens "b token c" of the image, or of text and image in one sequence.

    Attributes:
        index: place among several values; None where the module puts out one tensor.
        joined: whether the text is in the same sequence.
    """

    index: int | None = None
    joined: bool = False

    def read(self, value: Any, streams: Streams | None) -> Tensor:
        assert streams is not None
        tokens: Tensor = value if self.index is None else value[self.index]
        if self.joined:
            tokens = tokens[:, streams.image_tokens]
        return tokens.transpose(1, 2).unflatten(2, (streams.height, streams.width))

    def write(self, value: Any, image: Tensor, streams: Streams | None) -> Any:
        assert streams is not None
        tokens = image.flatten(2).transpose(1, 2)
        if self.joined:
            whole: Tensor = value if self.index is None else value[self.index]
            own = streams.image_tokens
            tokens = torch.cat([whole[:, : own.start], tokens, whole[:, own.stop :]], dim=1)
        if self.index is None:
            return tokens
        return (*value[: self.index], tokens, *value[self.index + 1 :])


@dataclass(frozen=True, eq=False)
class InputPort:
    """The image that a module is given."""

    module: nn.Module
    argument: Argument
    layout: Layout

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any], streams: Streams | None) -> Tensor:
        """Return the image "b c h w" of a call."""
        return self.layout.read(self.argument.of(args, kwargs), streams)


@dataclass(frozen=True, eq=False)
class OutputPort:
    """The image that a module puts out."""

    module: nn.Module
    layout: Layout

    def read(self, output: Any, streams: Streams | None) -> Tensor:
        """Return the image "b c h w" of what a call has put out."""
        return self.layout.read(output, streams)


@dataclass(frozen=True, eq=False)
class TextPort:
    """The text "b token c" that a module is given, or a tuple that begins with it."""

    module: nn.Module
    argument: Argument


@dataclass(frozen=True, eq=False)
class UpdatePort:
    """A part of a block that adds to the stream of the image: a spatial transformer, or a block that is one."""

    input: InputPort
    output: OutputPort


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One layer in which the image looks at the text and at itself; modules have ``to_q``, ``to_k`` and ``to_out``.

    Attributes:
        block: name of the block that it is in.
        number: of the layer in its block, from 0.
        entry: the image with the height and width of the layer's maps; its module is called before the layer.
        self_attention, cross_attention: one and the same module where ``joined``.
        joined: whether text and image are one sequence, in which everything looks at everything.
    """

    block: str
    number: int
    entry: InputPort
    self_attention: nn.Module
    cross_attention: nn.Module
    joined: bool = False
