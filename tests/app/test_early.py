"""Mistakes that need no model are reported before torch is imported, and leave no files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

START = """
import sys
for name in ("torch", "diffusers", "transformers", "gradio"):
    sys.modules[name] = None  # importing it fails
from lib_dumpunet.app.cli import main
sys.exit(main(sys.argv[1:]))
"""

MISTAKES = {
    "blocks": (["generate", "a", "--layers", "IN99"], "--blocks: the model has no block IN99"),
    "syntax of blocks": (["generate", "a", "--layers", "IN00-"], "--blocks: the text ends too early"),
    "attention": (["words", "a", "--attention-layers", "INN"], "--attention-blocks: 'INN'"),
    "difference": (
        ["generate", "a (~: M00: b :~)", "--difference", "--difference-layers", "X"],
        "--difference-blocks",
    ),
    "steps": (["generate", "a", "--save-steps", "30"], "--save-steps: no step is left"),
    "bracket": (["generate", "a (~: x"], "prompt: 'x' is not allowed here"),
    "negative bracket": (["explore", "a", "--negative", "(~: M00 x :~)"], "Negative prompt: ':' is missing"),
    "formula": (["generate", "a", "--method", "rgb", "--formula", "x;1;1"], "Color space, R: x is not known"),
    "size": (["generate", "a", "--width", "100"], "--width: 100 is not a multiple of 8"),
    "points": (["words", "a", "--points", "5"], "--points: a point is expected"),
    "no bracket": (["generate", "a", "--difference"], "Difference: no prompt has text per block"),
    "empty page": (["generate", "a", "--no-features", "--html"], "--html: nothing is captured"),
    "file": (["generate", "a", "--model", "none.safetensors"], "model: there is no file or folder"),
    "configuration": (["generate", "a", "--config", "none/at/all"], "config: there is no file or folder"),
    "sweep's bracket": (["sweep", "a (~: {block} x :~)"], "prompt: ':' is missing"),
    "sweep's place": (["sweep", "a"], "prompt: there is no {block}"),
    "sweep's blocks": (
        ["sweep", "a (~:{block}:b:~)", "--blocks", "IN77"],
        "--blocks: the model has no block IN77",
    ),
    "listed blocks": (["blocks", "--layers", "IN44"], "--blocks: the model has no block IN44"),
    "points outside": (
        ["words", "a", "--points", "99,9", "--width", "64", "--height", "64"],
        "--points: 99,9 is outside",
    ),
    "blocks without attention": (
        ["generate", "a", "--no-features", "--attention", "qk", "--layers", "IN00"],
        "--blocks: IN00: no attention layer. Choose among IN01-IN02",
    ),
    "steps of a block": (["generate", "a (~: M00@3-: b :~)", "--steps", "2"], "prompt: no step is left"),
    "half a bracket": (["words", "a (~：M00: red:~) circle"], "prompt: '(~：' does not open a bracket"),
    "sweep's idle block": (
        ["sweep", "a (~:{block}:b:~)", "--blocks", "IN00"],
        "--blocks: IN00: no attention",
    ),
    "view": (["view", "none.npy", "--out", "pictures"], "none.npy does not exist"),
    "studio": (["studio", "--model", "none.ckpt"], "model: there is no file or folder"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_told_without_torch(
    arguments: list[str], message: str, tmp_path: Path, root: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{START}", *arguments],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"dumpunet: {message}" in done.stderr
    assert "Loading" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_flag_that_cannot_be_read_is_told_in_a_line(root: Path) -> None:
    command = [sys.executable, "-m", "lib_dumpunet", "generate", "a", "--width"]
    wrong = "dumpunet: --width: 'abc' is not a whole number. Write one, such as 0.\n"
    nothing = "dumpunet generate: Argument --width: expected one argument. See dumpunet generate --help.\n"
    for more, message in ((["abc"], wrong), ([], nothing)):
        done = subprocess.run([*command, *more], cwd=root, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 2
        assert done.stderr == message


def test_a_value_may_begin_with_a_minus(root: Path) -> None:
    command = [sys.executable, "-m", "lib_dumpunet", "generate", "a", "--clamp", "-1,-2"]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=False)
    assert "--clamp: -1 is not below Clamp max. -2" in done.stderr


def test_prompt_shows_what_generate_reads(root: Path) -> None:
    command = [sys.executable, "-m", "lib_dumpunet", "prompt", "a <lora:foo:1>(~: IN00: red :~) circle"]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=True)
    assert "lora" not in done.stdout
    assert "Warning: <lora:foo:1> is left out of the prompt" in done.stderr
    assert "Warning: prompt: no cross-attention in IN00" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["prompt", "a (~: M00: b :~)"]])
def test_what_needs_no_model_needs_no_torch(arguments: list[str], root: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(root)!r})\n{START}"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("ending", ["npy", "bin"])
def test_files_are_drawn_without_torch(ending: str, tmp_path: Path, root: Path) -> None:
    values = np.random.default_rng(1).normal(size=(3, 8, 8)).astype(np.float32)
    if ending == "npy":
        np.save(tmp_path / "a.npy", values.astype(np.float16))
    else:
        values[0].tofile(tmp_path / "000-M00-001-00.bin")
    (file,) = tmp_path.iterdir()
    code = f"import sys; sys.path.insert(0, {str(root)!r})\n{START}"
    command = [sys.executable, "-c", code, "view", str(file), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 1
