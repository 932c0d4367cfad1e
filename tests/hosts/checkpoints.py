"""A small SD 1.x model with random weights, as a folder in diffusers format and as a webui's checkpoint file."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from tests.pipelines import small_text_encoder, small_vae, tokenizer_folder
from tests.unets import diffusers_unet, ldm_unet

LDM_VAE = {
    "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def small_folder(path: Path) -> Path:
    """Save the model in diffusers format."""
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder())
    StableDiffusionPipeline(
        vae=small_vae(),
        text_encoder=small_text_encoder(CLIPTextModel, tokenizer),
        tokenizer=tokenizer,
        unet=diffusers_unet("sd1"),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(path)
    return path


def small_checkpoint(folder: Path) -> dict[str, Tensor]:
    """Make the weights of a checkpoint file, with ldm's names; the text encoder is the folder's."""
    from ldm.modules.diffusionmodules.model import Decoder, Encoder

    torch.manual_seed(0)
    parts = {
        "model.diffusion_model.": ldm_unet("sd1"),
        "first_stage_model.encoder.": Encoder(**LDM_VAE),
        "first_stage_model.decoder.": Decoder(**LDM_VAE),
        "first_stage_model.quant_conv.": torch.nn.Conv2d(8, 8, 1),
        "first_stage_model.post_quant_conv.": torch.nn.Conv2d(4, 4, 1),
        "cond_stage_model.transformer.text_model.": CLIPTextModel.from_pretrained(folder / "text_encoder"),
    }
    return {
        prefix + name.removeprefix("text_model."): tensor.contiguous().clone()
        for prefix, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
