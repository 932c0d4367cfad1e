"""Find a model, and read its facts without importing a library."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib_dumpunet.blocks import SD1, ModelFacts, block_order
from lib_dumpunet.errors import SettingsError, UnsupportedModelError
from lib_dumpunet.hosts.diffusers.header import (
    CHECKPOINTS,
    FIELD,
    NO_UNET,
    damaged,
    facts_of,
    read_header,
    recognise,
)
from lib_dumpunet.tiny import MODEL

MOST_BLOCKS = 100
"""More IN or OUT blocks than any U-Net has."""
ANY_BLOCKS = block_order(MOST_BLOCKS, MOST_BLOCKS)
"""The possible blocks of an unknown model."""


def find_model(model: str, *, field: str = FIELD) -> Path | None:
    """Return the file or folder of a model; None for a hub id.

    Raises:
        SettingsError: if it is neither a file, a folder nor a hub id.
    """
    if re.match(r"https?://", model):
        hub = re.match(r"https?://huggingface\.co/([\w.-]+/[\w.-]+)", model)
        hint = f"its hub id, {hub[1]}" if hub else "a hub id such as owner/name"
        raise SettingsError(
            f"{model} is a URL, and models are not downloaded from URLs",
            remedy=f"Download the file and give its path, or give {hint}.",
            field=field,
        )
    path = Path(model).expanduser() if model else MODEL
    try:
        if path.is_dir() or path.is_file():
            return path
    except (OSError, ValueError):  # a name too long for a file, or with a null character
        pass
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and path.suffix.lower() not in CHECKPOINTS:
        return None
    raise SettingsError(
        f"there is no file or folder {model}",
        remedy="Give a checkpoint file, a folder in diffusers format, or a hub id such as owner/name.",
        field=field,
    )


def model_facts(path: Path | None) -> ModelFacts:
    """Return the facts of a model from its file or folder; if they are not known, all possible blocks.

    Raises:
        SettingsError, UnsupportedModelError: if the file is damaged, or the model is not supported.
    """
    if path is None:
        return ModelFacts(ANY_BLOCKS)
    if path.is_file():
        header = read_header(path)
        if header is None:
            return ModelFacts(SD1)  # includes SDXL's blocks; no other family has such files
        recognise(header)
        return facts_of(header)
    check_folder(path)
    try:
        return facts_of_config(json.loads((path / "unet" / "config.json").read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return ModelFacts(ANY_BLOCKS)


def check_folder(folder: Path) -> None:
    """Check that a folder is a model in diffusers format with complete files.

    Raises:
        SettingsError: if it is not.
        UnsupportedModelError: if it has no U-Net.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        inside = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in CHECKPOINTS)
        other = f"its file {inside[0]}" if inside else "a checkpoint file"
        raise SettingsError(
            f"{folder} has no model_index.json, so it is not a model in diffusers format",
            remedy=f"Give the folder that contains unet, vae and text_encoder, or {other}.",
            field=FIELD,
        )
    try:
        content = json.loads(index.read_text("utf-8"))
        require_unet(content, str(folder))
    except (ValueError, TypeError, AttributeError) as error:
        raise damaged(index, "it is not an index of a model") from error
    if not (folder / "unet" / "config.json").is_file():
        raise SettingsError(
            f"{folder} has no unet/config.json",
            remedy="Download the model again, with all files of unet, vae and text_encoder.",
            field=FIELD,
        )
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        for weights in (folder / part).glob("*.safetensors"):
            read_header(weights)


def require_unet(index: Mapping[str, Any], model: str) -> None:
    """Check that a pipeline has a U-Net, by its index.

    Raises:
        UnsupportedModelError: if it has none.
    """
    if not (index.get("unet") or [None])[0]:
        family = index.get("_class_name", "its pipeline")
        raise UnsupportedModelError(f"{model} has no U-Net ({family})", remedy=NO_UNET, field=FIELD)


def facts_of_config(config: Mapping[str, Any]) -> ModelFacts:
    """Return the blocks and their attention layers from a configuration of diffusers' UNet2DConditionModel.

    Raises:
        KeyError, TypeError, IndexError: if the configuration is of another class.
    """
    down, up = config["down_block_types"], config["up_block_types"]
    resnets = _by_level(config.get("layers_per_block", 2), len(down))
    depths = _by_level(config.get("transformer_layers_per_block", 1), len(down))
    up_depths = config.get("reverse_transformer_layers_per_block") or depths[::-1]
    inputs = [0]
    for level, kind in enumerate(down):
        inputs += _attention(kind, depths[level], resnets[level])
        inputs += [0] * (level < len(down) - 1)  # the downsampler is its own block
    outputs: list[int] = []
    for level, kind in enumerate(up):
        outputs += _attention(kind, up_depths[level], resnets[::-1][level] + 1)
    middle = config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    deepest = depths[-1]
    depth = deepest if isinstance(deepest, int) else deepest[-1]
    counts = [*inputs, *([depth if "CrossAttn" in middle else 0] if middle else []), *outputs]
    order = block_order(len(inputs), len(outputs), middle=bool(middle))
    return ModelFacts(order, dict(zip(order, counts, strict=True)))


def _by_level(value: Any, levels: int) -> list[Any]:
    return [value] * levels if isinstance(value, int) else list(value)


def _attention(kind: str, depth: int | Sequence[int], resnets: int) -> list[int]:
    """Return the number of attention layers after each of a level's resnets."""
    if "CrossAttn" not in kind:
        return [0] * resnets
    return [depth] * resnets if isinstance(depth, int) else [depth[i] for i in range(resnets)]
