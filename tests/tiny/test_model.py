"""The bundled model: SD 1.x's layout in few bytes, and it generates images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from lib_dumpunet.tiny import MODEL
from lib_dumpunet.tiny.attention import MapAverage
from lib_dumpunet.tiny.evaluate import Settings, generate, load
from lib_dumpunet.tiny.judge import read_picture
from lib_dumpunet.tiny.prompts import Prompt

LARGEST_FOLDER = 20_000_000  # bytes


@pytest.fixture(scope="module")
def pipeline() -> Iterator[StableDiffusionPipeline]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load(MODEL)
    torch.set_num_threads(threads)


def test_folder_is_small() -> None:
    assert sum(file.stat().st_size for file in MODEL.rglob("*") if file.is_file()) <= LARGEST_FOLDER


def test_every_weight_is_stored_as_fp16() -> None:
    for file in MODEL.rglob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            types = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
        # The position numbers of the text encoder are no weights.
        assert types - {"I64"} == {"F16"}, file.name


def test_every_part_loads_as_float32(pipeline: StableDiffusionPipeline) -> None:
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    assert {part.dtype for part in parts} == {torch.float32}


def test_unet_has_the_layout_of_sd1(pipeline: StableDiffusionPipeline) -> None:
    unet = pipeline.unet
    # As ldm counts: conv_in, resnets and downsamplers; the middle; resnets with their upsamplers.
    inputs = 1 + sum(len(block.resnets) + len(block.downsamplers or ()) for block in unet.down_blocks)
    outputs = sum(len(block.resnets) for block in unet.up_blocks)
    assert (inputs, 1, outputs) == (12, 1, 12)
    assert sum(name.endswith("attn2") for name, _ in unet.named_modules()) == 16


def test_latents_have_an_eighth_of_the_side(pipeline: StableDiffusionPipeline) -> None:
    with torch.no_grad():
        latents = pipeline.vae.encode(torch.zeros(1, 3, 64, 96)).latent_dist.mean
    assert latents.shape == (1, 4, 8, 12)


def test_color_word_tells_the_color_of_the_picture(pipeline: StableDiffusionPipeline) -> None:
    image = generate(pipeline, ["a large blue circle on a white background"], 1, Settings(steps=8))[0]
    assert image.size == (256, 256)
    reading = read_picture(image)
    assert (reading.main_color, reading.background) == ("blue", "white")


def test_reading_attention_does_not_change_a_picture(pipeline: StableDiffusionPipeline) -> None:
    prompt, settings = Prompt(("red",), ("circle",), "white"), Settings(steps=2)
    before = pipeline.unet.attn_processors
    plain = generate(pipeline, [prompt.text], 1, settings)[0]
    average = MapAverage()
    pipeline.unet.set_attn_processor({n: average if "attn2" in n else p for n, p in before.items()})
    watched = generate(pipeline, [prompt.text], 1, settings)[0]
    pipeline.unet.set_attn_processor(before)
    assert np.abs(np.asarray(plain, int) - np.asarray(watched, int)).max() <= 1
    assert np.allclose(average.maps.sum(0), 1, atol=1e-3)  # probabilities over the tokens
