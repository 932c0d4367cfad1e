"""The metadata of a dump: what it says about its tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from lib_dumpunet.captures import Tag
from lib_dumpunet.kinds import KINDS
from lib_dumpunet.sinks.manifest import Entry

_T = TypeVar("_T")


@dataclass(frozen=True)
class DumpRequest:
    """The metadata of a dump: what it says about its tensors.

    Attributes:
        prompts, negative_prompts, seeds: by image; a single one applies to all images.
        blocks: the model's block table; each block is described in JSON, such as ``{"input": [4, 64, 64], "output":
            [320, 64, 64]}``.
        tokens: token labels by prompt, and by "" for the filler that pads shorter texts.
        text_of: returns the text that a tag's layer read.
        attention: the blocks and steps that words and points are averaged over.
        expected: the keys (see ``key_of``) of each image's tensors, with their steps, so that the file of a step can be
            written once its last tensor has come.
    """

    prompts: Sequence[str] = ()
    negative_prompts: Sequence[str] = ()
    seeds: Sequence[int] = ()
    sampler: str = ""
    steps: int = 0
    model: str = ""
    blocks: Mapping[str, Any] = field(default_factory=dict)
    tokens: Mapping[str, Sequence[str]] = field(default_factory=dict)
    text_of: Callable[[Tag], str] | None = None
    attention: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Container[int]] = field(default_factory=dict)
    guidance: float | None = None

    def about_image(self, image: int) -> dict[str, Any]:
        """Return prompt, negative prompt and seed of an image; None for unknown values."""
        return {
            "prompt": _of(self.prompts, image),
            "negative_prompt": _of(self.negative_prompts, image),
            "seed": _of(self.seeds, image),
        }

    def about_layer(self, tag: Tag) -> dict[str, str]:
        """Return the text that an attention layer read, if it is not the whole prompt."""
        if self.text_of is None or not KINDS[tag.kind].reads_text:
            return {}
        text = self.text_of(tag)
        return {} if text == _of(self.prompts, tag.image) else {"text": text}

    def about_run(self) -> dict[str, Any]:
        """Return the metadata that all images share."""
        about: dict[str, Any] = {
            "sampler": self.sampler,
            "steps": self.steps,
            "model": self.model,
            "blocks": dict(self.blocks),
        }
        if self.guidance is not None:
            about["guidance"] = self.guidance
        more = {"tokens": dict(self.tokens), "attention": dict(self.attention)}
        return about | {key: value for key, value in more.items() if value}


def metadata_of(request: DumpRequest, image: int, step: int, run: int, *, hires: bool) -> dict[str, str]:
    """Return the metadata of a safetensors file."""
    values: dict[str, Any] = {"image": image, "step": step, "run": run}
    values |= {"hires": True} if hires else {}
    values |= request.about_image(image) | request.about_run()
    known = {key: value for key, value in values.items() if value is not None}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}


def entry_of(
    request: DumpRequest,
    tag: Tag,
    name: str,
    shape: tuple[int, ...],
    stored: torch.dtype,
    source: torch.dtype,
) -> Entry:
    """Return the manifest entry of a tensor; ``stored`` is its dtype in the file, ``source`` its dtype in the model."""
    return {
        "file": name,
        "kind": tag.kind,
        "image": tag.image,
        "step": tag.step,
        **({"hires": True} if tag.hires else {}),
        "block": tag.block,
        **_details(tag),
        **request.about_layer(tag),
        "axes": list(KINDS[tag.kind].axes),
        "shape": list(shape),
        "dtype": dtype_name(stored),
        "source_dtype": dtype_name(source),
        **request.about_image(tag.image),
    }


def _details(tag: Tag) -> dict[str, Any]:
    """Return the entry's details for attention: the layer in the block, the word and its prompt, or the point."""
    if tag.kind == "word":
        return {"word": tag.name, "prompt_part": "negative" if tag.branch == "uncond" else "positive"}
    if tag.kind == "point":
        return {"point": tag.name}
    return {"layer": tag.layer} if KINDS[tag.kind].scope == "layer" else {}


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name without its library: ``float16``."""
    return str(dtype).removeprefix("torch.")


def _of(values: Sequence[_T], image: int) -> _T | None:
    if len(values) == 1:
        return values[0]
    return values[image] if image < len(values) else None
