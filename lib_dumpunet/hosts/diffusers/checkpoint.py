"""Read single checkpoint files with ldm's tensor names, as used in the webui."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lib_dumpunet.errors import SettingsError, UnsupportedModelError
from lib_dumpunet.hosts.diffusers.header import FIELD, Header, damaged, modern, read_header

log = logging.getLogger("dumpunet")

VAES = ("first_stage_model.", "vae.")


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file.

    Args:
        path: the file.
        weights: its tensors by ldm's names, with the text encoder's names of 2023 and later.
        metadata: metadata of a .safetensors file.
    """

    path: Path
    weights: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @property
    def header(self) -> Header:
        """The names and shapes of the tensors."""
        return Header(self.path, {name: tuple(t.shape) for name, t in self.weights.items()}, self.metadata)

    def has(self, *prefixes: str) -> bool:
        """Whether any tensor's name begins with one of ``prefixes``."""
        return any(name.startswith(prefixes) for name in self.weights)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file's tensors without running code in a pickle.

    Raises:
        SettingsError: if it cannot be read.
    """
    header = read_header(path)
    if header is None:
        found, metadata = _unpickle(path), {}
    else:
        metadata = dict(header.metadata)
        try:
            with safe_open(path, framework="pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, for it is no dict
        except SafetensorError as error:
            raise damaged(path, str(error)) from error
    return Checkpoint(path, {modern(name): tensor for name, tensor in found.items()}, metadata)


def _unpickle(path: Path) -> dict[str, Tensor]:
    zipped = is_zipfile(path)
    # Every name in the pickle is replaced by a class that does nothing, so nothing the pickle calls is run.
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
    try:
        with torch.serialization.safe_globals([(Unread, name) for name in names]):
            # Files from before PyTorch 1.6 are not zip archives and cannot be memory-mapped.
            contents = torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
    except UnpicklingError as error:
        # Only these words of PyTorch's message distinguish code from a damaged file.
        if not re.search(r"Unsupported (global|class)|unsupported GLOBAL|unrecognized function", str(error)):
            raise damaged(path, "it contains nothing that PyTorch saved") from error
        raise SettingsError(
            f"{path.name} contains code or objects besides tensors, which are not run for safety",
            remedy="Use the .safetensors file of the same model.",
            field=FIELD,
        ) from error
    if names:
        log.info("%s: left unread: %s", path.name, ", ".join(sorted(names)))
    if not isinstance(contents, dict):
        raise damaged(path, f"it contains a {type(contents).__name__}, not tensors by name")
    contents = contents.get("state_dict", contents)
    if "string_to_param" in contents:  # an embedding has its tensors one level deeper
        contents = {"string_to_param": torch.zeros(0)}
    return {name: tensor for name, tensor in contents.items() if isinstance(tensor, Tensor)}


class Unread:
    """Placeholder for an object that a training program pickled with the weights."""

    def __new__(cls, *unused: object) -> Unread:
        """Accept any constructor arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Accept any state."""


def fill(model: nn.Module, weights: Mapping[str, Tensor], dtype: torch.dtype, part: str, path: Path) -> None:
    """Load weights into a model on the meta device.

    Raises:
        SettingsError, UnsupportedModelError: if weights are missing or have the wrong shape.
    """
    own = dict(model.named_parameters())
    for name, tensor in own.items():
        if name in weights and weights[name].shape != tensor.shape:
            has, wants = (" x ".join(map(str, t.shape)) for t in (weights[name], tensor))
            raise UnsupportedModelError(
                f"{path.name}: {part} does not have the shape of its configuration ({name} is {has}, not {wants})",
                remedy="Give --config with a folder in diffusers format of the same family and size.",
                field=FIELD,
            )
    missing = sorted(own.keys() - weights.keys())
    if missing:
        raise damaged(path, f"{part} lacks {len(missing)} of {len(own)} tensors, such as {missing[0]}")
    named = (*own, *(name for name, _ in model.named_buffers()))
    model.load_state_dict(
        {name: weights[name].to(dtype) for name in named if name in weights}, strict=False, assign=True
    )


def prediction_of(checkpoint: Checkpoint) -> tuple[str, str]:
    """Return the file's prediction type, "epsilon", "v_prediction" or "" if unknown, and where it was found.

    Raises:
        SettingsError: if the .yaml file next to it cannot be read.
    """
    beside = checkpoint.path.with_suffix(".yaml")
    if beside.is_file():
        try:
            text = beside.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{beside.name} could not be read ({error})", remedy="Remove or repair it.", field=FIELD
            ) from None
        found = re.search(r"^\s*parameterization\s*:\s*[\"']?(\w+)", text, re.MULTILINE)
        return _named(found[1] if found else "eps"), beside.name
    if "v_pred" in checkpoint.weights:
        return "v_prediction", "its tensor v_pred"
    said = checkpoint.metadata.get("modelspec.prediction_type", "")
    return (_named(said), "its metadata") if said else ("", "")


def _named(parameterization: str) -> str:
    return "v_prediction" if parameterization.lower().startswith("v") else "epsilon"


@torch.no_grad()
def probed_prediction(unet: Any) -> str:
    """Return the prediction type of an SD 2.x U-Net, found by one call.

    At the noisiest step, a model that predicts noise returns its input, and one that predicts velocity far less. The
    test and its bound are the webui's (modules/sd_models_config.py).
    """
    gray = torch.full((1, unet.config.in_channels, 8, 8), 0.5, dtype=unet.dtype, device=unet.device)
    text = torch.full((1, 2, unet.config.cross_attention_dim), 0.5, dtype=unet.dtype, device=unet.device)
    time = torch.tensor([999], device=unet.device)
    change = (unet(gray, time, encoder_hidden_states=text).sample - gray).float().mean()
    return "v_prediction" if change < -1 else "epsilon"
