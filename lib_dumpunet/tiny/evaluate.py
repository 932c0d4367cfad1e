"""Measure the bundled model against its targets: `python -m lib_dumpunet.tiny.evaluate [FOLDER]`.

This generates images of random prompts and judges them by their pixels alone (`judge`). The attention of the words
for colour and shape is compared inside and outside the pixels of the word's own object (`attention`). The exit code
is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw
from rich.progress import track

from . import MODEL
from .attention import MapAverage, attention_ratios
from .judge import Reading, best_overlap, closest_shape, read_picture, relation_holds
from .prompts import Prompt, draw_prompts

BATCH = 10
BAR = {
    "one object: colour right": 98.0,
    "one object: shape right": 98.0,
    "one object: background right": 98.0,
    "one object: edges (intersection over union)": 90.0,
    "two objects: both shapes right": 85.0,
    "two objects: both colours on the right shapes": 85.0,
    "two objects: relation right": 85.0,
}
SHEET = (
    "a red circle",
    "a green star",
    "a large yellow heart",
    "a blue square on a black background",
    "a purple ring on a yellow background",
    "a small orange diamond",
    "a cyan cross on a gray background",
    "a pink triangle on a blue background",
    "a red circle and a blue square",
    "a yellow star left of a purple ring",
    "a green heart above an orange diamond",
    "a black cross to the right of a red triangle on a pink background",
)


@dataclass(frozen=True)
class Settings:
    """How many images to generate, and how."""

    count: int = 400
    maps: int = 20
    steps: int = 20
    guidance: float = 4.0


def generate(
    pipeline: StableDiffusionPipeline, texts: Sequence[str], seed: int, settings: Settings
) -> list[Image.Image]:
    """Generate one image for each text, from consecutive seeds."""
    images: list[Image.Image] = []
    for first in track(range(0, len(texts), BATCH), f"{len(texts)} images", transient=True):
        part = list(texts[first : first + BATCH])
        images += pipeline(
            part,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(seed + first + i) for i in range(len(part))],
        ).images
    return images


def judge_alone(prompt: Prompt, reading: Reading) -> dict[str, bool]:
    """Compare an image of one object with its prompt."""
    return {
        "one object: colour right": reading.main_color == prompt.colors[0],
        "one object: shape right": closest_shape(reading.foreground) == prompt.shapes[0],
        "one object: background right": reading.background == prompt.background,
    }


def judge_paired(prompt: Prompt, reading: Reading) -> dict[str, bool]:
    """Compare an image of two objects with its prompt; "and" requires no order."""
    first, second = (reading.where(color) for color in prompt.colors)
    both = all(map(reading.has, prompt.colors))
    seen = [(closest_shape(mask), reading.color_of(mask)) for mask in reading.objects]
    asked = list(zip(prompt.shapes, prompt.colors, strict=True))
    result = {
        "two objects: both colours present": both,
        "two objects: both shapes right": sorted(str(shape) for shape, _ in seen) == sorted(prompt.shapes),
        "two objects: both colours on the right shapes": Counter(seen) == Counter(asked),
        "two objects: background right": reading.background == prompt.background,
    }
    if prompt.relation != "and":
        result["two objects: relation right"] = both and relation_holds(prompt.relation, first, second)
    return result


def percentages(judgements: Sequence[dict[str, bool]]) -> dict[str, float]:
    """Return the percentage of images in which each measure is right, of those that it applies to."""
    asked = Counter(point for judgement in judgements for point in judgement)
    right = Counter(point for judgement in judgements for point, holds in judgement.items() if holds)
    return {point: round(100 * right[point] / asked[point], 1) for point in asked}


def measure_attention(pipeline: StableDiffusionPipeline, settings: Settings) -> dict[str, float]:
    """Average the attention ratios over images of two objects, one image at a time."""
    before = pipeline.unet.attn_processors
    ratios: dict[str, list[float]] = {"colour": [], "shape": []}
    missing = 0
    for i, prompt in enumerate(draw_prompts(settings.maps, 2, seed=9)):
        average = MapAverage()
        pipeline.unet.set_attn_processor({n: average if "attn2" in n else p for n, p in before.items()})
        image = generate(pipeline, [prompt.text], 3000 + i, settings)[0]
        found = attention_ratios(prompt, read_picture(image), average.maps)
        missing += not found
        for kind, values in found.items():
            ratios[kind] += values
    pipeline.unet.set_attn_processor(before)
    result = {
        f"attention of a {kind} word, inside / outside": round(float(np.mean(values)), 2) if values else 0.0
        for kind, values in ratios.items()
    }
    return result | {"attention: images left out, an object missing": float(missing)}


def measure(pipeline: StableDiffusionPipeline, settings: Settings) -> dict[str, float]:
    """Measure everything; results for images are percentages."""
    results: dict[str, float] = {}
    for objects, new in itertools.product((1, 2), (False, True)):
        results |= _measure_row(pipeline, settings, objects, new)
    if settings.maps:
        results |= measure_attention(pipeline, settings)
    return results


def _measure_row(
    pipeline: StableDiffusionPipeline, settings: Settings, objects: int, new: bool
) -> dict[str, float]:
    """Judge images of one or two objects, with pairs of colour and shape from training or, if ``new``, not."""
    prompts = draw_prompts(settings.count, objects, seed=5, new=new)
    images = generate(pipeline, [prompt.text for prompt in prompts], 1000 * objects, settings)
    judge = judge_alone if objects == 1 else judge_paired
    pairs = list(zip(prompts, images, strict=True))
    results = percentages([judge(prompt, read_picture(image)) for prompt, image in pairs])
    if objects == 1:
        overlaps = [edges(prompt, image) for prompt, image in pairs]
        results["one object: edges (intersection over union)"] = round(100 * float(np.mean(overlaps)), 1)
    return {f"{'new pairs, ' * new}{point}": value for point, value in results.items()}


def edges(prompt: Prompt, image: Image.Image) -> float:
    """Return the overlap (intersection over union) of an image's object with the ideal shape."""
    return best_overlap(read_picture(image, image.width).foreground, prompt.shapes[0])


def draw_sheet(pipeline: StableDiffusionPipeline, settings: Settings, seeds: int = 4) -> Image.Image:
    """Draw a sheet of sample images: each prompt from a few seeds."""
    cell, columns = 160, 3
    rows = -(-len(SHEET) // columns)
    sheet = Image.new("RGB", (columns * (seeds * cell + 12), rows * (cell + 18)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, text in enumerate(SHEET):
        x, y = i % columns * (seeds * cell + 12), i // columns * (cell + 18)
        draw.text((x + 2, y + 2), text, fill="black")
        for j, image in enumerate(generate(pipeline, [text] * seeds, 100, settings)):
            small = image.resize((cell - 2, cell - 2), Image.Resampling.BOX)
            sheet.paste(small, (x + j * cell, y + 16))
    return sheet


def missed(results: dict[str, float]) -> list[str]:
    """List the targets that were measured and missed."""
    return [point for point, least in BAR.items() if results.get(point, least) < least]


def table(results: dict[str, float]) -> str:
    """Format the results next to their targets."""
    lines = [f"{'measure':<50}{'result':>8}{'target':>8}"]
    for point, value in results.items():
        least = f"{BAR[point]:g}" if point in BAR else ""
        verdict = "" if point not in BAR else "  missed" if value < BAR[point] else "  reached"
        lines.append(f"{point:<50}{value:>8g}{least:>8}{verdict}")
    return "\n".join(lines)


def load(folder: Path, device: str = "cpu") -> StableDiffusionPipeline:
    """Load a pipeline folder in float32."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main(arguments: list[str] | None = None) -> int:
    """Measure a pipeline folder and print the table; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=MODEL)
    parser.add_argument(
        "--count", type=int, default=Settings.count, help="number of images with one object, and with two"
    )
    parser.add_argument(
        "--maps", type=int, default=Settings.maps, help="number of images whose attention is measured"
    )
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--guidance", type=float, default=Settings.guidance)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="JSON file to write the results to")
    parser.add_argument("--sheet", type=Path, help="image file for a sheet of sample images")
    given = parser.parse_args(arguments)
    settings = Settings(given.count, given.maps, given.steps, given.guidance)
    pipeline = load(given.folder, given.device)
    if given.sheet:
        draw_sheet(pipeline, settings).save(given.sheet)
    results = measure(pipeline, settings)
    print(table(results))
    if given.json:
        given.json.write_text(json.dumps({"settings": asdict(settings), "results": results}, indent=1) + "\n")
    return int(bool(missed(results)))


if __name__ == "__main__":
    sys.exit(main())
