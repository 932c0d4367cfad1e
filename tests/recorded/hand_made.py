"""Hand-made captures of every kind, passed to the sinks of a plan that asks for everything.

`python -m tests.recorded.hand_made` writes down what comes of them; `test_recorded.py` holds the code against that.
Run it only where a change of names, files or pixels is meant.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib_dumpunet.assemble import Generation
from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.ports import BatchRow, Picture
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.plan import plan_prompts
from lib_dumpunet.prompt.texts import Texts
from lib_dumpunet.prompt.words import Token
from lib_dumpunet.resolve import resolve
from lib_dumpunet.session import Session, open_session
from lib_dumpunet.settings import (
    AttentionSettings,
    ColorSettings,
    DifferenceSettings,
    DumpSettings,
    FeatureSettings,
    Settings,
)
from lib_dumpunet.settings.fields import pack
from lib_dumpunet.settings.infotext import to_infotext
from lib_dumpunet.settings.json import from_dict
from lib_dumpunet.sinks.request import DumpRequest
from tests.unets import FakeClock, diffusers_unet

HERE = Path(__file__).resolve().parent
FORMATS = ("bin", "npy", "safetensors")
PROMPT, NEGATIVE = "red circle(~: M00: and star :~)", "blurry"
STEPS, SIZE = 2, (64, 48)
HEADS, TOKENS = 2, 6
GRID = (3, 4)  # height and width of the hand-made maps

SETTINGS: list[dict[str, Any]] = [
    {},
    {"features": {}},
    {"features": {"layers": "IN00-OUT03(+2),OUT10", "steps": "1,5-20(+5)", "average": "2-norm"}},
    {"features": {"color": {"method": "rgb", "formula": ["(2+v)/3", "1.0", "0.5"]}}},
    {"features": {"color": {"method": "white-black", "transform": "sigmoid", "gain": 2.5, "offset": -1}}},
    {"features": {"dump": {"format": "bin", "path": "somewhere"}}},
    {"attention": {"kinds": ["k", "qk", "vqk", "self", "words"], "words": "red circle, star", "lattice": 4}},
    {"attention": {"points": "8,8 40,24", "negative_words": "*", "steps": "@2-"}},
    {"layer_prompt": {}, "difference": {"layers": "M00", "average": "sum", "runs": "both"}},
    {"features": {}, "explorer": {"alone": True, "limit": 5}, "output": {"save": False, "log": True}},
]
"""What callers of the webui's API write, as they have written it until now."""


def numbers(tag: Tag, *shape: int) -> Tensor:
    """Make numbers that are the same on every machine: multiples of 1/64 from -4 to 4, different for each tag."""
    name = f"{tag.image} {tag.hires} {tag.step} {tag.block} {tag.kind} {tag.layer} {tag.branch}"
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    count = int(np.prod(shape))
    steps = (np.arange(count, dtype=np.int64) * 7919 + seed) * 104729 % 513
    return torch.from_numpy((steps.reshape(shape) - 256) / 64).float()


def shares(tag: Tag, *shape: int) -> Tensor:
    """Make numbers from 0 to 1, like attention."""
    return (numbers(tag, *shape) + 4) / 8


def captures() -> Iterator[Capture]:
    """Make the captures that hooks would give: two images, two steps and a hires pass."""
    for image, hires, step in [(0, False, 1), (0, False, 2), (1, False, 1), (1, False, 2), (0, True, 1)]:
        for block in ("IN01", "M00", "OUT11"):
            tag = Tag(image, step, block, hires=hires)
            yield Capture(tag, numbers(tag, 5, *GRID))
            for kind in ("plain", "steered"):
                one = replace(tag, kind=kind)
                yield Capture(one, numbers(one, 5, *GRID))
        for layer in (0, 1):
            for kind, shape in {
                "k": (HEADS, TOKENS, 3),
                "qk": (HEADS, TOKENS, *GRID),
                "vqk": (4, *GRID),
                "self": (HEADS, 2, 2, *GRID),
                "pooled_self": (*GRID, *GRID),
            }.items():
                tag = Tag(image, step, "M00", kind, layer, hires=hires)  # type: ignore[arg-type]
                # When it was recorded, the pooled maps had another name.
                named = replace(tag, kind="gaze") if kind == "pooled_self" else tag
                yield Capture(tag, shares(named, *shape))


@dataclass
class Host:
    """A clock, and the pictures."""

    clock: FakeClock = field(default_factory=FakeClock)
    pictures: list[Picture] = field(default_factory=list)

    def show(self, picture: Picture) -> None:
        self.pictures.append(picture)


def settings(file_format: str, folder: Path) -> Settings:
    """Ask for everything."""
    dump = DumpSettings(True, file_format, str(folder))
    return Settings(
        FeatureSettings(layers="IN01,M00,OUT11", average="1-norm", dump=dump),
        AttentionSettings(
            ("k", "qk", "vqk", "self"),
            layers="M00",
            average="sum",
            words="star, red circle",
            negative_words="blurry",
            points="8,8 40,24",
            color=ColorSettings("white-black", "linear", 0.0, 1.0),
            dump=dump,
            heat=dump,
        ),
        DifferenceSettings(
            True, layers="IN01,M00,OUT11", average="sum", color=ColorSettings("red-blue"), dump=dump
        ),
    )


def generation(unet: Model) -> Generation:
    """Describe two prompts with a text for M00, and their tokens."""
    attending = unet.attending
    template, negative = parse_prompt(PROMPT, unet.order), parse_prompt(NEGATIVE, unet.order)
    plan = plan_prompts([template] * 2, [negative] * 2, attending, STEPS)
    both = sorted({*plan.texts("cond"), *plan.texts("uncond")})
    texts = Texts(plan, {text: tokens(text) for text in both})
    request = DumpRequest(
        prompts=[PROMPT] * 2,
        negative_prompts=[NEGATIVE] * 2,
        seeds=[7, 8],
        sampler="DDIM",
        steps=STEPS,
        model="hand-made",
        blocks={"M00": {"input": [4, *GRID], "output": [5, *GRID]}},
        guidance=7.0,
    )
    return Generation(request, *SIZE, texts)


def tokens(text: str) -> tuple[Token, ...]:
    """Make a token for each word."""
    words = tuple(Token(word.encode(), ends_word=True) for word in text.split())
    padding = TOKENS - 1 - len(words)
    return (Token(mark="start"), *words, *(Token(mark="end" if i == 0 else "pad") for i in range(padding)))


def run(unet: Model, file_format: str, folder: Path) -> list[Picture]:
    """Pass all captures to the sinks of a plan; return the pictures by name."""
    host = Host()
    made = generation(unet)
    plan = resolve(settings(file_format, folder), unet.facts, made.prompts)
    with open_session(unet, plan, host, made, threads=1) as session:
        for capture in captures():
            session._queue.put(capture)
        session._queue.drain()
        for image in (0, 1):
            _add_heat(session, made, image)
            session.finish(image, Image.new("RGB", SIZE, (40, 90, 160)))
    assert session.problems == [], session.problems
    return sorted(host.pictures, key=lambda picture: picture.stem)


def _add_heat(session: Session, made: Generation, image: int) -> None:
    """Sum up words and points, as hooks do while sampling."""
    for row in (BatchRow(image, "cond"), BatchRow(image, "uncond")):
        tag = Tag(image, 1, "M00", "qk", branch=row.branch)
        maps = shares(tag, TOKENS, *GRID)
        session._sums.add(row, "word", maps, made.texts.text(row, "M00", 1))
    looks = shares(Tag(image, 1, "M00", "point"), 2, *GRID)
    session._sums.add(BatchRow(image, "cond"), "point", looks)


def told(picture: Picture) -> dict[str, Any]:
    """Return everything that a host gets of a picture; principal components round differently on other processors."""
    image = picture.image
    is_exact = picture.tag.kind != "pca"
    return {
        "stem": picture.stem,
        "caption": picture.caption,
        "numbers": picture.numbers if is_exact else {},
        "mode": image.mode,
        "size": list(image.size),
        "pixels": hashlib.sha256(image.tobytes()).hexdigest()[:16] if is_exact else "",
    }


def without_time(name: str) -> str:
    """Remove the run's start time from a name."""
    return re.sub(r"-\d{10,}\.bin", "-TIME.bin", name)


def parameters() -> list[dict[str, Any]]:
    """Return images' parameters, and the panel's values."""
    read = [(tree, from_dict(tree)) for tree in SETTINGS]
    return [{"api": tree, "parameters": to_infotext(asked), "controls": pack(asked)} for tree, asked in read]


def write(name: str, contents: Any) -> None:
    """Write one of the files."""
    text = json.dumps(contents, indent=1, ensure_ascii=False)
    (HERE / name).write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Record."""
    unet = describe(diffusers_unet("sd1"))
    write("parameters.json", parameters())
    for file_format in FORMATS:
        with TemporaryDirectory() as folder:
            pictures = run(unet, file_format, Path(folder))
            shutil.make_archive(str(HERE / file_format), "zip", folder)
    write("pictures.json", [told(picture) for picture in pictures])


if __name__ == "__main__":
    main()
