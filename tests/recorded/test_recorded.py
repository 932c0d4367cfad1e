"""Names, files, pixels and parameters have not changed: old images and dumps must stay readable."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from lib_dumpunet.models.describe import describe
from lib_dumpunet.settings.fields import ENTRIES, pack
from lib_dumpunet.settings.infotext import from_infotext
from lib_dumpunet.settings.json import from_dict
from lib_dumpunet.sinks.reader import Loaded, load_dump
from tests.recorded.hand_made import FORMATS, HERE, parameters, run, told, without_time
from tests.unets import diffusers_unet


def recorded(name: str) -> Any:
    return json.loads((HERE / name).read_text("utf-8"))


@dataclass(frozen=True)
class Made:
    """The results of the captures now."""

    folder: Path
    pictures: list[dict[str, Any]]


@pytest.fixture(scope="module", params=FORMATS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("new") / request.param
    pictures = run(describe(diffusers_unet("sd1")), request.param, folder)
    return Made(folder, [told(picture) for picture in pictures])


@pytest.fixture
def new(made: Made) -> Path:
    return made.folder


@pytest.fixture
def old(made: Made, tmp_path: Path) -> Path:
    """Return the recorded dump in the same format."""
    with zipfile.ZipFile(HERE / f"{made.folder.name}.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_pictures_have_their_names_captions_and_pixels(made: Made) -> None:
    assert made.pictures == recorded("pictures.json")


def test_dumps_are_the_same_file_by_file(old: Path, new: Path) -> None:
    before, after = ({without_time(path.name): path for path in sorted(at.iterdir())} for at in (old, new))
    assert list(after) == list(before)
    for name, path in after.items():
        if name == "manifest.json":
            assert manifest(path) == manifest(before[name])
        else:
            assert contents(path) == contents(before[name]), name
    kinds = {json.dumps(entry["kind"]) for entry in manifest(new / "manifest.json")["files"]}
    assert len(kinds) == 9


def manifest(path: Path) -> Any:
    """Read a manifest, without the time; several threads write its files."""
    read = json.loads(without_time(path.read_text("utf-8")))
    for one in read["runs"]:
        one.pop("time", None), one.pop("started", None)
    read["files"].sort(key=lambda entry: (entry["file"], json.dumps(entry)))
    return read


def contents(path: Path) -> Any:
    """Return a file's bytes; of safetensors, whose tensors may stand in any order, what is in it.

    Principal components are left out: linear algebra rounds otherwise on another processor.
    """
    if path.suffix != ".safetensors":
        return path.stat().st_size if "-pca" in path.name else path.read_bytes()
    with safe_open(path, "np") as file:
        tensors = {key: file.get_tensor(key) for key in list(file.keys())}
        return file.metadata(), {
            key: t.shape if ".pca." in key else t.tobytes() for key, t in tensors.items()
        }


def test_old_dumps_are_read_back(old: Path, new: Path) -> None:
    before, after = (list(load_dump(at)) for at in (old, new))
    assert len(before) == 90
    for one, other in zip(before, after, strict=True):
        assert (one.tag, one.tokens, one.run) == (other.tag, other.tokens, other.run)
        torch.testing.assert_close(one.tensor, other.tensor, atol=1e-4, rtol=0)


def test_old_dumps_are_read_without_their_manifest(old: Path) -> None:
    with_it = list(load_dump(old))
    (old / "manifest.json").unlink()
    # Names tell the shape of no bin file, and no map of attention is as large as a block's.
    files = sorted(old.glob("*-IN01-*")) if any(old.glob("*.bin")) else old
    without = list(map(of_tensor, load_dump(files, shape=(3, 4))))
    assert without
    assert set(without) <= set(map(of_tensor, with_it))


def of_tensor(loaded: Loaded[torch.Tensor]) -> tuple[str, bytes]:
    return without_time(loaded.paths[0].name), np.ascontiguousarray(loaded.tensor).tobytes()


def test_callers_of_the_api_and_old_images_say_the_same_as_ever() -> None:
    assert parameters() == recorded("parameters.json")


@pytest.mark.parametrize("number", range(len(recorded("parameters.json"))))
def test_old_images_fill_the_panel(number: int) -> None:
    """All settings except folders, which images leave out."""
    one = recorded("parameters.json")[number]
    if one["parameters"]:
        filled = [from_infotext(one["parameters"], entry) for entry in ENTRIES]
        held = pack(from_dict(one["api"]))
        kept = [entry.is_shared for entry in ENTRIES]
        assert [value for value, own in zip(filled, kept, strict=True) if own] == [
            value for value, own in zip(held, kept, strict=True) if own
        ]
