"""Checkpoint files as webui users have them: one file, ldm's names, a whole model in it or something else."""

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
    """What a file holds.

    Args:
        path: the file.
        weights: its tensors by ldm's names, the text encoder's under the names that it has since 2023.
        metadata: what else a .safetensors file says of itself.
    """

    path: Path
    weights: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @property
    def header(self) -> Header:
        """Return the names and shapes of the tensors."""
        return Header(self.path, {name: tuple(t.shape) for name, t in self.weights.items()}, self.metadata)

    def has(self, *prefixes: str) -> bool:
        """Whether a tensor's name begins with one of these."""
        return any(name.startswith(prefixes) for name in self.weights)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file's tensors; code that a pickle holds is not run.

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
    # What stands for a name is a class that does nothing, so whatever a pickle calls by that name is not run.
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
    try:
        with torch.serialization.safe_globals([(Unread, name) for name in names]):
            # What PyTorch wrote before 1.6 is no zip archive, and cannot be mapped into memory.
            contents = torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
    except UnpicklingError as error:
        # Of PyTorch's words only these tell code from a damaged file.
        if not re.search(r"Unsupported (global|class)|unsupported GLOBAL|unrecognized function", str(error)):
            raise damaged(path, "it holds nothing that PyTorch has saved") from error
        raise SettingsError(
            f"{path.name} holds code or objects beside its tensors, which is not run for safety",
            remedy="Take the .safetensors file of the same model.",
            field=FIELD,
        ) from error
    if names:
        log.info("%s: left unread: %s", path.name, ", ".join(sorted(names)))
    if not isinstance(contents, dict):
        raise damaged(path, f"it holds a {type(contents).__name__}, not tensors by name")
    contents = contents.get("state_dict", contents)
    if "string_to_param" in contents:  # an embedding keeps its tensors one level further in
        contents = {"string_to_param": torch.zeros(0)}
    return {name: tensor for name, tensor in contents.items() if isinstance(tensor, Tensor)}


class Unread:
    """Stands for an object that a training program has pickled beside the weights."""

    def __new__(cls, *unused: object) -> Unread:
        """Take whatever the object was made of."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Take whatever it held."""


def fill(model: nn.Module, weights: Mapping[str, Tensor], dtype: torch.dtype, part: str, path: Path) -> None:
    """Give a model on the meta device its weights.

    Raises:
        SettingsError, UnsupportedModelError: if some are missing, or of another shape.
    """
    own = dict(model.named_parameters())
    for name, tensor in own.items():
        if name in weights and weights[name].shape != tensor.shape:
            has, wants = (" x ".join(map(str, t.shape)) for t in (weights[name], tensor))
            raise UnsupportedModelError(
                f"{path.name}: {part} has another shape than its configuration ({name} is {has}, not {wants})",
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
    """Find what the file says of its prediction: "epsilon", "v_prediction" or nothing, and where it says so.

    Raises:
        SettingsError: if the .yaml file beside it cannot be read.
    """
    beside = checkpoint.path.with_suffix(".yaml")
    if beside.is_file():
        try:
            text = beside.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{beside.name} could not be read ({error})", remedy="Remove or mend it.", field=FIELD
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
    """Find out by one call whether a U-Net of SD 2.x predicts velocity.

    At the noisiest step a net that predicts noise gives back its input, and one that predicts velocity far less. The
    test and its bound are those of the webui (modules/sd_models_config.py).
    """
    gray = torch.full((1, unet.config.in_channels, 8, 8), 0.5, dtype=unet.dtype, device=unet.device)
    text = torch.full((1, 2, unet.config.cross_attention_dim), 0.5, dtype=unet.dtype, device=unet.device)
    time = torch.tensor([999], device=unet.device)
    change = (unet(gray, time, encoder_hidden_states=text).sample - gray).float().mean()
    return "v_prediction" if change < -1 else "epsilon"
