"""Pictures of many: all average maps, a column for each block and a row for each step; and all words."""

from __future__ import annotations

import threading

from PIL import Image, ImageDraw, ImageFont

from lib_dumpunet.blocks import BlockOrder
from lib_dumpunet.captures import Tag
from lib_dumpunet.image.overlay import contact_sheet
from lib_dumpunet.ports import Picture
from lib_dumpunet.sinks.picture import AVERAGE, Drawn

CELL = 64  # pixels; maps of all resolutions are brought to this width
GAP = 4
HEAD = 18
SIDE = 56
WORDS_IN_A_ROW = 4
MOST_ROWS = 50  # of more steps, only every second, third, ... is shown


class Overview:
    """Collects average maps of one image as they come, from several threads, and lays them out.

    ``kind`` tells of what the maps are.
    """

    def __init__(self, order: BlockOrder, kind: Drawn = "feature") -> None:
        self._order, self._kind = order, kind
        self._maps: dict[tuple[str, int], Image.Image] = {}
        self._lock = threading.Lock()

    def add(self, picture: Picture) -> None:
        """Take a picture if it is an average map of the first image."""
        wanted = (self._kind, AVERAGE[self._kind], 0)
        if (picture.tag.kind, picture.title, picture.tag.image) == wanted:
            with self._lock:
                self._maps[picture.tag.block, picture.tag.step] = _cell(picture.image)

    def draw(self) -> Image.Image | None:
        """Lay the maps out, blocks in forward order; None if none came."""
        blocks = [b for b in self._order if any(block == b for block, _ in self._maps)]
        steps = sorted({step for _, step in self._maps})
        steps = steps[:: -(-len(steps) // MOST_ROWS) or 1]
        if not blocks:
            return None
        height = next(iter(self._maps.values())).height
        across, down = CELL + GAP, height + GAP
        sheet = Image.new("RGB", (SIDE + across * len(blocks), HEAD + down * len(steps)), "white")
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
        for column, block in enumerate(blocks):
            middle = SIDE + column * across + CELL // 2
            pen.text((middle, HEAD // 2), block, fill="black", font=font, anchor="mm")
        for row, step in enumerate(steps):
            pen.text(
                (4, HEAD + row * down + height // 2), f"step {step}", fill="black", font=font, anchor="lm"
            )
            for column, block in enumerate(blocks):
                if (block, step) in self._maps:
                    sheet.paste(self._maps[block, step], (SIDE + column * across, HEAD + row * down))
        return sheet


class WordSheet:
    """Collects the words and points over the first image as they come, and lays them out in its prompts' order."""

    def __init__(self, prompt: str, negative: str) -> None:
        self._texts = {"cond": prompt.lower(), "uncond": negative.lower()}
        self._pictures: dict[Tag, Image.Image] = {}
        self._lock = threading.Lock()

    def add(self, picture: Picture) -> None:
        """Take a picture if it is a word or point over the first image."""
        if picture.tag.kind in ("word", "point") and not picture.title and picture.tag.image == 0:
            with self._lock:
                self._pictures[picture.tag] = picture.image

    def draw(self) -> Image.Image | None:
        """Lay the pictures out, the prompt's words first; None if none came."""
        pictures = [self._pictures[tag] for tag in sorted(self._pictures, key=self._place)]
        return contact_sheet(pictures, min(len(pictures), WORDS_IN_A_ROW)) if pictures else None

    def _place(self, tag: Tag) -> tuple[bool, str, int, str]:
        return tag.kind == "point", tag.branch, self._texts[tag.branch].find(tag.name), tag.name


def _cell(image: Image.Image) -> Image.Image:
    """Bring a map to the cell's width, by nearest neighbours, so that the resolution of each block shows."""
    height = max(1, round(CELL * image.height / image.width))
    return image.resize((CELL, height), Image.Resampling.NEAREST)
