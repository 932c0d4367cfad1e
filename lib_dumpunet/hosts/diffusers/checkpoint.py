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
from lib_dumpunet.hosts.diffusers.families import REFINER, SD1, SD2, SDXL, Family
from lib_dumpunet.hosts.diffusers.find import CHECKPOINTS, FIELD

log = logging.getLogger("dumpunet")

UNET = "model.diffusion_model."
VAES = ("first_stage_model.", "vae.")
OLD_TEXT_ENCODER = re.compile(
    r"^cond_stage_model\.transformer\.(?=embeddings\.|encoder\.|final_layer_norm\.)"
)
"""How checkpoints of 2022 begin the names of their text encoder's tensors."""
NO_UNET = "Dump U-Net looks into U-Nets; choose a model of Stable Diffusion 1.x, 2.x or XL."
OTHER_FILES = {
    "a LoRA": r"lora_(up|down|A|B)\b|^lora_(unet|te)|\.hada_w|\.lokr_w",
    "a ControlNet": r"^(control_model|controlnet_cond_embedding)\.|^input_hint_block\.",
    "an IP-Adapter": r"^(image_proj|ip_adapter)\b",
    "a textual inversion": r"^(emb_params|string_to_param|clip_l|clip_g)$|^<.*>$",
    "a U-Net alone": r"^(input_blocks|down_blocks)\.",
    "an autoencoder (VAE) alone": r"^decoder\.conv_in\.",
    "a text encoder alone": r"^(text_model|encoder\.block)\.",
}
"""Files that people take for a model, each with what a tensor's name has in it, the most special first."""
OTHER_INPUTS = {
    9: "an inpainting model",
    8: "a model that edits images (InstructPix2Pix)",
    7: "an upscaler",
    5: "a model that takes a depth map",
}
"""What a U-Net of so many input channels is for."""


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

    def has(self, *prefixes: str) -> bool:
        """Whether a tensor's name begins with one of these."""
        return any(name.startswith(prefixes) for name in self.weights)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file's tensors; code that a pickle holds is not run.

    Raises:
        SettingsError: if it cannot be read.
    """
    if path.suffix.lower() not in CHECKPOINTS:
        raise SettingsError(
            f"{path.name} is not a checkpoint",
            remedy=f"Use a file that ends in {', '.join(CHECKPOINTS)}.",
            field=FIELD,
        )
    metadata: Mapping[str, str] = {}
    if path.suffix.lower() == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, for it is no dict
        except SafetensorError as error:
            raise damaged(path, str(error)) from error
    else:
        found = _unpickle(path)
    weights = {
        OLD_TEXT_ENCODER.sub("cond_stage_model.transformer.text_model.", name): tensor
        for name, tensor in found.items()
    }
    return Checkpoint(path, weights, metadata)


def damaged(path: Path, why: str) -> SettingsError:
    """Make the error of a file that cannot be read to its end."""
    return SettingsError(
        f"{path.name} could not be loaded: it is damaged or incomplete ({why})",
        remedy="Download it again, or choose another file.",
        field=FIELD,
    )


def _unpickle(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        start = file.read(9)
    # The length of a header, and the header.
    if start[8:] == b"{" and 8 + int.from_bytes(start[:8], "little") <= path.stat().st_size:
        raise SettingsError(
            f"{path.name} is a .safetensors file by its content", remedy="Give it that ending.", field=FIELD
        )
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
    contents = contents.get("state_dict", contents)
    return {name: tensor for name, tensor in contents.items() if isinstance(tensor, Tensor)}


class Unread:
    """Stands for an object that a training program has pickled beside the weights."""

    def __new__(cls, *unused: object) -> Unread:
        """Take whatever the object was made of."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Take whatever it held."""


def recognise(checkpoint: Checkpoint) -> Family:
    """Tell a whole model's family by its tensors.

    Raises:
        UnsupportedModelError: if the file is something else.
    """
    name, weights = checkpoint.path.name, checkpoint.weights
    first = weights.get(f"{UNET}input_blocks.0.0.weight")
    if first is None:
        kind = next((k for k, sign in OTHER_FILES.items() if any(re.search(sign, n) for n in weights)), "")
        what = f"is {kind}, not a whole model" if kind else "has no U-Net of Stable Diffusion"
        raise UnsupportedModelError(f"{name} {what}", remedy=NO_UNET, field=FIELD)
    family = _family(checkpoint)
    channels = first.shape[1]
    if family is REFINER or channels != family.unet.get("in_channels", 4):
        what = OTHER_INPUTS.get(channels, f"a model with {channels} input channels")
        kind = family.name if family is REFINER else f"{what}, of {family.name}"
        raise UnsupportedModelError(
            f"{name} is {kind}, not a model that makes images from text alone",
            remedy="Choose one that is not for inpainting, refining or upscaling.",
            field=FIELD,
        )
    return family


def _family(checkpoint: Checkpoint) -> Family:
    families = (SDXL, SD2, SD1, REFINER)  # the refiner's encoder is the first where SDXL has another
    for family in families:
        if all(checkpoint.has(encoder.prefix) for encoder in family.text_encoders.values()):
            return family
    # Without a text encoder its width tells, of which the U-Net is made to read the output; and of models that are
    # narrower than the released ones, whether sizes go in.
    widths = {
        tensor.shape[1] for name, tensor in checkpoint.weights.items() if name.endswith(".attn2.to_k.weight")
    }
    other = SDXL if checkpoint.has(f"{UNET}label_emb.") else SD1
    return next((family for family in families if {family.unet["cross_attention_dim"]} == widths), other)


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
