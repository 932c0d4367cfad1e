"""What a dump says about the tensors in it."""

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
    """What a dump says about the tensors in it.

    ``prompts``, ``negative_prompts`` and ``seeds`` go by image; a single one holds for all images. ``blocks`` is the
    model's block table, name to whatever describes it in JSON, such as ``{"input": [4, 64, 64], "output": [320, 64,
    64]}``. ``tokens`` are the columns of the maps, the text of each by prompt, and by "" of those that shorter texts
    are filled up with; ``text_of`` tells what the layer of a tag has read. ``attention`` tells of which blocks and
    steps words and points are means. ``expected`` are the keys of what comes for each image (see ``key_of``), with the
    steps in which it does, so that a file of all of a step can be written as soon as the last one has come.
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
        """Tell prompt, negative prompt and seed of an image; None for what is not known."""
        return {
            "prompt": _of(self.prompts, image),
            "negative_prompt": _of(self.negative_prompts, image),
            "seed": _of(self.seeds, image),
        }

    def about_layer(self, tag: Tag) -> dict[str, str]:
        """Return what an attention layer has read, where that is not the prompt as a whole."""
        if self.text_of is None or not KINDS[tag.kind].reads_text:
            return {}
        text = self.text_of(tag)
        return {} if text == _of(self.prompts, tag.image) else {"text": text}

    def about_run(self) -> dict[str, Any]:
        """Return what holds for all images."""
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
    """Return what the manifest says of a tensor, which had one dtype and is stored in another."""
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
    """Return what blocks have not: which layer of the block, or which word of which prompt, or which point."""
    if tag.kind == "word":
        return {"word": tag.name, "prompt_part": "negative" if tag.branch == "uncond" else "positive"}
    if tag.kind == "point":
        return {"point": tag.name}
    return {"layer": tag.layer} if KINDS[tag.kind].scope == "layer" else {}


def dtype_name(dtype: torch.dtype) -> str:
    """Name a dtype without its library: ``float16``."""
    return str(dtype).removeprefix("torch.")


def _of(values: Sequence[_T], image: int) -> _T | None:
    if len(values) == 1:
        return values[0]
    return values[image] if image < len(values) else None
