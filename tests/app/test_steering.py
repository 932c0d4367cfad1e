"""Per-block prompts on the command line: differences and sweeps as users type them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_dumpunet.hosts.diffusers.sampling import Sampler
from lib_dumpunet.sinks.reader import load_dump

pytestmark = pytest.mark.slow

QUICK = ("--steps", 2, "--width", 64, "--height", 64, "--seed", 3)
STEERED = "a (~: OUT10: blue ; _: red :~) circle"
SWEPT = "a (~:{block}: blue ; _: red :~) circle"


def parameters(path: Path) -> str:
    with Image.open(path) as image:
        return str(image.info["parameters"])


def interrupt_at(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Raise the user's interrupt before a batch, counted from 1 over all runs."""
    sample = Sampler.sample
    calls: list[range] = []

    def interrupted(self: Sampler, conditioning: Any, images: range) -> Any:
        calls.append(images)
        if len(calls) == batch:
            raise KeyboardInterrupt
        return sample(self, conditioning, images)

    monkeypatch.setattr(Sampler, "sample", interrupted)


def test_differences_leave_both_images_maps_and_dumps(run: Any, tmp_path: Path) -> None:
    result = run(
        "generate", STEERED, *QUICK, "-o", tmp_path, "--difference", "--layers", "M00,OUT11", "--save-steps", 2,
        "--average", "2-norm", "--method", "white-black", "--dump", "npy", "--difference-layers", "OUT10-OUT11",
        "--no-features", "--negative", "x(~:M00: y:~)",
    )  # fmt: skip
    assert result.code == 0
    assert "images     000-plain.png, 000.png\n" in result.out
    assert "changes    000-difference.png\n" in result.out
    assert parameters(tmp_path / "000.png").splitlines()[:2] == [STEERED, "Negative prompt: x(~:M00: y:~)"]
    assert parameters(tmp_path / "000-plain.png").splitlines()[:2] == ["a  circle", "Negative prompt: x"]
    stems = [f"000-{block}-002-difference" for block in ("OUT10", "OUT11")]
    assert sorted(path.stem for path in (tmp_path / "difference").iterdir()) == sorted(
        name for stem in stems for name in (stem, f"{stem}-average")
    )
    assert "Difference: with - without" in parameters(tmp_path / "difference" / f"{stems[0]}.png")
    assert (tmp_path / "differences.png").exists()
    assert not (tmp_path / "overview.png").exists()
    assert [item.tag.stem for item in load_dump(tmp_path / "dump") if item.tag] == stems
    again = run("view", tmp_path / "dump", "-o", tmp_path / "again", "--method", "white-black")
    assert again.code == 0
    redrawn = next((tmp_path / "again").rglob(f"{stems[1]}.png"))
    with Image.open(redrawn) as one, Image.open(tmp_path / "difference" / f"{stems[1]}.png") as other:
        assert one.tobytes() == other.tobytes()


def test_differences_take_what_is_not_given_from_the_features(run: Any, tmp_path: Path) -> None:
    result = run(
        "generate", STEERED, *QUICK, "-o", tmp_path, "--difference", "--layers", "M00", "--save-steps", 1, "--json"
    )  # fmt: skip
    names = sorted(Path(path).name for path in result.data["pictures"])
    assert names == ["000-M00-001-difference.png", "000-M00-001-unet.png"]


def test_sweep_leaves_images_a_sheet_and_a_table(run: Any, tmp_path: Path) -> None:
    result = run("sweep", SWEPT, *QUICK, "-o", tmp_path, "--blocks", "M00,OUT10", "--groups", "IN01-IN05(+2)")
    assert result.code == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "000-IN01-IN05-2.png",
        "000-M00.png",
        "000-OUT10.png",
        "000-plain.png",
        "sweep.png",
    ]
    with (tmp_path / "sweep.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["rank"] for row in table] == ["1", "2", "3"]
    assert {row["blocks"] for row in table} == {"M00", "OUT10", "IN01-IN05(+2)"}
    distances = [float(row["pixel_distance"]) for row in table]
    assert distances == sorted(distances, reverse=True)
    assert all(float(row["latent_distance"]) > 0 for row in table)
    lines = result.out.splitlines()
    assert lines[0].split() == ["rank", "blocks", "pixels", "latents"]
    assert [line.split()[1] for line in lines[1:4]] == [row["blocks"] for row in table]
    # What made an image is a prompt that makes it again.
    prompt = parameters(tmp_path / "000-OUT10.png").splitlines()[0]
    assert prompt == SWEPT.replace("{block}", "OUT10")
    run("generate", prompt, *QUICK, "--no-features", "-o", tmp_path / "again")
    with Image.open(tmp_path / "000-OUT10.png") as one, Image.open(tmp_path / "again" / "000.png") as other:
        assert one.tobytes() == other.tobytes()


def test_sweep_for_scripts(run: Any, tmp_path: Path) -> None:
    result = run("sweep", SWEPT, *QUICK, "-o", tmp_path, "--blocks", "M00,OUT10", "--batch", 2, "--json")
    assert result.err == ""
    data = result.data
    assert [Path(path).name for path in data["images"]] == [
        f"{number:03}-{name}.png" for name in ("plain", "M00", "OUT10") for number in (0, 1)
    ]
    assert data["seeds"] == [3, 4]
    assert [set(row) for row in data["ranking"]] == [{"blocks", "pixel_distance", "latent_distance"}] * 2
    with Image.open(tmp_path / "sweep.png") as sheet:
        assert sheet.width > sheet.height  # a row for each seed, a column for each image


def test_an_interrupted_sweep_shows_what_came_before(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 3)
    result = run("sweep", SWEPT, *QUICK, "-o", tmp_path, "--blocks", "M00,OUT10")
    assert result.code == 130
    assert result.out.splitlines()[1].split()[:2] == ["1", "M00"]
    assert sorted(path.name for path in tmp_path.glob("0*.png")) == ["000-M00.png", "000-plain.png"]
    assert (tmp_path / "sweep.png").exists()
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 2


def test_an_interrupted_generation_shows_what_came_before(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 4)
    options = ("--difference", "--layers", "OUT11", "--average", "sum", "--count", 2)
    result = run("generate", STEERED, *QUICK, "-o", tmp_path, *options)
    assert result.code == 130
    assert "images     000-plain.png, 000.png, 001-plain.png" in result.out
    assert (tmp_path / "differences.png").exists()
    assert (tmp_path / "overview.png").exists()
