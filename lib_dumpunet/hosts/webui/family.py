"""The two families of webuis, and how they differ: AUTOMATIC1111's, and Forge with its successors.

A family is recognised by what its models have. Differences between versions of one webui are in `compat`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from modules import shared
from torch import nn


@dataclass(frozen=True)
class Family:
    """What differs between the families.

    Attributes:
        unet: returns the U-Net that samples.
        encoders: yields what may split prompts into tokens.
        prepare_encoding: sets up the text encoder as the webui does before it encodes a job's prompts.
        has_chunks: whether U-Net calls consist of chunks (`chunks`), in which texts shorter than others are repeated
            whole.
    """

    unet: Callable[[Any], nn.Module]
    encoders: Callable[[Any], Iterator[Any]]
    prepare_encoding: Callable[[Any], None]
    has_chunks: bool


def family_of(sd_model: Any) -> Family:
    """Return the family of a loaded model."""
    return FORGE if hasattr(sd_model, "forge_objects") else AUTOMATIC1111


def live_unet(sd_model: Any) -> nn.Module:
    """Return the U-Net that samples."""
    return family_of(sd_model).unet(sd_model)


def _unet(sd_model: Any) -> nn.Module:
    unet: nn.Module = sd_model.model.diffusion_model
    return unet


def _encoders(sd_model: Any) -> Iterator[Any]:
    encoder = getattr(sd_model, "cond_stage_model", None)
    yield encoder
    yield from getattr(encoder, "embedders", ())


def _nothing(_: Any) -> None:
    return None


def _forge_unet(sd_model: Any) -> nn.Module:
    unet: nn.Module = sd_model.forge_objects.unet.model.diffusion_model
    return unet


def _forge_encoders(sd_model: Any) -> Iterator[Any]:
    for name in ("text_processing_engine", "text_processing_engine_l"):
        yield getattr(sd_model, name, None)
    yield from _encoders(sd_model)  # those of reForge and Classic


def _set_clip_skip(sd_model: Any) -> None:
    if hasattr(sd_model, "set_clip_skip"):
        sd_model.set_clip_skip(int(shared.opts.CLIP_stop_at_last_layers))


AUTOMATIC1111 = Family(_unet, _encoders, _nothing, has_chunks=False)
FORGE = Family(_forge_unet, _forge_encoders, _set_clip_skip, has_chunks=True)
