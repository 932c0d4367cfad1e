"""What a model's files show before anything is loaded: what they are, whether they are complete, their blocks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.hosts.diffusers.families import UNET_SD1, UNET_SD2, UNET_XL
from lib_dumpunet.hosts.diffusers.find import ANY_BLOCKS, facts_of_config, model_facts
from lib_dumpunet.hosts.diffusers.header import UNET, facts_of, read_header
from lib_dumpunet.hosts.diffusers.loading import load_pipeline, unet_shell
from lib_dumpunet.models.describe import describe
from lib_dumpunet.tiny import MODEL
from tests.unets import ldm_unet

TINY = json.loads((MODEL / "unet" / "config.json").read_text("utf-8"))
SMALLER = {  # as distilled models are: no middle block, levels of unequal depths
    **UNET_XL,
    "mid_block_type": None,
    "layers_per_block": [2, 2, 1],
    "transformer_layers_per_block": [1, 2, 4],
}
CONFIGS: dict[str, Any] = {
    "sd1": UNET_SD1, "sd2": UNET_SD2, "sdxl": UNET_XL, "bundled": TINY, "smaller": SMALLER,
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_tells_blocks_and_layers(name: str) -> None:
    assert facts_of_config(CONFIGS[name]) == describe(unet_shell(CONFIGS[name])).facts


def test_a_header_tells_blocks_and_layers(tmp_path: Path) -> None:
    unet = ldm_unet("sd1")
    save_file({UNET + name: tensor for name, tensor in unet.state_dict().items()}, tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    assert header is not None
    assert facts_of(header) == describe(unet).facts
    assert model_facts(tmp_path / "a.safetensors") == describe(unet).facts


def test_the_bundled_model_is_known_and_a_hub_id_is_not() -> None:
    assert model_facts(MODEL).attending[:2] == ("IN01", "IN02")
    assert model_facts(None).order == ANY_BLOCKS
    assert model_facts(None).layers is None


def tensors(*names: str) -> Callable[[Path], None]:
    return lambda path: save_file({name: torch.zeros(2, 4) for name in names}, path)


def text(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def cut(path: Path) -> None:
    tensors("a")(path)
    path.write_bytes(path.read_bytes()[:-1])


FILES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "empty": ("a.ckpt", text(b""), "damaged or incomplete (it is empty)"),
    "text": ("a.ckpt", text(b"hello"), "it contains nothing that PyTorch saved"),
    "page": ("a.safetensors", text(b"\n<!DOCTYPE html><html>"), "is a web page, not a model"),
    "pointer": (
        "a.safetensors",
        text(b"version %s://git-lfs.github.com/spec/v1\n" % b"https"),
        "pointer of Git LFS",
    ),
    "cut": ("A.SAFETENSORS", cut, "it has 31 bytes of tensors, but 32 are expected"),
    "no header": ("a.safetensors", text(b"{" * 40), "its header does not fit"),
    "odd header": ("a.safetensors", text((2).to_bytes(8, "little") + b"{}"), "has no U-Net"),
    "list": ("a.safetensors", text((15).to_bytes(8, "little") + b'{"a": [1, 2] }}'), "its header cannot"),
    "swapped": ("a.pth", tensors("a"), "is a .safetensors file by its content"),
    "ending": ("a.gguf", text(b"GGUF"), "is not a checkpoint"),
    "lora": ("a.safetensors", tensors("lora_unet_mid.lora_down.weight"), "is a LoRA"),
    "vae": ("a.safetensors", tensors("first_stage_model.decoder.conv_in.weight"), "(VAE) alone"),
    "flux": ("a.safetensors", tensors("double_blocks.0.img_attn.qkv.weight"), "diffusion transformer"),
    "motion": ("a.safetensors", tensors("down_blocks.0.motion_modules.0.w"), "is a motion module"),
    "unet": ("a.safetensors", tensors("down_blocks.0.w"), "is a U-Net alone, not a whole model. Give the"),
    "embedding": ("a.safetensors", tensors("emb_params"), "is a textual inversion"),
    "inpainting": (
        "a.safetensors",
        lambda path: save_file({f"{UNET}input_blocks.0.0.weight": torch.zeros(1, 9)}, path),
        "is an inpainting model",
    ),
}


@pytest.mark.parametrize(("name", "make", "message"), FILES.values(), ids=FILES)
def test_files_are_named_as_what_they_are(
    name: str, make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    for look in (model_facts, lambda path: load_pipeline(str(path), device="cpu")):
        with pytest.raises(DumpUNetError) as caught:
            look(tmp_path / name)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([1, 2], "it contains a list, not tensors by name"),
        ({"string_to_param": {"*": torch.zeros(3)}}, "is a textual inversion"),
    ],
)
def test_pickles_are_named_as_what_they_are(contents: object, message: str, tmp_path: Path) -> None:
    torch.save(contents, tmp_path / "a.pt")
    with pytest.raises(DumpUNetError) as caught:
        load_pipeline(str(tmp_path / "a.pt"), device="cpu")
    assert message in str(caught.value)


def spoil_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("[]")


def spoil_weights(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def take_index(folder: Path) -> None:
    (folder / "model_index.json").rename(folder / "model.ckpt")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_index, "it is not an index of a model"),
        (spoil_weights, "bytes of tensors, but"),
        (take_index, "or its file model.ckpt"),
        (lambda folder: (folder / "unet" / "config.json").unlink(), "has no unet/config.json"),
    ],
)
def test_folders_are_looked_through(spoil: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(MODEL, tmp_path / "model"))
    spoil(folder)
    with pytest.raises(DumpUNetError) as caught:
        model_facts(folder)
    assert message in str(caught.value)


def test_a_hub_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DumpUNetError) as caught:
        load_pipeline("nobody/nothing-at-all", device="cpu")
    assert "is not on this computer, and the hub cannot be reached" in str(caught.value)
