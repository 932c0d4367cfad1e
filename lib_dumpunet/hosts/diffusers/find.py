"""Find a model, and say what can be said of it without loading a library."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lib_dumpunet.blocks import SD1, BlockOrder, block_order
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.tiny import MODEL

FIELD = "model"
CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
MOST_BLOCKS = 100
"""More than any U-Net has of one family."""


def find_model(model: str, *, field: str = FIELD) -> Path | None:
    """Find the file or folder that a text names; None for a hub id, of which only the hub can tell more.

    Raises:
        SettingsError: if it is none of these.
    """
    if re.match(r"https?://", model):
        hub = re.match(r"https?://huggingface\.co/([\w.-]+/[\w.-]+)", model)
        hint = f"its hub id, {hub[1]}" if hub else "a hub id such as owner/name"
        raise SettingsError(
            f"{model} is an address, and nothing is downloaded from an address",
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


def possible_blocks(path: Path | None) -> BlockOrder:
    """Return the blocks that a model may have: its own where a folder tells them, else all that any could have."""
    if path is not None and path.is_file():
        return SD1  # SDXL's are among them, and checkpoint files are of no other family
    try:
        assert path is not None
        config = json.loads((path / "unet" / "config.json").read_text("utf-8"))
        levels, layers = len(config["down_block_types"]), config["layers_per_block"]
        return block_order(levels * (layers + 1), levels * (layers + 1))
    except (AssertionError, OSError, ValueError, KeyError, TypeError):
        return block_order(MOST_BLOCKS, MOST_BLOCKS)
