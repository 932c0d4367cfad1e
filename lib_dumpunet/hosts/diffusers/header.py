"""Identify a checkpoint file by its tensors' names and shapes, in milliseconds and without torch."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import is_zipfile

from lib_dumpunet.blocks import ModelFacts, block_order
from lib_dumpunet.errors import SettingsError, UnsupportedModelError
from lib_dumpunet.hosts.diffusers.families import REFINER, SD1, SD2, SDXL, Family

FIELD = "model"
CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
UNET = "model.diffusion_model."
OLD_TEXT_ENCODER = re.compile(
    r"^cond_stage_model\.transformer\.(?=embeddings\.|encoder\.|final_layer_norm\.)"
)
"""Prefix of the text encoder's tensors in checkpoints of 2022."""
NO_UNET = "Dump U-Net needs a U-Net; choose a model of Stable Diffusion 1.x, 2.x or XL."
PARTS = "Give the whole model, as one checkpoint file or a folder in diffusers format."
OTHER_FILES = {
    "a LoRA": r"lora_(up|down|A|B)\b|^lora_(unet|te)|\.hada_w|\.lokr_w",
    "a ControlNet": r"^(control_model|controlnet_cond_embedding)\.|^input_hint_block\.",
    "an IP-Adapter": r"^(image_proj|ip_adapter)\b",
    "a textual inversion": r"^(emb_params|string_to_param|clip_l|clip_g)$|^<.*>$",
    "a motion module": r"motion_modules?\.",
    "a diffusion transformer (Flux, SD3 or the like)": r"^(model\.diffusion_model\.)?(double|joint)_blocks\."
    r"|^transformer_blocks\.",
    "an upscaler": r"^(conv_first|model\.1\.sub)\.",
    "a U-Net alone": r"^(input_blocks|down_blocks)\.",
    "an autoencoder (VAE) alone": r"^(first_stage_model\.)?decoder\.conv_in\.",
    "a text encoder alone": r"^(text_model|encoder\.block)\.",
}
"""Files easily mistaken for a model, with patterns of their tensors' names, the most specific first."""
OTHER_INPUTS = {
    9: "an inpainting model",
    8: "a model that edits images (InstructPix2Pix)",
    7: "an upscaler",
    5: "a model that takes a depth map",
}
"""The purpose of a U-Net by its number of input channels."""
LONGEST_HEADER = 100_000_000
"""The library's limit, in bytes."""


@dataclass(frozen=True)
class Header:
    """A file's tensors, as shapes by name, and the metadata of a .safetensors file."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]

    def has(self, *prefixes: str) -> bool:
        """Whether any tensor's name begins with one of ``prefixes``."""
        return any(name.startswith(prefixes) for name in self.shapes)


def modern(name: str) -> str:
    """Return the current name of a tensor of a checkpoint of 2022."""
    return OLD_TEXT_ENCODER.sub("cond_stage_model.transformer.text_model.", name)


def damaged(path: Path, why: str) -> SettingsError:
    """Return the error for a damaged or incomplete file."""
    return SettingsError(
        f"{path.name} could not be loaded: it is damaged or incomplete ({why})",
        remedy="Download it again, or choose another file.",
        field=FIELD,
    )


def read_header(path: Path) -> Header | None:
    """Read the header of a .safetensors file; of other checkpoints, check only the first bytes and return None.

    The format: https://github.com/huggingface/safetensors#format

    Raises:
        SettingsError: if it is not a checkpoint, or cannot be read.
    """
    if path.suffix.lower() not in CHECKPOINTS:
        raise SettingsError(
            f"{path.name} is not a checkpoint",
            remedy=f"Use a file that ends in {', '.join(CHECKPOINTS)}.",
            field=FIELD,
        )
    with path.open("rb") as file:
        start = file.read(256)
        _refuse_texts(path, start)
        length = int.from_bytes(start[:8], "little")
        is_safetensors = start[8:9] == b"{" and 8 + length <= path.stat().st_size
        if path.suffix.lower() != ".safetensors":
            if is_safetensors:
                remedy = "Rename it to that extension."
                raise SettingsError(
                    f"{path.name} is a .safetensors file by its content", remedy=remedy, field=FIELD
                )
            # A zip archive, or a pickle of protocol 2 and later.
            if not is_zipfile(path) and start[:1] != b"\x80":
                raise damaged(path, "it contains nothing that PyTorch saved")
            return None
        if not is_safetensors or length > LONGEST_HEADER:
            raise damaged(path, "its header does not fit")
        file.seek(8)
        return _parse(path, file.read(length), path.stat().st_size - 8 - length)


def _refuse_texts(path: Path, start: bytes) -> None:
    """Refuse an empty file, a Git LFS pointer or a web page in place of the file."""
    if not start:
        raise damaged(path, "it is empty")
    if start.startswith(b"version ") and b"git-lfs" in start[:64]:
        raise SettingsError(
            f"{path.name} is a pointer of Git LFS, not the file itself",
            remedy="Run git lfs pull in its folder, or download the file.",
            field=FIELD,
        )
    if start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise SettingsError(
            f"{path.name} is a web page, not a model",
            remedy="Download the file itself, not the page about it.",
            field=FIELD,
        )


def _parse(path: Path, text: bytes, size: int) -> Header:
    try:
        content = json.loads(text)
        said = content.pop("__metadata__", None) or {}
        metadata = {str(name): str(value) for name, value in said.items()}
        shapes = {modern(name): tuple(map(int, entry["shape"])) for name, entry in content.items()}
        end = max((int(entry["data_offsets"][1]) for entry in content.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise damaged(path, "its header cannot be read") from error
    if end != size:
        raise damaged(path, f"it has {size:,} bytes of tensors, but {end:,} are expected")
    return Header(path, shapes, metadata)


def recognise(header: Header) -> Family:
    """Return the family of a whole model, by its tensors.

    Raises:
        UnsupportedModelError: if the file is not a supported model.
    """
    name, shapes = header.path.name, header.shapes
    first = shapes.get(f"{UNET}input_blocks.0.0.weight")
    if first is None:
        kind = next((k for k, sign in OTHER_FILES.items() if any(re.search(sign, n) for n in shapes)), "")
        what = f"is {kind}, not a whole model" if kind else "has no U-Net of Stable Diffusion"
        remedy = PARTS if kind.endswith("alone") else NO_UNET
        raise UnsupportedModelError(f"{name} {what}", remedy=remedy, field=FIELD)
    family = _family(header)
    channels = first[1]
    if family is REFINER or channels != family.unet.get("in_channels", 4):
        what = OTHER_INPUTS.get(channels, f"a model with {channels} input channels")
        kind = family.name if family is REFINER else f"{what}, of {family.name}"
        raise UnsupportedModelError(
            f"{name} is {kind}, not a text-to-image model",
            remedy="Choose one that is not for inpainting, refining or upscaling.",
            field=FIELD,
        )
    return family


def _family(header: Header) -> Family:
    families = (SDXL, SD2, SD1, REFINER)  # the refiner's only encoder has another place in SDXL
    for family in families:
        if all(header.has(encoder.prefix) for encoder in family.text_encoders.values()):
            return family
    # Without a text encoder, the width that the U-Net reads decides; for other widths than the released ones, whether
    # it takes image sizes.
    widths = {shape[1] for name, shape in header.shapes.items() if name.endswith(".attn2.to_k.weight")}
    other = SDXL if header.has(f"{UNET}label_emb.") else SD1
    return next((family for family in families if {family.unet["cross_attention_dim"]} == widths), other)


def facts_of(header: Header) -> ModelFacts:
    """Return the blocks of a checkpoint's U-Net, and the number of attention layers of each."""
    inputs, outputs = (_count(header, rf"{part}_blocks\.(\d+)\.") for part in ("input", "output"))
    order = block_order(inputs, outputs, middle=header.has(f"{UNET}middle_block."))
    layer = re.compile(
        re.escape(UNET)
        + r"(input_blocks\.\d+|middle_block|output_blocks\.\d+)\.\d+\.transformer_blocks\.\d+\.attn2\.to_k\.weight"
    )
    found = Counter(match[1] for name in header.shapes if (match := layer.match(name)))
    names = [
        *(f"input_blocks.{i}" for i in range(inputs)),
        *(["middle_block"] if "M00" in order else []),
        *(f"output_blocks.{i}" for i in range(outputs)),
    ]
    return ModelFacts(order, {block: found[name] for block, name in zip(order, names, strict=True)})


def _count(header: Header, pattern: str) -> int:
    numbers = (
        match[1] for name in header.shapes if (match := re.match(re.escape(UNET) + pattern, name)) is not None
    )
    return max((int(number) + 1 for number in numbers), default=0)
