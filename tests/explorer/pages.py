"""Make explorer pages, and read them back."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib_dumpunet.explorer.maps import Float32, Quantised, dequantise
from lib_dumpunet.hosts.diffusers.generate import ResultHandlers, generate
from lib_dumpunet.hosts.diffusers.job import make_job
from lib_dumpunet.ports import Page, Picture
from lib_dumpunet.settings import GenerateSettings, Settings

QUICK = GenerateSettings(steps=3, width=128, height=128, seed=7, guidance=4)


@dataclass(frozen=True)
class Read:
    """A page's contents: its JSON, and its packed data by number."""

    data: dict[str, Any]
    blobs: list[bytes]

    def layer(self, mode: str, block: str, *, site: int = 0, hires: bool = False) -> dict[str, Any]:
        """Find the maps of a block."""
        wanted = {"mode": mode, "block": block, "site": site, "hires": hires}
        found: dict[str, Any] = next(
            layer for layer in self.data["layers"] if wanted.items() <= layer.items()
        )
        return found

    def maps(self, part: dict[str, Any], place: int = 0) -> tuple[Float32, Float32, Float32]:
        """Unpack the maps "map h w" of a frame, and the minima and maxima of the whole maps."""
        quantised, low, high = self.levels(part, place)
        return dequantise(quantised), low, high

    def levels(self, part: dict[str, Any], place: int = 0) -> tuple[Quantised, Float32, Float32]:
        """Unpack the levels of a frame."""
        blob = self.blobs[part["blob"]]
        count, (height, width) = len(part.get("names", [0])), part["size"]
        size = count * (16 + height * width)
        assert len(blob) == size * len(part.get("frames", [0]))
        frame = blob[place * size : (place + 1) * size]
        low, high, full_low, full_high = np.frombuffer(frame[: 16 * count], "<f4").reshape(4, count)
        levels = np.frombuffer(frame[16 * count :], np.uint8).reshape(count, height, width)
        return Quantised(levels, low, high), full_low, full_high


def read_page(html: bytes) -> Read:
    """Parse a page."""
    text = html.decode("utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    packed = re.findall(r'<script type="text/plain" id="blob-\d+">(.*?)</script>', text)
    return Read(json.loads(data[1]), [zlib.decompress(base64.b64decode(blob)) for blob in packed])


@dataclass
class Made:
    """Pages and pictures of a run."""

    pages: list[Page]
    pictures: list[Picture]
    problems: list[str]


def make_pages(pipe: Any, prompts: list[str], settings: Settings, sampling: GenerateSettings = QUICK) -> Made:
    """Generate images, and keep the pages."""
    made = Made([], [], [])
    outlet = ResultHandlers(lambda *_: None, made.pictures.append, lambda *_: None, page=made.pages.append)
    outcome = generate(pipe, make_job(pipe, prompts, sampling), settings, outlet)
    made.problems = [str(problem) for problem in outcome.problems]
    return made


def write_page(folder: Path, page: Page) -> str:
    """Write a page; return its URL."""
    path = folder / f"{page.image:03}.html"
    path.write_bytes(page.html)
    return path.as_uri()
