"""Overview pictures: all average maps, with a column for each block and a row for each step of each pass; all words."""

from __future__ import annotations

import threading

from PIL import Image, ImageDraw, ImageFont

from lib_dumpunet.blocks import BlockOrder
from lib_dumpunet.captures import Tag
from lib_dumpunet.image.overlay import contact_sheet
from lib_dumpunet.kinds import FEATURE, Kind, of_image
from lib_dumpunet.ports import Picture

CELL = 64  # pixels; all maps are resized to this width
GAP = 4
HEAD = 18
SIDE = 56
WORDS_IN_A_ROW = 4
MOST_ROWS = 50  # with more steps, only every second, third, ... is shown
_Row = tuple[bool, int]
"""Whether the step is of a hires pass, and the step."""


class Overview:
    """Collects the average maps of the first image, of one ``kind``, from several threads, and lays them out."""

    def __init__(self, order: BlockOrder, kind: Kind = FEATURE) -> None:
        self._order, self._kind = order, kind
        self._maps: dict[tuple[str, _Row], Image.Image] = {}
        self._lock = threading.Lock()

    def add(self, picture: Picture) -> None:
        """Add a picture if it is an average map of the first image."""
        tag = picture.tag
        if (tag.kind, picture.role, tag.image) == (self._kind, "average", 0):
            with self._lock:
                self._maps[tag.block, (tag.hires, tag.step)] = _cell(picture.image)

    def draw(self) -> Image.Image | None:
        """Lay the maps out, blocks in forward order, a hires pass below the first; return None without maps."""
        blocks = [b for b in self._order if any(block == b for block, _ in self._maps)]
        rows = sorted({row for _, row in self._maps})
        rows = rows[:: -(-len(rows) // MOST_ROWS) or 1]
        if not blocks:
            return None
        height = next(iter(self._maps.values())).height
        across, down = CELL + GAP, height + GAP
        sheet = Image.new("RGB", (SIDE + across * len(blocks), HEAD + down * len(rows)), "white")
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
        for column, block in enumerate(blocks):
            middle = SIDE + column * across + CELL // 2
            pen.text((middle, HEAD // 2), block, fill="black", font=font, anchor="mm")
        for number, row in enumerate(rows):
            top = HEAD + number * down
            pen.text((4, top + height // 2), _label(*row), fill="black", font=font, anchor="lm")
            for column, block in enumerate(blocks):
                if (block, row) in self._maps:
                    sheet.paste(self._maps[block, row], (SIDE + column * across, top))
        return sheet


class WordSheet:
    """Collects the pictures of the first image's words and points, and lays them out in prompt order."""

    def __init__(self, prompt: str, negative: str) -> None:
        self._texts = {"cond": prompt.lower(), "uncond": negative.lower()}
        self._pictures: dict[Tag, Image.Image] = {}
        self._lock = threading.Lock()

    def add(self, picture: Picture) -> None:
        """Add a picture if it is a word or point over the first image."""
        if of_image(picture.tag.kind) and picture.role == "whole" and picture.tag.image == 0:
            with self._lock:
                self._pictures[picture.tag] = picture.image

    def draw(self) -> Image.Image | None:
        """Lay the pictures out, the prompt's words first; return None without pictures."""
        pictures = [self._pictures[tag] for tag in sorted(self._pictures, key=self._place)]
        return contact_sheet(pictures, min(len(pictures), WORDS_IN_A_ROW)) if pictures else None

    def _place(self, tag: Tag) -> tuple[bool, str, int, str]:
        return tag.kind == "point", tag.branch, self._texts[tag.branch].find(tag.name), tag.name


def _label(hires: bool, step: int) -> str:
    return f"hr{step}" if hires else f"step {step}"


def _cell(image: Image.Image) -> Image.Image:
    """Resize a map to the cell's width by nearest neighbour, so that each block's resolution is visible."""
    height = max(1, round(CELL * image.height / image.width))
    return image.resize((CELL, height), Image.Resampling.NEAREST)
