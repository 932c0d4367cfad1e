"""A disk that fills up: images are written first, and the error is reported once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from lib_dumpunet.app.cli import main
from lib_dumpunet.errors import HostError, SettingsError
from lib_dumpunet.sinks.files import told_once
from tests.disks import small_disk

pytestmark = pytest.mark.slow

SIZE = 2 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, SIZE):
        yield folder


def test_images_have_room_on_a_disk_that_pictures_and_dumps_fill(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "a red circle", "--steps", "4", "--count", "3", "--seed", "1", "--width", "128"]
    code = main([*arguments, "--height", "128", "--dump", "npy", "--out", str(disk)])
    told = capsys.readouterr().err
    assert code == 1
    assert told.count("dumpunet: ") == 1
    assert "the disk is full" in told
    assert "other files of the run are missing for the same reason" in told
    images = sorted(disk.glob("0*.png"))
    assert images
    for image in images:
        Image.open(image).load()
    assert not (disk / ".room").exists()


def test_a_disk_without_room_for_an_image_is_told_before_sampling(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (disk / "other").write_bytes(bytes(SIZE - 200_000))
    assert main(["generate", "a red circle", "--out", str(disk / "out")]) != 0
    assert "the disk is full" in capsys.readouterr().err


def test_a_folder_that_is_removed_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lib_dumpunet.app.collect import Collector

    take = Collector.image

    def image(self: Collector, number: int, image: Image.Image) -> None:
        shutil.rmtree(tmp_path / "out")
        take(self, number, image)

    monkeypatch.setattr(Collector, "image", image)
    main(["generate", "a red circle", "--steps", "2", "--layers", "M00", "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "000.png").is_file()


def full(what: str) -> HostError:
    try:
        raise HostError(what) from OSError(28, "No space left on device")
    except HostError as error:
        return error


def test_a_full_disk_is_one_message() -> None:
    other = SettingsError("something else")
    (first, second) = told_once([full("a"), other, full("b")])
    assert str(first) == "a; other files of the run are missing for the same reason."
    assert second is other
    assert told_once([other, full("a")])[0].problem == "a"
