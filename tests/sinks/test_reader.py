"""Dumps are loaded from folders, files and lists; anything else is refused with one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.sinks.dump import DumpSink
from lib_dumpunet.sinks.reader import READERS, load_dump
from lib_dumpunet.sinks.request import DumpRequest

Make = Callable[..., list[Capture]]


def write(folder: Path, kind: str, request: DumpRequest, captures: list[Capture]) -> None:
    sink = DumpSink(folder, kind, request)
    for capture in captures:
        sink.accept(capture)
    sink.close()


def write_bin(
    folder: Path, channels: int = 3, count: int = 16, *, block: str = "IN00", time: int = 1700
) -> list[Path]:
    """Write channel files as the original does: channel c has the numbers from 100 c on."""
    paths = [folder / f"000-{block}-001-{channel:04}-{time}.bin" for channel in range(channels)]
    for channel, path in enumerate(paths):
        (100 * channel + np.arange(count)).astype("<f4").tofile(path)
    return paths


@pytest.mark.parametrize("kind", ["bin", "npy", "safetensors"])
@pytest.mark.parametrize("manifest", [True, False])
def test_a_folder_comes_back_in_order(
    tmp_path: Path, kind: str, manifest: bool, request_: DumpRequest, captures: Make
) -> None:
    made = captures(shape=(3, 4, 4), hires=True)
    write(tmp_path, kind, request_, made[::-1])
    if not manifest:
        (tmp_path / "manifest.json").unlink()
    loaded = list(load_dump(tmp_path))
    in_order = sorted((c.tag for c in made), key=lambda tag: (tag.image, tag.hires, tag.step, tag.block))
    assert [item.tag for item in loaded] == in_order
    tensors = {capture.tag: capture.tensor for capture in made}
    assert all(torch.equal(item.tensor, tensors[item.tag]) for item in loaded if item.tag)
    assert all(path.exists() for item in loaded for path in item.paths)


def test_it_reads_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: DumpRequest, captures: Make
) -> None:
    write(tmp_path, "npy", request_, captures())
    read: list[Path] = []
    original = READERS[".npy"]
    monkeypatch.setitem(READERS, ".npy", lambda path: read.append(path) or original(path))
    items = load_dump(tmp_path)
    assert read == []
    next(items)
    assert len(read) == 1


def test_single_files_know_what_their_folder_knows(
    tmp_path: Path, request_: DumpRequest, captures: Make
) -> None:
    made = captures(images=1, steps=1, dtype=torch.bfloat16)
    write(tmp_path, "npy", request_, made)
    (item,) = load_dump(tmp_path / "000-M00-001.npy")
    assert (item.tag, item.run, item.tensor.dtype) == (Tag(0, 1, "M00"), 1, torch.bfloat16)
    write(tmp_path, "safetensors", request_, made)
    items = list(load_dump(str(tmp_path / "000-001-2.safetensors")))
    assert [item.tag.block for item in items if item.tag] == ["IN00", "M00", "OUT11"]
    assert items[0].run == 2
    write(tmp_path, "bin", request_, made)
    paths = sorted(tmp_path.glob("000-M00-*.bin"), reverse=True)
    (item,) = load_dump(paths)
    assert torch.equal(item.tensor, made[1].tensor)
    (item,) = load_dump(paths[1])
    assert torch.equal(item.tensor, made[1].tensor[3:4])


@pytest.mark.parametrize("kind", ["bin", "npy", "safetensors"])
@pytest.mark.parametrize("manifest", [True, False])
def test_files_of_one_pass_are_read_without_the_other(
    tmp_path: Path, kind: str, manifest: bool, request_: DumpRequest, captures: Make
) -> None:
    made = captures(images=1, steps=1, shape=(3, 4, 4), hires=True)
    write(tmp_path, kind, request_, made)
    if not manifest:
        (tmp_path / "manifest.json").unlink()
    for hires in (False, True):
        paths = [path for path in tmp_path.glob(f"*.{kind}") if ("-hr001" in path.name) == hires]
        back = {item.tag: item.tensor for item in load_dump(paths)}
        assert back.keys() == {c.tag for c in made if c.tag.hires == hires}
        assert all(torch.equal(back[c.tag], c.tensor) for c in made if c.tag.hires == hires)


def test_the_originals_channel_files_are_put_together(tmp_path: Path) -> None:
    paths = write_bin(tmp_path) + write_bin(tmp_path, block="OUT11")
    first, second = load_dump(paths[::-1])
    assert first.paths == tuple(paths[:3])
    assert first.tensor.shape == (3, 4, 4)
    assert first.tensor[:, 0, 0].tolist() == [0, 100, 200]
    assert first.tensor[1, 1].tolist() == [104, 105, 106, 107]
    assert second.tag == Tag(0, 1, "OUT11")


def test_two_of_the_originals_runs_are_told_apart(tmp_path: Path) -> None:
    write_bin(tmp_path, time=1700)
    write_bin(tmp_path, time=1800)
    assert [len(item.paths) for item in load_dump(tmp_path)] == [3, 3]


def test_the_time_may_move_on_within_a_tensor(tmp_path: Path) -> None:
    paths = write_bin(tmp_path, channels=4)
    for path in paths[2:]:
        path.rename(path.with_name(path.name.replace("1700", "1701")))
    (item,) = load_dump(tmp_path)
    assert item.tensor[:, 0, 0].tolist() == [0, 100, 200, 300]


def test_shapes_that_are_not_square_are_asked_for(tmp_path: Path) -> None:
    write_bin(tmp_path, count=6)
    with pytest.raises(SettingsError, match=r"6 values, which is not a square map.*for example 2 and 3"):
        next(load_dump(tmp_path))
    (item,) = load_dump(tmp_path, shape=(2, 3))
    assert item.tensor.shape == (3, 2, 3)
    with pytest.raises(SettingsError, match="contains 6 values, not 4×4"):
        next(load_dump(tmp_path, shape=(4, 4)))


def test_a_given_shape_wins_over_the_guess(tmp_path: Path) -> None:
    write_bin(tmp_path)
    assert next(load_dump(tmp_path, shape=(2, 8))).tensor.shape == (3, 2, 8)


def test_a_folder_that_lost_a_channel_is_refused_but_its_files_can_be_given(tmp_path: Path) -> None:
    paths = write_bin(tmp_path)
    paths.pop(1).unlink()
    with pytest.raises(SettingsError, match="lacks the file of channel 1"):
        load_dump(tmp_path)
    assert next(load_dump(paths)).tensor.shape == (2, 4, 4)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", "<i4"])
def test_any_array_of_numbers_is_read(tmp_path: Path, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.save(tmp_path / "mine.npy", np.asfortranarray(array))
    (item,) = load_dump(tmp_path / "mine.npy")
    assert item.tag is None
    assert item.tensor.tolist() == array.tolist()


def save_pickle(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def save_cut(path: Path) -> None:
    np.save(path, np.zeros((10, 10)))
    os.truncate(path, path.stat().st_size - 1)


def save_huge(path: Path) -> None:
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6, 10)}
        )


def save_cut_safetensors(path: Path) -> None:
    save_file({"IN00": torch.zeros(9)}, path, metadata={"image": "0", "step": "1", "run": "1"})
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize(
    ("name", "make", "problem"),
    [
        ("a.npy", lambda path: path.write_bytes(b""), "damaged"),
        ("a.npy", lambda path: path.write_bytes(b"\x80\x04K\x01."), "damaged"),
        ("a.npy", lambda path: path.write_bytes(b"PK\x03\x04 not a zip"), "damaged"),
        ("a.npy", lambda path: np.save(path, np.array(["text"])), "damaged"),
        ("a.npy", save_pickle, "damaged"),
        ("a.npy", save_cut, "damaged"),
        ("a.npy", save_huge, "damaged"),
        ("a.safetensors", lambda path: path.write_bytes(b"x" * 99), "damaged"),
        ("a.safetensors", save_cut_safetensors, "damaged"),
        ("a.safetensors", lambda path: save_file({"w": torch.zeros(9)}, path), "another program"),
        ("a.bin", lambda path: path.write_bytes(b"12345"), "not a file of float32"),
        ("a.bin", lambda path: path.write_bytes(b""), "not a file of float32"),
        ("a.png", lambda path: path.write_bytes(b"x"), "not a dump"),
        ("a.npy", lambda path: None, "does not exist"),
        (".", lambda path: None, "contains no dumped tensors"),
    ],
)
def test_what_is_no_dump_is_told_in_a_sentence(
    tmp_path: Path, name: str, make: Callable[[Path], object], problem: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(SettingsError, match=problem) as caught:
        list(load_dump(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_listed_file_that_is_gone_is_told(tmp_path: Path, request_: DumpRequest, captures: Make) -> None:
    write(tmp_path, "npy", request_, captures(images=1, steps=1))
    (tmp_path / "000-M00-001.npy").unlink()
    items = load_dump(tmp_path)
    next(items)
    with pytest.raises(SettingsError, match=r"000-M00-001\.npy no longer exists"):
        next(items)


@pytest.mark.parametrize("name", ["../secret.npy", "/etc/passwd", "sub/a.npy", ".."])
def test_a_manifest_reaches_no_file_elsewhere(
    tmp_path: Path, name: str, request_: DumpRequest, captures: Make
) -> None:
    write(tmp_path, "npy", request_, captures(images=1, steps=1))
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_bytes())
    content["files"][0]["file"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(SettingsError, match="names a file outside the folder"):
        load_dump(tmp_path)


def test_a_foreign_manifest_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_bin(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    assert len(list(load_dump(tmp_path))) == 1
    assert "Using file names" in caplog.text


@pytest.mark.parametrize(
    "lie",
    [
        {"kind": None},
        {"kind": ["qk"]},
        {"kind": "plain"},
        {"kind": "qk", "layer": "x"},
        {"kind": "word", "word": ["x"]},
        {"shape": [0, 2, 2]},
        {"shape": [-1, 2, 2]},
        {"shape": [10**12, 2, 2]},
        {"shape": [1] * 9},
        {"shape": {"1": 1}},
        {"kind": "qk", "shape": [1]},
        {"prompt": ["x"]},
        {"source_dtype": 5},
        {"hires": 1},
    ],
)
def test_a_manifest_that_lies_is_passed_over(
    tmp_path: Path, lie: dict[str, object], request_: DumpRequest, captures: Make
) -> None:
    (made,) = captures(images=1, steps=1)[:1]
    write(tmp_path, "npy", request_, [made])
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_bytes())
    content["files"][0] |= lie
    path.write_text(json.dumps(content))
    (loaded,) = load_dump(tmp_path)
    assert loaded.tag == made.tag
    assert torch.equal(loaded.tensor, made.tensor)


@pytest.mark.parametrize("tokens", [5, ["a"], {"a star": "a"}, {"a star": [1]}, None])
def test_tokens_that_are_no_table_are_passed_over(
    tmp_path: Path, tokens: object, request_: DumpRequest, captures: Make, caplog: pytest.LogCaptureFixture
) -> None:
    (made,) = captures(images=1, steps=1)[:1]
    write(tmp_path, "npy", request_, [made])
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_bytes())
    content["runs"][0]["tokens"] = tokens
    path.write_text(json.dumps(content))
    (loaded,) = load_dump(tmp_path)
    assert torch.equal(loaded.tensor, made.tensor)
    assert "Using file names" in caplog.text


def test_many_channels_that_are_not_there_cost_nothing(tmp_path: Path) -> None:
    entry = {
        "file": "000-IN00-001-{channel:04}-1700000000.bin", "run": 1, "kind": "feature", "image": 0, "step": 1,
        "block": "IN00", "shape": [65536, 2, 2],
    }  # fmt: skip
    content = {"generator": "Dump U-Net", "version": 1, "runs": [{"run": 1, "started": 1700000000}]}
    (tmp_path / "manifest.json").write_text(json.dumps({**content, "files": [entry] * 3000}))
    with pytest.raises(SettingsError, match=r"65535-1700000000\.bin no longer exists"):
        load_dump(tmp_path)


@pytest.mark.parametrize("name", ["load", "nn", "qint8"])
def test_a_dtype_that_no_model_has_is_passed_over(
    tmp_path: Path, name: str, request_: DumpRequest, captures: Make
) -> None:
    write(tmp_path, "npy", request_, captures(images=1, steps=1)[:1])
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"source_dtype": "float32"', f'"source_dtype": "{name}"'))
    (loaded,) = load_dump(tmp_path)
    assert loaded.tensor.dtype == torch.float32


@pytest.mark.parametrize("key", ["IN\0", "../x", "IN07.heads.0", "IN07.qk.x", "IN07.plain"])
def test_a_tensor_of_an_odd_name_is_told(tmp_path: Path, key: str) -> None:
    metadata = {"image": "0", "step": "1", "run": "1"}
    save_file({key: torch.zeros(1, 2, 2)}, tmp_path / "000-001.safetensors", metadata)
    with pytest.raises(SettingsError, match="damaged, or not a dump"):
        list(load_dump(tmp_path / "000-001.safetensors"))


def test_an_unknown_run_is_told(tmp_path: Path, request_: DumpRequest, captures: Make) -> None:
    write(tmp_path, "npy", request_, captures())
    with pytest.raises(SettingsError, match="no dumped tensors of run 3"):
        load_dump(tmp_path, run=3)
