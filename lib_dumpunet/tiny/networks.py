"""The three networks in SD 1.x's layout, with initial weights from which such small networks learn fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from .tokenizer import BEGIN, END, LENGTH

VAE_WIDTHS = (16, 16, 32, 64)
HEAD_WIDTH = 16  # channels of an attention head, at every level
TEXT_WIDTH, TEXT_LAYERS = 96, 3


def new_vae() -> AutoencoderKL:
    """Make an untrained autoencoder: 8 x 8 pixels of 3 channels become one latent cell of 4 channels."""
    vae = AutoencoderKL(
        block_out_channels=VAE_WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=4,
        sample_size=256,
        scaling_factor=1.0,  # `standardise` folds it into the weights
    )
    _start_simple(vae)
    # The middle's attention stays the identity: what it would learn from small crops is wrong for whole pictures.
    for half in (vae.encoder, vae.decoder):
        out = half.mid_block.attentions[0].to_out
        _zero(out)
        out.requires_grad_(False)
    return vae


def new_unet(widths: tuple[int, ...]) -> UNet2DConditionModel:
    """Make an untrained U-Net with SD 1.x's 25 blocks and 16 attention layers."""
    unet = UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=[
            width // HEAD_WIDTH for width in widths
        ],  # diffusers' name for the number of heads
        norm_num_groups=4,
    )
    _start_simple(unet)
    _zero(unet.conv_out)
    return unet


def new_text_encoder(vocabulary: dict[str, int]) -> CLIPTextModel:
    """Make an untrained text encoder."""
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=vocabulary[BEGIN],
        eos_token_id=vocabulary[END],
        pad_token_id=vocabulary[END],
    )
    return CLIPTextModel(config)


def _zero(module: nn.Module) -> None:
    for weights in module.parameters():
        nn.init.zeros_(weights)


@torch.no_grad()
def _start_simple(model: nn.Module) -> None:
    """Initialise every residual branch to zero and every resampling to a plain mean or copy.

    Otherwise an autoencoder of this size stays nearly colour-blind for most of its training.
    """
    module: Any  # classes are recognised only by name
    for module in model.modules():
        kind = type(module).__name__
        if kind == "ResnetBlock2D":
            _zero(module.conv2)
            if module.conv_shortcut is not None:
                nn.init.orthogonal_(module.conv_shortcut.weight)
        elif kind == "Transformer2DModel":
            _zero(module.proj_out)
        elif kind in ("Downsample2D", "Upsample2D"):
            weight = nn.init.dirac_(module.conv.weight)
            if kind == "Downsample2D":  # the mean of 2 x 2 pixels
                weight[:, :, :2, :2] = weight[:, :, 1:2, 1:2] / 4


@torch.no_grad()
def fit_ends(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Initialise the autoencoder as a nearly linear one, by least squares on some pictures "b 3 h w".

    Its latents become the mean colour of each cell, and its output those colours. Large constant features keep the
    group norms from hiding a picture's brightness.
    """
    for conv in (vae.encoder.conv_in, vae.decoder.conv_in):
        nn.init.zeros_(conv.weight)
        nn.init.orthogonal_(conv.weight[:, :, 1, 1])
        conv.bias.copy_(torch.randn(len(conv.bias)).sign())
    for conv in (vae.quant_conv, vae.post_quant_conv):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    _zero(vae.encoder.conv_out)
    _zero(vae.decoder.conv_out)
    with _inputs_of(vae.encoder.conv_out) as seen:
        vae.encoder(pictures)
    _fit(vae.encoder.conv_out, seen[0], 1.5 * F.avg_pool2d(pictures, 8))
    vae.encoder.conv_out.bias[4:] = -4  # log variance: little noise in the latents at first
    with _inputs_of(vae.decoder.conv_out) as seen:
        vae.decode(vae.encode(pictures).latent_dist.mean)
    _fit(vae.decoder.conv_out, seen[0], pictures)


@contextmanager
def _inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _fit(conv: nn.Conv2d, features: Tensor, target: Tensor) -> None:
    """Set the centre of a convolution to the least squares map from features "b c h w" to the target."""
    rows, wanted = (x.movedim(1, -1).flatten(0, 2) for x in (features, target))
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    weight = torch.linalg.lstsq(rows, wanted).solution
    count = wanted.shape[1]
    assert conv.bias is not None
    conv.weight[:count, :, 1, 1], conv.bias[:count] = weight[:-1].T, weight[-1]


@torch.no_grad()
def standardise(vae: AutoencoderKL, latents: Tensor) -> None:
    """Standardise each latent channel over "b c h w" to mean 0 and standard deviation 1, by changing the two 1 x 1
    convolutions.

    So SD's scaling factor is 1 here, and decoded pictures stay the same.
    """
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    encode, decode = vae.quant_conv, vae.post_quant_conv
    encode.bias[:4] = (encode.bias[:4] - mean) / deviation
    encode.weight[:4] /= deviation.view(-1, 1, 1, 1)
    encode.bias[4:] -= 2 * deviation.log()  # the log variances
    decode.bias += decode.weight[:, :, 0, 0] @ mean
    decode.weight *= deviation.view(1, -1, 1, 1)
