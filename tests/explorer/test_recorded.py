"""Pages of dumps: recordings are drawn later, without the run and without an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib_dumpunet.errors import SettingsError
from lib_dumpunet.explorer.recorded import write_recorded
from lib_dumpunet.ports import Page
from lib_dumpunet.settings import (
    AttentionSettings,
    DumpSettings,
    ExplorerSettings,
    FeatureSettings,
    Settings,
)
from tests.explorer.pages import Read, make_pages, read_page


def recorded(*files: Path, limit: float = 25, **settings: Any) -> dict[tuple[int | None, int], Read]:
    pages: dict[tuple[int | None, int], Read] = {}

    def write(run: int | None, page: Page) -> None:
        pages[run, page.image] = read_page(page.html)

    write_recorded(files, FeatureSettings(**settings), limit, write)
    return pages


@pytest.mark.parametrize("file_format", ["npy", "safetensors", "bin"])
def test_a_page_of_a_dump_has_the_maps_of_the_page_of_the_run(
    tiny: Any, tmp_path: Path, file_format: str
) -> None:
    dump = DumpSettings(True, file_format, str(tmp_path))
    settings = Settings(
        FeatureSettings(layers="M00,OUT08", dump=dump),
        AttentionSettings(kinds=("qk", "words"), layers="M00,OUT08", steps="1,3", dump=dump),
        explorer=ExplorerSettings(enabled=True, alone=True),
    )
    made = make_pages(tiny, ["a red circle", "a star"], settings)
    pages = recorded(tmp_path)
    assert list(pages) == [(1, 0), (1, 1)]
    for live, later in zip(map(read_page, (page.html for page in made.pages)), pages.values(), strict=True):
        for key in ("number", "frames", "modes"):
            assert later.data[key] == live.data[key], key
        parameters = {name: value for name, value in live.data["parameters"].items() if name != "Size"}
        assert later.data["parameters"] == parameters  # a dump does not tell the size of the image
        assert later.data["picture"] == ""
        names = [(layer["mode"], layer["block"]) for layer in live.data["layers"]]
        assert [(layer["mode"], layer["block"]) for layer in later.data["layers"]] == names
        for layer, other in zip(live.data["layers"], later.data["layers"], strict=True):
            for part in ("summary", "details"):
                assert other[part]["names"] == layer[part]["names"]
                for place in range(len(layer[part]["frames"])):
                    for ours, theirs in zip(
                        later.maps(other[part], place), live.maps(layer[part], place), strict=True
                    ):
                        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
        assert [word["name"] for word in later.data["words"]] == [word["name"] for word in live.data["words"]]


def test_runs_of_one_folder_have_pages_of_their_own_and_choices_hold(tiny: Any, tmp_path: Path) -> None:
    for layers in ("M00", "M00,OUT08"):
        settings = Settings(FeatureSettings(layers=layers, dump=DumpSettings(True, "npy", str(tmp_path))))
        make_pages(tiny, ["a star"], replace(settings, explorer=ExplorerSettings()))
    assert list(recorded(tmp_path)) == [(1, 0), (2, 0)]
    chosen = recorded(tmp_path, layers="OUT08", steps="2")
    assert list(chosen) == [(2, 0)]
    assert [frame["step"] for frame in chosen[2, 0].data["frames"]] == [2]
    assert [layer["block"] for layer in chosen[2, 0].data["layers"]] == ["OUT08"]


def test_single_files_without_a_manifest_make_a_page(tiny: Any, tmp_path: Path) -> None:
    dump = DumpSettings(True, "npy", str(tmp_path))
    make_pages(tiny, ["a star"], Settings(FeatureSettings(layers="M00,OUT08", dump=dump)))
    ((_, page),) = recorded(tmp_path / "000-OUT08-001.npy", tmp_path / "000-M00-001.npy").items()
    assert [block["name"] for block in page.data["blocks"]] == ["M00", "OUT08"]


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.zeros((2, 3, 3), np.float32))
    with pytest.raises(SettingsError, match="can be shown on a page"):
        recorded(tmp_path / "mine.npy")
    with pytest.raises(SettingsError, match="does not exist"):
        recorded(tmp_path / "nothing.npy")
