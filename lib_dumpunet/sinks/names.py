"""Write and parse the names of dumped files, and of tensors inside a file.

A file name begins with the stem of the tensor's tag (``Tag.stem``):

    feature            {image:03}-{block}-{step:03}
    other of a block   {image:03}-{block}-{step:03}-{kind}
    attention layer    {image:03}-{block}-{step:03}-{kind}, with the layer's number from a block's second layer on
    word or point      {image:03}-{word | negative | point}-{its text}

Steps of a hires pass are prefixed with ``hr``: ``000-OUT11-hr020``.

    bin                {stem}-{channel:04}-{unix time}.bin
    npy                {stem}.npy                            second run in a folder: {stem}-2.npy
    safetensors        {image:03}-{step:03}.safetensors      second run in a folder: {image:03}-{step:03}-2.safetensors
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lib_dumpunet.captures import Branch, Tag
from lib_dumpunet.kinds import FEATURE, KINDS, of_image

CHANNEL = "{channel:04}"  # placeholder for the channel in the manifest, which has one entry for all channels

_LAYER = r"(?:-(?P<kind>[a-z_]*[a-z])(?P<layer>\d+)?)?"
_HEAT = r"(?P<heat>word|negative|point)-(?P<name>[^-]+)"
_STEP = r"(?P<hires>hr)?(?P<step>\d{3,})"
_PLACE = rf"(?P<image>\d{{3,}})-(?:(?P<block>[A-Z]+\d+)-{_STEP}{_LAYER}|{_HEAT})"
_BLOCK = re.compile(r"[A-Z]+\d+")
_RUN = r"(?:-(?P<run>\d+))?"
_CHANNEL_FILE = re.compile(rf"{_PLACE}-(?P<channel>\d{{4,}})-(?P<time>\d+)\.bin")
_OF_A_TENSOR = re.compile(rf"{_PLACE}{_RUN}\.(?P<ending>[a-z0-9]+)")
_OF_A_STEP = re.compile(rf"(?P<image>\d{{3,}})-{_STEP}{_RUN}\.safetensors")
_PATTERNS = (_CHANNEL_FILE, _OF_A_STEP, _OF_A_TENSOR)
ARRAYS = {"npy"}
"""Extensions of files that contain one tensor."""


@dataclass(frozen=True)
class Name:
    """A parsed file name; ``tag`` is None for a file of several tensors, only bin has ``channel`` and ``time``."""

    image: int
    step: int
    tag: Tag | None
    channel: int | None
    time: int | None
    run: int
    hires: bool = False


def parse_name(name: str) -> Name | None:
    """Parse a file name; return None if it is not a dump's."""
    match = next(filter(None, (pattern.fullmatch(name) for pattern in _PATTERNS)), None)
    if match is None:
        return None
    parts = match.groupdict()
    if not _is_known(parts) or parts.get("ending", "npy") not in ARRAYS:
        return None
    channel, time = (None if parts.get(key) is None else int(parts[key]) for key in ("channel", "time"))
    image, step, run = int(parts["image"]), int(parts["step"] or 0), int(parts.get("run") or 1)
    return Name(image, step, _tag(parts), channel, time, run, bool(parts["hires"]))


def _tag(parts: dict[str, str | None]) -> Tag | None:
    image = int(parts["image"] or 0)
    heat, name, block = parts.get("heat"), parts.get("name"), parts.get("block")
    if heat is not None:
        branch: Branch = "uncond" if heat == "negative" else "cond"
        return Tag(image, 0, "", "point" if heat == "point" else "word", 0, name or "", branch)
    if block is None:
        return None
    kind, layer = parts["kind"] or FEATURE, int(parts["layer"] or 1) - 1
    return Tag(image, int(parts["step"] or 0), block, kind, layer, hires=bool(parts["hires"]))


def _is_known(parts: dict[str, str | None]) -> bool:
    """Whether a name's kind is in the table of kinds; only kinds of layers have numbers."""
    row = KINDS.get(parts.get("kind") or FEATURE)
    if row is None or row.is_passing or (parts.get("kind") == FEATURE):
        return False
    return row.scope == "layer" or (row.scope == "block" and parts.get("layer") is None)


def bin_name(tag: Tag, time: int) -> str:
    """Return the name of a tensor's channel files, with ``CHANNEL`` in place of the channel."""
    return f"{tag.stem}-{CHANNEL}-{time}.bin"


def tensor_name(tag: Tag, run: int, ending: str) -> str:
    """Return the name of the file of one tensor."""
    return f"{tag.stem}{_suffix(run)}.{ending}"


def safetensors_name(image: int, step: int, run: int, *, hires: bool = False) -> str:
    """Return the name of the file of all tensors of an image and step; step 0 has the words and points."""
    return f"{image:03}-{'hr' * hires}{step:03}{_suffix(run)}.safetensors"


def bin_pattern(name: str) -> str:
    """Replace the channel in the name of a channel file with ``CHANNEL``."""
    match = _CHANNEL_FILE.fullmatch(name)
    assert match is not None
    return f"{name[: match.start('channel')]}{CHANNEL}{name[match.end('channel') :]}"


def channel_name(pattern: str, channel: int) -> str:
    """Insert a channel into a name from ``bin_name``."""
    return pattern.replace(CHANNEL, f"{channel:04}")


def key_of(tag: Tag) -> str:
    """Return a tensor's name within the file of its image and step: ``OUT11``, ``OUT11.difference``, ``IN07.qk.1``,
    ``word.cond.red circle``.
    """
    scope = KINDS[tag.kind].scope
    if scope == "image":
        return f"{tag.kind}.{tag.branch}.{tag.name}"
    if scope == "layer":
        return f"{tag.block}.{tag.kind}.{tag.layer}"
    return tag.block if tag.kind == FEATURE else f"{tag.block}.{tag.kind}"


def tag_of_key(key: str, image: int, step: int, *, hires: bool = False) -> Tag:
    """Parse a name from ``key_of``.

    Raises:
        ValueError: if the key has another form.
    """
    first, *rest = key.split(".", 2)
    if first in KINDS and of_image(first):
        branch, name = rest
        return Tag(image, step, "", first, 0, name, "uncond" if branch == "uncond" else "cond")
    if not _BLOCK.fullmatch(first):
        raise ValueError(f"{key!r} is not a block")
    if not rest:
        return Tag(image, step, first, hires=hires)
    kind, *layer = rest
    if not _is_known({"kind": kind, "layer": layer[0] if layer else None}):
        raise ValueError(f"{key!r} has an unknown kind")
    if (KINDS[kind].scope == "layer") != bool(layer):
        raise ValueError(f"{key!r} lacks a layer number, or has one too many")
    return Tag(image, step, first, kind, int(layer[0]) if layer else 0, hires=hires)


def _suffix(run: int) -> str:
    return "" if run == 1 else f"-{run}"
