"""Where a block's values are: in which argument or output of a module, and in which layout.

Ports are data. Reading or writing through a port always uses the same axes, an image "b c h w" or a text "b token c",
whether the model computes with feature maps, with image tokens, or with text and image tokens in one sequence.
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
    """Sizes of one call of a model whose blocks work on tokens: the map that image tokens form, and the text length.

    Attributes:
        height, width: of the map, in tokens.
        text: number of text tokens.
        first: which of the two comes first in a joined sequence.
    """

    height: int
    width: int
    text: int = 0
    first: Literal["text", "image"] = "text"

    @property
    def image_tokens(self) -> slice:
        """Slice of the image tokens in a joined sequence."""
        start = self.text if self.first == "text" else 0
        return slice(start, start + self.height * self.width)

    @property
    def text_tokens(self) -> slice:
        """Slice of the text tokens in a joined sequence."""
        start = 0 if self.first == "text" else self.height * self.width
        return slice(start, start + self.text)


@dataclass(frozen=True)
class Argument:
    """An argument of a module, found by one of its names or by its position."""

    names: tuple[str, ...]
    position: int

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the argument of a call; None if it is missing."""
        name = self._name(kwargs)
        if name is not None:
            return kwargs[name]
        return args[self.position] if len(args) > self.position else None

    def replaced(self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> Arguments:
        """Return the arguments of a call with ``value`` in place of this one."""
        name = self._name(kwargs)
        if name is not None:
            return args, {**kwargs, name: value}
        return (*args[: self.position], value, *args[self.position + 1 :]), kwargs

    def _name(self, kwargs: dict[str, Any]) -> str | None:
        return next((name for name in self.names if name in kwargs), None)


class Layout(Protocol):
    """How an image is stored in an argument or output of a module."""

    def read(self, value: Any, streams: Streams | None) -> Tensor:
        """Return the image "b c h w", as a view where possible."""

    def write(self, value: Any, image: Tensor, streams: Streams | None) -> Any:
        """Return the value with its image replaced by ``image`` "b c h w"; any text in it is kept."""


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
        index: of the tensor in the module's output tuple; None if the output is one tensor.
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
    """The image that a module receives."""

    module: nn.Module
    argument: Argument
    layout: Layout

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any], streams: Streams | None) -> Tensor:
        """Return the image "b c h w" of a call."""
        return self.layout.read(self.argument.of(args, kwargs), streams)


@dataclass(frozen=True, eq=False)
class OutputPort:
    """The image that a module outputs."""

    module: nn.Module
    layout: Layout

    def read(self, output: Any, streams: Streams | None) -> Tensor:
        """Return the image "b c h w" from a call's output."""
        return self.layout.read(output, streams)


@dataclass(frozen=True, eq=False)
class TextPort:
    """The text "b token c" that a module receives, or a tuple that begins with it."""

    module: nn.Module
    argument: Argument


@dataclass(frozen=True, eq=False)
class UpdatePort:
    """A part of a block that adds to the residual stream: a spatial transformer, or a whole transformer block."""

    input: InputPort
    output: OutputPort


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One transformer layer with self- and cross-attention modules, which have ``to_q``, ``to_k`` and ``to_out``.

    Attributes:
        block: name of the block that it is in.
        number: index of the layer in its block, from 0.
        entry: an image with the height and width of the layer's maps; its module is called before the layer.
        self_attention, cross_attention: the same module if ``joined``.
        joined: whether text and image form one sequence that attends to itself.
    """

    block: str
    number: int
    entry: InputPort
    self_attention: nn.Module
    cross_attention: nn.Module
    joined: bool = False
