"""Small pipelines of diffusers with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionSAGPipeline,
    StableDiffusionXLPipeline,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lib_dumpunet.tiny import MODEL
from tests.unets import CONTEXT, sdxl_unet

XL_WIDTHS = (10, 6)
TINY = json.loads((MODEL / "unet" / "config.json").read_text("utf-8"))
WIDTHS, HEADS = TINY["block_out_channels"], TINY["attention_head_dim"]
"""Of the bundled model, by level: channels, and heads of each attention layer."""


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
    return kind(config).eval()


def sdxl_pipeline() -> StableDiffusionXLPipeline:
    """Make an SDXL pipeline; as in the real one, the second tokenizer pads with "!"."""
    first = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    second = CLIPTokenizer.from_pretrained(MODEL / "tokenizer", pad_token="!")
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
