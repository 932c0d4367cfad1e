"""Checkpoint files need no network: family, shapes and prediction type are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lib_dumpunet.errors import SettingsError, UnsupportedModelError
from lib_dumpunet.hosts.diffusers.checkpoint import (
    Checkpoint,
    prediction_of,
    probed_prediction,
    read_checkpoint,
)
from lib_dumpunet.hosts.diffusers.clip_tokenizer import clip_tokenizer
from lib_dumpunet.hosts.diffusers.families import REFINER, SD1, SD2, SDXL, Family
from lib_dumpunet.hosts.diffusers.header import recognise
from lib_dumpunet.hosts.diffusers.loading import load_pipeline
from tests.hosts.checkpoints import small_checkpoint, small_folder
from tests.unets import diffusers_unet

pytestmark = pytest.mark.slow

UNET = "model.diffusion_model."


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in module.named_parameters()}


@pytest.mark.parametrize(("family", "heads"), [(SD1, {"num_heads": 8}), (SD2, {"num_head_channels": 64})])
def test_shapes_are_those_of_ldms_own_networks_at_real_width(family: Family, heads: dict[str, int]) -> None:
    from ldm.modules.diffusionmodules.model import Decoder, Encoder
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    levels = {"ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "out_ch": 3}
    vae = {**levels, "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3}
    with torch.device("meta"):
        unet = UNetModel(
            image_size=32,
            in_channels=4,
            out_channels=4,
            model_channels=320,
            attention_resolutions=[4, 2, 1],
            num_res_blocks=2,
            channel_mult=[1, 2, 4, 4],
            use_spatial_transformer=True,
            use_linear_in_transformer=family is SD2,
            transformer_depth=1,
            context_dim=768 if family is SD1 else 1024,
            legacy=False,
            **heads,
        )
        coder = {
            "encoder": Encoder(**vae),
            "decoder": Decoder(**vae),
            "quant_conv": nn.Conv2d(8, 8, 1),
            "post_quant_conv": nn.Conv2d(4, 4, 1),
        }
        ours, our_vae = UNet2DConditionModel.from_config(family.unet), AutoencoderKL.from_config(family.vae)
    weights = {UNET + name: tensor for name, tensor in unet.state_dict().items()}
    new = convert_ldm_unet_checkpoint(weights, dict(ours.config))
    assert {name: tensor.shape for name, tensor in new.items()} == shapes(ours)
    weights = {
        f"first_stage_model.{part}.{name}": tensor
        for part, module in coder.items()
        for name, tensor in module.state_dict().items()
    }
    new = convert_ldm_vae_checkpoint(weights, dict(our_vae.config))
    assert {name: tensor.shape for name, tensor in new.items()} == shapes(our_vae)


# Counted on the networks of Stability's own code and of OpenCLIP, of which OpenCLIP has parameters that nothing here
# reads: the last layer in SD 2.x, and its scale of logits.
COUNTS = {
    "sd1": (SD1, 859_520_964, 83_653_863, [123_060_480]),
    "sd2": (SD2, 865_910_724, 83_653_863, [354_032_641 - 1024 * 1024 - 1 - 12_596_224]),
    "sdxl": (SDXL, 2_567_463_684, 83_653_863, [123_060_480, 694_659_840]),
    "refiner": (REFINER, 2_259_526_660, 83_653_863, [694_659_840]),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parts_have_as_many_parameters_as_the_released_ones(name: str) -> None:
    family, unet, vae, encoders = COUNTS[name]
    with torch.device("meta"):
        parts = [UNet2DConditionModel.from_config(family.unet), AutoencoderKL.from_config(family.vae)]
        for encoder in family.text_encoders.values():
            kind = CLIPTextModelWithProjection if encoder.projected else CLIPTextModel
            parts.append(kind(CLIPTextConfig(**encoder.config)))
    assert [sum(weight.numel() for weight in part.parameters()) for part in parts] == [unet, vae, *encoders]


def test_tokenizer_is_clips() -> None:
    tokenizer = clip_tokenizer("!")
    # What OpenCLIP's own tokenizer gives.
    expected = [49406, 320, 1929, 267, 39121, 44353, 34002, 508, 15304, 49407]
    assert tokenizer("a dog, 日本語 café").input_ids == expected
    padded = tokenizer("a dog", padding="max_length", max_length=77).input_ids
    assert padded == [49406, 320, 1929, 49407] + [0] * 73
    assert len(tokenizer) == 49408


def header(family: Family, channels: int = 4, texts: bool = True) -> dict[str, Tensor]:
    """Return the tensors that identify a family."""
    weights = {UNET + "input_blocks.0.0.weight": torch.zeros(8, channels, 3, 3)}
    weights[UNET + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"] = torch.zeros(
        8, family.unet["cross_attention_dim"]
    )
    if texts:
        weights |= {encoder.prefix + "x": torch.zeros(1) for encoder in family.text_encoders.values()}
    return weights


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("family", [SD1, SD2, SDXL], ids=lambda family: family.name)
def test_families_are_known_by_their_tensors(family: Family, texts: bool) -> None:
    assert recognise(Checkpoint(Path("a.ckpt"), header(family, texts=texts), {}).header) is family


@pytest.mark.parametrize(
    ("family", "channels", "kind"),
    [
        (SD1, 9, r"an inpainting model, of Stable Diffusion 1\.x"),
        (SDXL, 9, r"an inpainting model, of Stable Diffusion XL"),
        (SD1, 8, r"a model that edits images \(InstructPix2Pix\)"),
        (SD2, 5, "a model that takes a depth map"),
        (REFINER, 4, "the refiner of Stable Diffusion XL"),
    ],
)
def test_models_for_other_purposes_are_named(family: Family, channels: int, kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"a\.ckpt is {kind}.*, not a text-to-image model"):
        recognise(Checkpoint(Path("a.ckpt"), header(family, channels), {}).header)


def predicts(path: Path, folder: Path, **how: Any) -> tuple[str, str]:
    told: list[str] = []
    pipe = load_pipeline(str(path), device="cpu", config=str(folder), tell=told.append, **how)
    return pipe.scheduler.config.prediction_type, told[0]


def test_prediction_is_what_the_file_says_of_itself(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "folder")
    weights = small_checkpoint(folder)
    plain, marked, named = (tmp_path / f"{name}.safetensors" for name in ("plain", "marked", "named"))
    save_file(weights, plain)
    save_file({**weights, "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, marked)
    save_file(weights, named, metadata={"modelspec.prediction_type": "v"})
    assert predicts(plain, folder)[0] == "epsilon"
    assert predicts(plain, folder, prediction="v")[1].endswith("predicts velocity, by --prediction.")
    assert predicts(marked, folder)[0] == "v_prediction"
    assert predicts(marked, folder, prediction="epsilon")[0] == "epsilon"
    assert load_pipeline(
        str(marked), device="cpu", config=str(folder)
    ).scheduler.config.rescale_betas_zero_snr
    assert predicts(named, folder)[1] == (
        "named.safetensors is of Stable Diffusion 1.x and predicts velocity, by its metadata."
    )
    plain.with_suffix(".yaml").write_text("model:\n  params:\n    parameterization: 'v'\n")
    assert predicts(plain, folder)[1].endswith("predicts velocity, by plain.yaml.")
    plain.with_suffix(".yaml").write_text("model:\n  params:\n    timesteps: 1000\n")
    assert predicts(plain, folder)[0] == "epsilon"


def test_sd2_says_by_one_call_what_it_predicts() -> None:
    class Answers:
        config, dtype, device = diffusers_unet("sd2").config, torch.float32, torch.device("cpu")

        def __init__(self, change: float) -> None:
            self._change = change

        def __call__(self, latents: Tensor, time: Tensor, encoder_hidden_states: Tensor) -> Any:
            assert (time == 999).all()
            return SimpleNamespace(sample=latents + self._change)

    assert probed_prediction(Answers(-0.1)) == "epsilon"
    assert probed_prediction(Answers(-1.5)) == "v_prediction"


def drop(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {name: tensor for name, tensor in weights.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    ("prefix", "what"),
    [("first_stage_model.", r"autoencoder \(VAE\)"), ("cond_stage_model.", "text encoder")],
)
def test_parts_that_a_file_lacks_are_taken_from_the_configuration(
    tmp_path: Path, prefix: str, what: str
) -> None:
    folder = small_folder(tmp_path / "folder")
    path = tmp_path / "part.SAFETENSORS"
    save_file(drop(prefix)(small_checkpoint(folder)), path)
    pipe = load_pipeline(str(path), device="cpu", config=str(folder))
    assert pipe("a red circle", num_inference_steps=1, width=64, height=64).images
    part = "vae" if "VAE" in what else "text_encoder"
    for weights in (folder / part).glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(UnsupportedModelError, match=rf"part\.SAFETENSORS has no {what}.*Give --config"):
        load_pipeline(str(path), device="cpu", config=str(folder))


def test_a_file_that_lacks_tensors_is_incomplete(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "folder")
    weights = small_checkpoint(folder)
    del weights[UNET + "out.2.bias"]
    path = tmp_path / "model.safetensors"
    save_file(weights, path)
    with pytest.raises(
        SettingsError, match=r"incomplete \(its U-Net lacks 1 of \d+ tensors, such as conv_out"
    ):
        load_pipeline(str(path), device="cpu", config=str(folder))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SettingsError, match=r"damaged or incomplete .* Download it again"):
        load_pipeline(str(path), device="cpu", config=str(folder))


def test_text_encoders_of_2022_are_renamed(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "folder")
    weights = small_checkpoint(folder)
    old = {
        name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in weights.items()
    }
    assert old.keys() != weights.keys()
    save_file(old, tmp_path / "old.safetensors")
    assert read_checkpoint(tmp_path / "old.safetensors").weights.keys() == weights.keys()


def test_a_file_without_a_word_on_its_prediction(tmp_path: Path) -> None:
    assert prediction_of(Checkpoint(tmp_path / "a.ckpt", {}, {})) == ("", "")
