"""Measure whether words land on what they name: compare the bundled model's heatmaps with the objects in its images."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.hosts.diffusers.loading import load_pipeline
from lib_dumpunet.hosts.diffusers.seen import Trace
from lib_dumpunet.hosts.diffusers.trace import trace
from lib_dumpunet.image.overlay import resize_map
from lib_dumpunet.tiny.judge import read_picture
from lib_dumpunet.tiny.prompts import Prompt, draw_prompts

REQUIRED = 1.5  # least ratio of attention inside to outside
SMALLEST = 0.01  # fraction of the image; a smaller object counts as missing
BATCH = 10

Ratios = dict[str, list[float]]


def measure_words(count: int = 40, steps: int = 20) -> list[Row]:
    """Generate images of two objects, and compare each word's attention inside its object with that outside.

    Maps are those that users get: means over heads, layers and steps, resized to the image. An image's pixels show
    where the object is. Objects that the model left out are not counted.
    """
    pipe = load_pipeline("", device="cpu")
    ratios: Ratios = {"colour": [], "shape": []}
    prompts = draw_prompts(count, 2, seed=21)
    for first in range(0, count, BATCH):
        part = prompts[first : first + BATCH]
        with trace(pipe, attention="words", features=False) as seen:
            images = _generate(pipe, part, first, steps)
        for number, (prompt, image) in enumerate(zip(part, images, strict=True)):
            _add(ratios, prompt, image, seen, number)
    return [
        Row(
            f"attention to a {kind} word, inside its object / outside",
            statistics.mean(values),
            "x",
            REQUIRED,
            True,
        )
        for kind, values in ratios.items()
    ]


def _generate(pipe: Any, prompts: Sequence[Prompt], seed: int, steps: int) -> list[Image.Image]:
    seeds = range(seed, seed + len(prompts))
    result = pipe(
        [prompt.text for prompt in prompts],
        num_inference_steps=steps,
        guidance_scale=4.0,
        generator=[torch.Generator().manual_seed(one) for one in seeds],
    )
    return list(result.images)


def _add(ratios: Ratios, prompt: Prompt, image: Image.Image, seen: Trace, number: int) -> None:
    reading = read_picture(image)
    for color, shape in zip(prompt.colors, prompt.shapes, strict=True):
        inside = reading.where(color)
        if inside.mean() < SMALLEST or prompt.shapes.count(shape) > 1:
            continue  # a shape named twice is in two places
        for kind, word in (("colour", color), ("shape", shape)):
            density = resize_map(seen.word(word, number), inside.shape[::-1])
            ratios[kind].append(float(np.mean(density[inside]) / np.mean(density[~inside])))
