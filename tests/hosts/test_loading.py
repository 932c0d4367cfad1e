"""Models load from wherever people keep them, or are refused with one sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_dumpunet.errors import SettingsError, UnsupportedModelError
from lib_dumpunet.hosts.diffusers.generate import ResultHandlers, generate
from lib_dumpunet.hosts.diffusers.job import make_job
from lib_dumpunet.hosts.diffusers.loading import load_pipeline
from lib_dumpunet.models.describe import describe
from lib_dumpunet.settings import FeatureSettings, GenerateSettings, Settings
from tests.hosts.checkpoints import small_checkpoint, small_folder
from tests.pipelines import sdxl_pipeline
from tests.unets import diffusers_unet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small SD 1.x pipeline with random weights in diffusers format."""
    return small_folder(tmp_path_factory.mktemp("sd1"))


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    """Make the weights of a checkpoint as webui users have it: one file with ldm's names."""
    return small_checkpoint(folder)


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_checkpoint_file_with_a_local_configuration(
    folder: Path, checkpoint: dict[str, torch.Tensor], tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"model{ending}"
    if ending == ".ckpt":
        torch.save({"state_dict": checkpoint, "global_step": 1}, path)
    else:
        save_file(checkpoint, path)
    pipe = load_pipeline(str(path), device="cpu", config=str(folder))
    weight = pipe.unet.conv_in.weight
    assert torch.equal(weight, checkpoint["model.diffusion_model.input_blocks.0.0.weight"])
    assert len(describe(pipe.unet).blocks) == 25
    assert len(run_once(pipe)) == 25


def run_once(pipe: Any, **sampling: Any) -> list[Any]:
    """Generate one small image and return the pictures of its blocks."""
    pictures: list[Any] = []
    settings = GenerateSettings(steps=2, width=64, height=96, seed=1, **sampling)
    outlet = ResultHandlers(lambda *_: None, pictures.append, lambda *_: None)
    features = Settings(FeatureSettings(steps="2"))
    outcome = generate(pipe, make_job(pipe, ["a red circle"], settings), features, outlet)
    assert outcome.problems == []
    return pictures


def test_folder_in_diffusers_format(folder: Path) -> None:
    pipe = load_pipeline(str(folder), device="cpu", dtype="bf16")
    assert pipe.unet.dtype == torch.bfloat16
    assert len(run_once(pipe)) == 25


def test_sdxl_from_a_folder(tmp_path: Path) -> None:
    sdxl_pipeline().save_pretrained(tmp_path)
    pipe = load_pipeline(str(tmp_path), device="cpu")
    for guidance in (1, 7):
        pictures = run_once(pipe, guidance=guidance, batch=2)
        assert len(pictures) == 2 * 19


def test_checkpoint_of_another_width_names_the_remedy(
    checkpoint: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(checkpoint, tmp_path / "model.safetensors")
    with pytest.raises(
        UnsupportedModelError,
        match=r"conv_in\.weight is 32 x 4 x 3 x 3, not 320.*Give --config with a folder",
    ):
        load_pipeline(str(tmp_path / "model.safetensors"), device="cpu")


def test_models_without_a_unet_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]})
    )
    with pytest.raises(UnsupportedModelError, match=r"model: .* has no U-Net \(FluxPipeline\)"):
        load_pipeline(str(tmp_path), device="cpu")
    names = [
        "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
        "double_blocks.0.img_attn.qkv.weight",
    ]
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "sd3.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"sd3\.safetensors is a diffusion transformer"):
        load_pipeline(str(tmp_path / "sd3.safetensors"), device="cpu")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_up.weight", "a LoRA"),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "a LoRA"),
        ("controlnet_cond_embedding.conv_in.weight", "a ControlNet"),
        ("emb_params", "a textual inversion"),
        ("down_blocks.0.resnets.0.conv1.weight", "a U-Net alone"),
        ("decoder.conv_in.weight", "an autoencoder"),
        ("text_model.final_layer_norm.weight", "a text encoder alone"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "a text encoder alone"),
    ],
)
def test_other_files_are_named_as_what_they_are(tmp_path: Path, name: str, kind: str) -> None:
    save_file({name: torch.zeros(1)}, tmp_path / "file.safetensors")
    with pytest.raises(UnsupportedModelError, match=rf"file\.safetensors is {kind}.*, not a whole model"):
        load_pipeline(str(tmp_path / "file.safetensors"), device="cpu")


def test_checkpoint_from_before_zip_archives(
    folder: Path, checkpoint: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": checkpoint}, path, _use_new_zipfile_serialization=False)
    pipe = load_pipeline(str(path), device="cpu", config=str(folder))
    weight = pipe.unet.conv_in.weight
    assert torch.equal(weight, checkpoint["model.diffusion_model.input_blocks.0.0.weight"])


class Callback:
    """An object as training programs save it next to the weights."""


@dataclass
class Hostile:
    """An object whose pickle calls a function."""

    call: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the function and its arguments."""
        return self.call


def test_objects_beside_the_tensors_are_not_read(
    folder: Path, checkpoint: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path, made = tmp_path / "model.ckpt", tmp_path / "made"
    hostile = Hostile((shutil.copy, (__file__, str(made))))
    torch.save({"state_dict": checkpoint, "callbacks": [Callback(), hostile]}, path)
    pipe = load_pipeline(str(path), device="cpu", config=str(folder))
    assert torch.equal(pipe.unet.conv_in.weight, checkpoint["model.diffusion_model.input_blocks.0.0.weight"])
    assert not made.exists()
    torch.save({"state_dict": checkpoint, "callbacks": Hostile((Path.touch, (made,)))}, path)
    with pytest.raises(SettingsError, match="contains code or objects"):
        load_pipeline(str(path), device="cpu", config=str(folder))
    assert not made.exists()


def test_objects_of_the_oldest_files_are_refused_in_plain_words(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {}, "callbacks": Callback()}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(SettingsError, match=r"contains code or objects .* Use the \.safetensors") as caught:
        load_pipeline(str(path), device="cpu")
    assert "weights_only" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_safetensors_file_of_another_ending_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.ckpt")
    with pytest.raises(SettingsError, match=r"model\.ckpt is a \.safetensors file by its content"):
        load_pipeline(str(tmp_path / "model.ckpt"), device="cpu")


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("content", [b"", b"not found", b"\x80\x05cos\nsystem\n(S'true'\ntR."])
def test_damaged_files_are_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"model{ending}"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"could not be loaded"):
        load_pipeline(str(path), device="cpu")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("", None),
        ("no/such-model", r"is not on this computer, and the hub cannot be reached"),
        ("./nothing.safetensors", "there is no file or folder"),
        ("models/x.safetensors", "there is no file or folder"),
        ("https://huggingface.co/a/b/resolve/main/x.safetensors", r"is a URL.*its hub id, a/b"),
        ("https://github.com/a/b/x.ckpt", "Download the file and give its path, or give a hub id"),
    ],
)
def test_hub_ids_and_paths_are_told_apart(model: str, message: str | None) -> None:
    if message is None:
        assert load_pipeline(model, device="cpu").unet.config.sample_size
        return
    with pytest.raises(SettingsError, match=message):
        load_pipeline(model, device="cpu")


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no model_index\.json"):
        load_pipeline(str(tmp_path), device="cpu")
    (tmp_path / "model_index.json").write_text("{broken")
    with pytest.raises(SettingsError, match="could not be loaded"):
        load_pipeline(str(tmp_path), device="cpu")


def test_a_folder_that_lacks_weights_is_told(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (weights,) = (copy / "unet").glob("*.safetensors")
    tensors = load_file(weights)
    del tensors["conv_out.bias"]
    save_file(tensors, weights)
    with pytest.raises(SettingsError, match=r"some of its weights are missing.*Download it again"):
        load_pipeline(str(copy), device="cpu")


def test_a_text_encoder_of_another_model_is_told(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    diffusers_unet("sd1", cross_attention_dim=24).save_pretrained(copy / "unet")
    with pytest.raises(UnsupportedModelError, match=r"gives 16 values per token, but the U-Net takes 24"):
        load_pipeline(str(copy), device="cpu")
