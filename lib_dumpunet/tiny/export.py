"""Export the trained networks as a folder in diffusers format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

from .diffusion import Run, new_model
from .relations import DetailsRun, RelationsRun


def export(work: Path, folder: Path) -> None:
    """Write the averaged weights as an fp16 pipeline; an existing model card is kept."""
    stages = (DetailsRun, RelationsRun, Run)
    latest = next(work / stage.file for stage in stages if (work / stage.file).exists())
    saved = torch.load(latest, map_location="cpu")
    model = new_model(saved["widths"], work)
    model.load_state_dict(saved["average"])
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        text_encoder=model["text_encoder"],
        unet=model["unet"],
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder)
    # save_pretrained drops vocab.json and merges.txt, which older tokenizers load from.
    shutil.copytree(work / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    # transformers 5 loads a model in the dtype it was saved in; diffusers loads the rest as float32.
    _change(folder / "text_encoder" / "config.json", dtype="float32")
    _change(folder / "vae" / "config.json", _name_or_path="")  # remove the local path
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(0o644)  # the library makes it readable only by its owner


def _change(config: Path, **values: str) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | values, indent=2) + "\n")


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
