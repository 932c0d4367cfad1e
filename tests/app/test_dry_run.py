"""A dry run generates nothing, and predicts the size of a real run's files within a few per cent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lib_dumpunet.hosts.diffusers.header import UNET
from lib_dumpunet.sinks.reader import load_dump
from tests.unets import ldm_unet

pytestmark = pytest.mark.slow

STEERED = "a red circle (~: M00: and a star :~)"
RUNS: dict[str, list[str]] = {
    "features": ["generate", "a red circle", "--save-steps", "1,3", "--layers", "IN00-OUT11(+3)"],
    "attention": [
        "generate", "a red circle and a blue square", "--no-features", "--attention", "k,qk,vqk,self,update,words",
        "--layers", "IN05,M00", "--points", "8,8", "--lattice", "3",
    ],
    "long": ["generate", "a red circle " * 30, "--attention", "qk", "--layers", "OUT09", "--save-steps", "2"],
    "batch": ["generate", "a red circle", "a blue square", "--batch", "2", "--attention", "words", "--layers", "M00"],
    "difference": ["generate", STEERED, "--difference", "--difference-runs", "both", "--layers", "M00,OUT03"],
    "negative": ["words", "a red circle", "--negative", "blurry", "--negative-words", "*"],
}  # fmt: skip
SMALL = ["--width", "128", "--height", "96", "--steps", "3", "--seed", "1"]


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        ("features", "npy"), ("attention", "npy"), ("attention", "bin"), ("attention", "safetensors"),
        ("long", "safetensors"), ("batch", "npy"), ("difference", "safetensors"), ("negative", None),
    ],
)  # fmt: skip
def test_a_dry_run_tells_what_a_run_writes(
    run: Any, tmp_path: Path, name: str, file_format: str | None
) -> None:
    command = [*RUNS[name], *SMALL, "--json", "--out", str(tmp_path / "out")]
    if file_format is not None:  # `words` always keeps what it adds up
        command += ["--dump", file_format]
    dry = run(*command, "--dry-run")
    assert dry.code == 0, dry.err
    assert not (tmp_path / "out").exists()
    told = json.loads(dry.out)

    assert run(*command).code == 0
    files = [path for path in (tmp_path / "out" / "dump").rglob("*") if path.is_file()]
    written = sum(path.stat().st_size for path in files)
    assert told["disk"] == pytest.approx(written, rel=0.05)
    read = [item for path in {file.parent for file in files} for item in load_dump(path)]
    assert sum(one["tensors"] for one in told["kinds"]) == len(read)
    memory = sum(item.tensor.nbytes for item in read)
    assert told["memory"] == memory


def test_a_checkpoint_is_told_by_its_header(run: Any, tmp_path: Path) -> None:
    """Weights are not read: a U-Net with SD 1.x's shape that could not generate an image is enough."""
    weights = {UNET + name: tensor for name, tensor in ldm_unet("sd1").state_dict().items()}
    save_file(weights, tmp_path / "a.safetensors")
    done = run(
        "generate", "a", "--model", tmp_path / "a.safetensors", "--dry-run", "--json", "--layers", "M00",
        "--dump", "npy",
    )  # fmt: skip
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["width"], told["steps"]) == (512, 20)
    # SD 1.x's middle block is 1280 x 8 x 8 at 512 x 512 pixels, in float32 on a CPU.
    assert told["memory"] == 20 * 1280 * 8 * 8 * (2 if torch.cuda.is_available() else 4)


def test_a_dry_sweep_tells_its_images(run: Any, tmp_path: Path) -> None:
    done = run(
        "sweep", "a (~:{block}: red:~) circle", "--dry-run", "--groups", "IN,M", "--count", "2", "--json"
    )
    assert json.loads(done.out) == {"images": 6, "targets": ["IN", "M"], "steps": 20}


def test_mistakes_are_told_by_a_dry_run_too(run: Any) -> None:
    done = run("words", "a red circle", "--words", "hat", "--dry-run")
    assert done.code == 2
    assert "--words: " in done.err


def test_what_cannot_be_told_is_said(run: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    done = run("generate", "a", "--model", tmp_path / "a.ckpt", "--dry-run")
    assert done.code == 2
    assert "a dry run is not possible without loading this model" in done.err
