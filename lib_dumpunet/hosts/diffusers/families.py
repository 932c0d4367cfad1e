"""The known families of Stable Diffusion checkpoint files, with diffusers' configurations of their parts.

A checkpoint file contains only tensors. The rest of a model are published facts, from the model cards and from the
configurations of the released weights, so that no network is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]

NOISE: Config = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
PNDM = ("PNDMScheduler", {**NOISE, "skip_prk_steps": True, "set_alpha_to_one": False})
DDIM = ("DDIMScheduler", {**NOISE, "clip_sample": False, "set_alpha_to_one": False})
EULER = ("EulerDiscreteScheduler", {**NOISE, "timestep_spacing": "leading"})

_VAE: Config = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
VAE_SD: Config = {**_VAE, "sample_size": 512, "scaling_factor": 0.18215}
VAE_XL: Config = {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True}

_CLIP: Config = {
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
CLIP_L: Config = {
    **_CLIP,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
# SD 2.x uses the last but one of its 24 layers, so the last is left out.
OPEN_CLIP_H: Config = {
    **_CLIP,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 1024,
}
OPEN_CLIP_BIG_G: Config = {
    **_CLIP,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}

_FOUR_LEVELS: Config = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
}
# diffusers calls the number of heads "attention_head_dim".
UNET_SD1: Config = {**_FOUR_LEVELS, "cross_attention_dim": 768, "attention_head_dim": 8}
UNET_SD2: Config = {
    **_FOUR_LEVELS,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
    "upcast_attention": True,  # in fp16 the attention of SD 2.1 overflows
}
_SIZES: Config = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "use_linear_projection": True,
    "layers_per_block": 2,
    "sample_size": 128,
}
UNET_XL: Config = {
    **_SIZES,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "projection_class_embeddings_input_dim": 2816,
}
UNET_REFINER: Config = {
    **_SIZES,
    "block_out_channels": (384, 768, 1536, 1536),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 4,
    "attention_head_dim": (6, 12, 24, 24),
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 2560,
}


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder: the prefix of its tensors in a file, its configuration, and its padding token."""

    prefix: str
    config: Config
    projected: bool = False  # also outputs a projected pooled embedding
    pad: str = "<|endoftext|>"

    @property
    def open_clip(self) -> bool:
        """Whether its tensors have OpenCLIP's names rather than transformers'."""
        return self.prefix.endswith(".model.")


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        name: for display.
        unet, vae: configurations of diffusers' classes.
        text_encoders: by their names in the pipeline.
        scheduler: its default sampler, as diffusers' class and configuration.
    """

    name: str
    unet: Config
    vae: Config
    text_encoders: Mapping[str, TextEncoder]
    scheduler: tuple[str, Config] = PNDM

    @property
    def xl(self) -> bool:
        """Whether the U-Net also takes image sizes and a pooled text embedding."""
        return "addition_embed_type" in self.unet


SD1 = Family(
    "Stable Diffusion 1.x",
    UNET_SD1,
    VAE_SD,
    {"text_encoder": TextEncoder("cond_stage_model.transformer.", CLIP_L)},
)
SD2 = Family(
    "Stable Diffusion 2.x",
    UNET_SD2,
    VAE_SD,
    {"text_encoder": TextEncoder("cond_stage_model.model.", OPEN_CLIP_H, pad="!")},
    DDIM,
)
SDXL = Family(
    "Stable Diffusion XL",
    UNET_XL,
    VAE_XL,
    {
        "text_encoder": TextEncoder("conditioner.embedders.0.transformer.", CLIP_L),
        "text_encoder_2": TextEncoder("conditioner.embedders.1.model.", OPEN_CLIP_BIG_G, True, "!"),
    },
    EULER,
)
REFINER = Family(
    "the refiner of Stable Diffusion XL",
    UNET_REFINER,
    VAE_XL,
    {"text_encoder_2": TextEncoder("conditioner.embedders.0.model.", OPEN_CLIP_BIG_G, True, "!")},
    EULER,
)
