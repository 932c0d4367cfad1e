"""Load a checkpoint file as a pipeline, without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lib_dumpunet.errors import UnsupportedModelError
from lib_dumpunet.hosts.diffusers.checkpoint import (
    VAES,
    Checkpoint,
    fill,
    prediction_of,
    probed_prediction,
    read_checkpoint,
)
from lib_dumpunet.hosts.diffusers.clip_tokenizer import clip_tokenizer
from lib_dumpunet.hosts.diffusers.families import SD2, Family, TextEncoder
from lib_dumpunet.hosts.diffusers.header import FIELD, UNET, recognise


class Configuration(Protocol):
    """The configuration of a model, as opposed to its tensors."""

    @property
    def unet(self) -> Mapping[str, Any]:
        """The U-Net's configuration."""

    @property
    def vae(self) -> Mapping[str, Any]:
        """The autoencoder's configuration."""

    def text_encoder(self, name: str) -> CLIPTextConfig:
        """Return the configuration of a text encoder, by the pipeline's name of it."""

    def tokenizer(self, name: str) -> Any:
        """Make the tokenizer of a text encoder."""

    def scheduler(self) -> Any:
        """Make the model's own sampler."""

    def loaded(self, name: str, kind: Any) -> Any | None:
        """Load a whole part that the file lacks; None if it is not available here either."""


class Published:
    """The configuration that a family was released with."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self.unet, self.vae = family.unet, family.vae

    def text_encoder(self, name: str) -> CLIPTextConfig:
        """Return the configuration of a text encoder, by the pipeline's name of it."""
        return CLIPTextConfig(**self._family.text_encoders[name].config)

    def tokenizer(self, name: str) -> Any:
        """Make the tokenizer of a text encoder."""
        return clip_tokenizer(self._family.text_encoders[name].pad)

    def scheduler(self) -> Any:
        """Make the model's own sampler."""
        kind, config = self._family.scheduler
        return getattr(diffusers, kind).from_config(config)

    def loaded(self, name: str, kind: Any) -> None:
        """Return None, because no weights are bundled."""


class Given:
    """The configuration from a folder in diffusers format, local or on the hub."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.unet = UNet2DConditionModel.load_config(folder, subfolder="unet")
        self.vae = AutoencoderKL.load_config(folder, subfolder="vae")

    def text_encoder(self, name: str) -> CLIPTextConfig:
        """Return the configuration of a text encoder, by the pipeline's name of it."""
        config: CLIPTextConfig = CLIPTextConfig.from_pretrained(self._folder, subfolder=name)
        return config

    def tokenizer(self, name: str) -> Any:
        """Make the tokenizer of a text encoder."""
        subfolder = name.replace("text_encoder", "tokenizer")
        return CLIPTokenizer.from_pretrained(self._folder, subfolder=subfolder)

    def scheduler(self) -> Any:
        """Make the model's own sampler."""
        _, kind = StableDiffusionPipeline.load_config(self._folder)["scheduler"]
        return getattr(diffusers, kind).from_pretrained(self._folder, subfolder="scheduler")

    def loaded(self, name: str, kind: Any) -> Any | None:
        """Load a whole part that the file lacks; None if it is not available here either."""
        folder = Path(self._folder, name)
        weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
        return kind.from_pretrained(self._folder, subfolder=name) if weights else None


def load_single_file(
    path: Path, dtype: torch.dtype, config: str | None, prediction: str, tell: Callable[[str], None]
) -> Any:
    """Load a checkpoint file as a pipeline.

    Args:
        path: the file.
        dtype: dtype to convert the weights to.
        config: a folder in diffusers format, or a hub id, if the model does not have its family's published shape.
        prediction: "epsilon", "v_prediction", or empty to detect it.
        tell: receives a sentence about the detected family and prediction type.
    Raises:
        SettingsError, UnsupportedModelError: if it is not a model, or cannot be read.
    """
    checkpoint = read_checkpoint(path)
    family = recognise(checkpoint.header)
    source: Configuration = Given(config) if config else Published(family)
    parts = {
        "unet": _unet(checkpoint, source, dtype),
        "vae": _vae(checkpoint, source, dtype),
        "scheduler": source.scheduler(),
    }
    for name, encoder in family.text_encoders.items():
        parts[name] = _text_encoder(checkpoint, source, name, encoder, dtype)
        parts[name.replace("text_encoder", "tokenizer")] = source.tokenizer(name)
    said, where = _prediction(checkpoint, family, prediction, parts["unet"], config)
    if said:
        zero_snr = {"rescale_betas_zero_snr": True} if "ztsnr" in checkpoint.weights else {}
        parts["scheduler"] = type(parts["scheduler"]).from_config(
            parts["scheduler"].config, prediction_type=said, **zero_snr
        )
    predicts = "noise" if parts["scheduler"].config.prediction_type == "epsilon" else "velocity"
    tell(f"{path.name} is of {family.name} and predicts {predicts}, by {where or 'its configuration'}.")
    if family.xl:
        pipe = StableDiffusionXLPipeline(**parts)
    else:
        none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipe = StableDiffusionPipeline(**parts, **none)
    pipe.register_to_config(_name_or_path=str(path))
    return pipe


def _prediction(
    checkpoint: Checkpoint, family: Family, asked: str, unet: Any, config: str | None
) -> tuple[str, str]:
    if asked:
        return asked, "--prediction"
    said = prediction_of(checkpoint)
    if said[0] or config:
        return said
    if family is SD2:
        return probed_prediction(unet), "a call of its U-Net"
    return "epsilon", "its family"


def _unet(checkpoint: Checkpoint, source: Configuration, dtype: torch.dtype) -> Any:
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(source.unet)
    weights = convert_ldm_unet_checkpoint(_those(checkpoint, UNET), dict(unet.config))
    fill(unet, weights, dtype, "its U-Net", checkpoint.path)
    return unet.eval()


def _vae(checkpoint: Checkpoint, source: Configuration, dtype: torch.dtype) -> Any:
    if not checkpoint.has(*VAES):
        return _elsewhere(source, "vae", AutoencoderKL, "autoencoder (VAE)", checkpoint.path).to(dtype)
    with init_empty_weights():
        vae = AutoencoderKL.from_config(source.vae)
    weights = convert_ldm_vae_checkpoint(_those(checkpoint, *VAES), dict(vae.config))
    fill(vae, weights, dtype, "its autoencoder (VAE)", checkpoint.path)
    return vae.eval()


def _text_encoder(
    checkpoint: Checkpoint, source: Configuration, name: str, encoder: TextEncoder, dtype: torch.dtype
) -> Any:
    kind = CLIPTextModelWithProjection if encoder.projected else CLIPTextModel
    if not checkpoint.has(encoder.prefix):
        return _elsewhere(source, name, kind, "text encoder", checkpoint.path).to(dtype)
    with init_empty_weights():
        model = kind(source.text_encoder(name))
    tensors = _those(checkpoint, encoder.prefix)
    if encoder.open_clip:
        weights = convert_open_clip_checkpoint(model, tensors, prefix=encoder.prefix)
    else:
        weights = convert_ldm_clip_checkpoint(tensors)
    if not hasattr(model, "text_model"):  # transformers 5.6 merged it into the model
        weights = {key.removeprefix("text_model."): tensor for key, tensor in weights.items()}
    fill(model, weights, dtype, "its text encoder", checkpoint.path)
    return model.eval()


def _elsewhere(source: Configuration, name: str, kind: Any, what: str, path: Path) -> Any:
    model = source.loaded(name, kind)
    if model is None:
        raise UnsupportedModelError(
            f"{path.name} has no {what}",
            remedy="Give --config with a folder in diffusers format that has one, or a file with all parts.",
            field=FIELD,
        )
    return model


def _those(checkpoint: Checkpoint, *prefixes: str) -> dict[str, torch.Tensor]:
    """Return only the tensors with these prefixes: diffusers' converters use all that they get."""
    return {name: tensor for name, tensor in checkpoint.weights.items() if name.startswith(prefixes)}
