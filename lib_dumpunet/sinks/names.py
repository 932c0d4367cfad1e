"""Names of dumped files, written and read in one place.

bin          {image:03}-{block}-{step:03}-{channel:04}-{unix time}.bin
npy          {image:03}-{block}-{step:03}.npy           second run of a folder: {image:03}-{block}-{step:03}-2.npy
safetensors  {image:03}-{step:03}.safetensors           second run of a folder: {image:03}-{step:03}-2.safetensors
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lib_dumpunet.captures import Tag

CHANNEL = (
    "{channel:04}"  # stands for the channel's number in the manifest, which has one entry for all of them
)

_IMAGE, _BLOCK, _STEP = r"(?P<image>\d{3,})", r"(?P<block>[A-Z]+\d+)", r"(?P<step>\d{3,})"
_RUN = r"(?:-(?P<run>\d+))?"
_PATTERNS = (
    re.compile(rf"{_IMAGE}-{_BLOCK}-{_STEP}-(?P<channel>\d{{4,}})-(?P<time>\d+)\.bin"),
    re.compile(rf"{_IMAGE}-{_BLOCK}-{_STEP}{_RUN}\.npy"),
    re.compile(rf"{_IMAGE}-{_STEP}{_RUN}\.safetensors"),
)


@dataclass(frozen=True)
class Name:
    """What a file name tells; ``block``, ``channel`` and ``time`` are there in the formats that have them."""

    image: int
    step: int
    block: str | None
    channel: int | None
    time: int | None
    run: int


def parse_name(name: str) -> Name | None:
    """Read a file name, or return None for a name that no dump has."""
    match = next(filter(None, (pattern.fullmatch(name) for pattern in _PATTERNS)), None)
    if match is None:
        return None
    parts = match.groupdict()
    channel, time = (None if parts.get(key) is None else int(parts[key]) for key in ("channel", "time"))
    image, step, run = int(parts["image"]), int(parts["step"]), int(parts.get("run") or 1)
    return Name(image, step, parts.get("block"), channel, time, run)


def bin_name(tag: Tag, time: int) -> str:
    """Name the channel files of one tensor, with ``CHANNEL`` in place of the number."""
    return f"{tag.image:03}-{tag.block}-{tag.step:03}-{CHANNEL}-{time}.bin"


def npy_name(tag: Tag, run: int) -> str:
    """Name the file of one tensor."""
    return f"{tag.image:03}-{tag.block}-{tag.step:03}{_suffix(run)}.npy"


def safetensors_name(image: int, step: int, run: int) -> str:
    """Name the file of all blocks of one image and step."""
    return f"{image:03}-{step:03}{_suffix(run)}.safetensors"


def channel_name(pattern: str, channel: int) -> str:
    """Put a channel's number into a name of ``bin_name``."""
    return pattern.replace(CHANNEL, f"{channel:04}")


def _suffix(run: int) -> str:
    return "" if run == 1 else f"-{run}"
