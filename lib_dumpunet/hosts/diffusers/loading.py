"""Load a pipeline from a file, a folder or the hub, or say in one sentence why that failed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

from lib_dumpunet.errors import DumpUNetError, SettingsError, UnsupportedModelError
from lib_dumpunet.hooks.shapes import BlockInfo, measure_blocks
from lib_dumpunet.hosts.diffusers.find import check_folder, find_model, require_unet
from lib_dumpunet.hosts.diffusers.header import FIELD, NO_UNET
from lib_dumpunet.hosts.diffusers.single_file import load_single_file
from lib_dumpunet.models.describe import describe
from lib_dumpunet.tiny import MODEL

log = logging.getLogger("dumpunet")

DTYPES = {"auto": None, "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
PREDICTIONS = {"auto": "", "epsilon": "epsilon", "v": "v_prediction"}
"""Prediction types by the names of --prediction: noise or velocity."""
HUB_PATIENCE = 10
"""Timeout for the hub, in seconds."""


def load_pipeline(
    model: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    config: str | None = None,
    prediction: str = "auto",
    tell: Callable[[str], None] = log.info,
) -> Any:
    """Load a text-to-image pipeline.

    Args:
        model: a hub id, a folder in diffusers format, a single checkpoint file, or empty for the bundled model.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" (fp16 on a GPU, fp32 on a CPU), "fp16", "bf16" or "fp32".
        config: folder in diffusers format, or hub id, with the configuration of a checkpoint file, if it differs from
            its family's.
        prediction: "auto" (from the model's own configuration), "epsilon" or "v".
        tell: receives a sentence about the detected family and prediction type of a checkpoint file.
    Raises:
        SettingsError: if there is no such model, or it cannot be read.
        UnsupportedModelError: if the model has no U-Net.
    """
    place = pick_device(device)
    predicted = PREDICTIONS[prediction]
    weights = pick_dtype(dtype, place)
    with _as_user_error(model):
        pipe = _from_anywhere(model, weights, config, predicted, tell)
        _require_text_to_image(pipe)
        _require_matching_texts(pipe)
        describe(pipe.unet)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(place)


@contextmanager
def _as_user_error(model: str) -> Iterator[None]:
    """Turn any error into a SettingsError of one sentence: libraries raise many kinds of errors for a bad file."""
    try:
        yield
    except DumpUNetError:
        raise
    except Exception as error:
        raise _unreadable(model, error) from error


def _require_text_to_image(pipe: Any) -> None:
    name = type(pipe).__name__
    if getattr(pipe, "unet", None) is None:
        raise UnsupportedModelError(f"{name} has no U-Net", remedy=NO_UNET, field=FIELD)
    channels = pipe.unet.config.in_channels
    if not isinstance(pipe, (StableDiffusionPipeline, StableDiffusionXLPipeline)) or channels != 4:
        raise UnsupportedModelError(
            f"the model is not a text-to-image model ({name}, {channels} input channels)",
            remedy="Choose one that is not for inpainting, refining or upscaling.",
            field=FIELD,
        )


def _require_matching_texts(pipe: Any) -> None:
    """Refuse a model whose text encoders do not fit its U-Net: its first call would fail with an obscure error."""
    encoders = [getattr(pipe, name, None) for name in ("text_encoder", "text_encoder_2")]
    given = sum(encoder.config.hidden_size for encoder in encoders if encoder is not None)
    taken = _widest(pipe.unet.config.cross_attention_dim)
    if given and given != taken:
        raise UnsupportedModelError(
            f"the text encoder gives {given} values per token, but the U-Net takes {taken}",
            remedy="Its parts come from different models: take all of them from one.",
            field=FIELD,
        )


def pick_device(device: str) -> torch.device:
    """Return the device; "auto" chooses the fastest available one.

    Raises:
        SettingsError: if it is not available.
    """
    if device == "auto":
        device = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        place = torch.device(device)
        if place.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(device)
        torch.empty(0, device=place)
        return place
    except (RuntimeError, AssertionError, NotImplementedError):
        raise SettingsError(
            f"{device!r} is not available here", remedy=f"Use {_devices()}.", field="device"
        ) from None


def pick_dtype(dtype: str, place: torch.device) -> torch.dtype:
    """Return the dtype of the weights; "auto" is fp16 on a GPU and fp32 on a CPU."""
    return DTYPES[dtype] or (torch.float32 if place.type == "cpu" else torch.float16)


def block_table(config: Mapping[str, Any], width: int, height: int) -> list[BlockInfo]:
    """Measure the blocks for images of ``width`` x ``height`` pixels.

    A U-Net with the same configuration runs on the meta device, which needs no weights, computes nothing, and does not
    trigger hooks on the live U-Net.
    """
    unet = unet_shell(config)
    latents = torch.empty(1, config["in_channels"], height // 8, width // 8, device="meta")
    call: dict[str, Any] = {
        "encoder_hidden_states": torch.empty(1, 77, _widest(config["cross_attention_dim"]), device="meta")
    }
    if config["addition_embed_type"] == "text_time":
        times = 6 * config["addition_time_embed_dim"]
        call["added_cond_kwargs"] = {
            "text_embeds": torch.empty(
                1, config["projection_class_embeddings_input_dim"] - times, device="meta"
            ),
            "time_ids": torch.empty(1, 6, device="meta"),
        }
    with torch.no_grad():
        return measure_blocks(describe(unet), lambda: unet(latents, torch.zeros(1, device="meta"), **call))


def unet_shell(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """Build a U-Net without weights from its configuration."""
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)


def unet_config(model: str) -> Mapping[str, Any] | None:
    """Read the U-Net's configuration from a folder; None if only loading the model can tell."""
    with _as_user_error(model):
        folder = MODEL if not model else Path(model)
        if not (folder / "unet" / "config.json").is_file():
            return None
        check_folder(folder)
        # Values missing in the file get the class's defaults.
        config: Mapping[str, Any] = UNet2DConditionModel.load_config(folder, subfolder="unet")
        return unet_shell(config).config


def _devices() -> str:
    """List the available devices."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return ", ".join(["auto", *(name for name, is_there in there.items() if is_there)]) + " or cpu"


def _widest(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else max(size)


def _from_anywhere(
    model: str, dtype: torch.dtype, config: str | None, prediction: str, tell: Callable[[str], None]
) -> Any:
    path = find_model(model)
    if path is not None and path.is_file():
        return load_single_file(path, dtype, config, prediction, tell)
    if path is not None:
        check_folder(path)
    if path is None:
        _require_hub(model)
    pipe = _from_folder(model if path is None else str(path), dtype)
    if prediction:
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=prediction)
    return pipe


def _require_hub(model: str) -> None:
    """Check that a hub model is cached, or that the hub can be reached: libraries would retry for 30 s.

    Raises:
        SettingsError: if neither is the case.
    """
    from huggingface_hub import constants, get_session, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, "model_index.json"), str):
        return
    try:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        get_session().head(constants.ENDPOINT, timeout=HUB_PATIENCE)
    except Exception as error:  # depends on the HTTP library
        raise SettingsError(
            f"{model} is not on this computer, and the hub cannot be reached ({error})",
            remedy="Check the network, or give a file or folder on this computer.",
            field=FIELD,
        ) from error


def _from_folder(model: str, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline

    # No safety checker: it would black out images, and its weights take a gigabyte.
    options = {} if _is_xl(model) else {"safety_checker": None, "requires_safety_checker": False}
    return DiffusionPipeline.from_pretrained(model, dtype=dtype, **options)


def _is_xl(model: str) -> bool:
    index = Path(model) / "model_index.json"
    if index.is_file():
        return "XL" in json.loads(index.read_text("utf-8")).get("_class_name", "")
    config = StableDiffusionPipeline.load_config(model)
    require_unet(config, model)
    return "XL" in config.get("_class_name", "")


def _unreadable(model: str, error: Exception) -> SettingsError:
    reason = " ".join(str(error).split())
    if len(reason) > 300:
        reason = f"{reason[:300]}..."
    path = Path(model)
    if "memory" in reason.lower():
        remedy = "Close other programs, or use fp16 or another device."
    elif "meta tensor" in reason:
        reason = "some of its weights are missing"
        remedy = "Download it again, with all files of unet, vae and text_encoder."
    elif path.is_file():
        remedy = "Choose another file of the model, or a folder in diffusers format."
    elif path.is_absolute() or model.startswith("."):
        remedy = (
            "Check that the folder has what its model_index.json names: unet, vae, text_encoder, tokenizer."
        )
    else:
        remedy = "Check the hub id and the network, or give a file or folder on this computer."
    return SettingsError(f"{model} could not be loaded ({reason})", remedy=remedy, field=FIELD)
