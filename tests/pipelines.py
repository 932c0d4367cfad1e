"""Small pipelines of diffusers with random weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionSAGPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lib_dumpunet.hosts.diffusers.loading import load_pipeline
from lib_dumpunet.tiny.tokenizer import build_tokenizer
from tests.unets import CONTEXT, sdxl_unet

XL_WIDTHS = (10, 6)
WIDTHS, HEADS = (16, 24, 32, 32), (2, 3, 4, 4)
"""By level of the SD 1.x pipeline: channels, and heads of each attention layer."""
WORDS = (
    "a", "and", "above", "background", "below", "black", "blue", "blurry", "circle", "cross", "diamond", "green",
    "large", "left", "of", "on", "orange", "pink", "purple", "red", "right", "ring", "small", "square", "star", "the",
    "to", "triangle", "white", "yellow",
)  # fmt: skip
"""Each is one token; other words are tokens by their letters."""
_FOLDERS = tempfile.TemporaryDirectory()


@cache
def tokenizer_folder() -> Path:
    """Write a tokenizer that knows the words of the tests' prompts."""
    folder = Path(_FOLDERS.name) / "tokenizer"
    build_tokenizer(folder, WORDS)
    return folder


def small_vae() -> AutoencoderKL:
    """Make an autoencoder with 8x8 pixels per latent cell."""
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(32,) * 4,
        layers_per_block=1,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def small_text_encoder(kind: Any, tokenizer: CLIPTokenizer, width: int = CONTEXT) -> Any:
    """Make a text encoder for the vocabulary of a tokenizer."""
    torch.manual_seed(width)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = kind(config).eval()
    # Trained ones put out texts whose mean is not 0; emphasis keeps the mean.
    (norm,) = (one for name, one in encoder.named_modules() if name.endswith("final_layer_norm"))
    torch.nn.init.normal_(norm.bias)
    return encoder


def sd1_pipeline() -> StableDiffusionPipeline:
    """Make a pipeline of SD 1.x's layout."""
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder())
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=WIDTHS,
        attention_head_dim=HEADS,
        norm_num_groups=4,
        cross_attention_dim=CONTEXT,
    )
    return StableDiffusionPipeline(
        vae=small_vae(),
        text_encoder=small_text_encoder(CLIPTextModel, tokenizer),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@cache
def sd1_folder() -> Path:
    """Save the pipeline of SD 1.x's layout in diffusers' format."""
    folder = Path(_FOLDERS.name) / "sd1"
    sd1_pipeline().save_pretrained(folder)
    return folder


def load_sd1(**how: Any) -> Any:
    """Load the pipeline of SD 1.x's layout as a user's."""
    return load_pipeline(str(sd1_folder()), device="cpu", **how)


def sdxl_pipeline() -> StableDiffusionXLPipeline:
    """Make an SDXL pipeline; as in the real one, the second tokenizer pads with "!"."""
    first = CLIPTokenizer.from_pretrained(tokenizer_folder())
    second = CLIPTokenizer.from_pretrained(tokenizer_folder(), pad_token="!")
    return StableDiffusionXLPipeline(
        vae=small_vae(),
        text_encoder=small_text_encoder(CLIPTextModel, first, XL_WIDTHS[0]),
        text_encoder_2=small_text_encoder(CLIPTextModelWithProjection, second, XL_WIDTHS[1]),
        tokenizer=first,
        tokenizer_2=second,
        unet=sdxl_unet(),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear"),
        add_watermarker=False,
    )


def sag_pipeline(tiny: Any) -> StableDiffusionSAGPipeline:
    """Make a pipeline that does not say whether it uses guidance, and calls the U-Net twice per step."""
    parts = {name: part for name, part in tiny.components.items() if name != "image_encoder"}
    pipe = StableDiffusionSAGPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def encoded_by(pipe: Any) -> Iterator[list[tuple[int, ...]]]:
    """Record the tokens of every text that the text encoder gets."""
    encoded: list[tuple[int, ...]] = []

    def see(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        encoded.extend(map(tuple, (args[0] if args else kwargs["input_ids"]).tolist()))

    handle = pipe.text_encoder.register_forward_pre_hook(see, with_kwargs=True)
    try:
        yield encoded
    finally:
        handle.remove()
