"""Files of the three formats, and what happens to a folder over several runs."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError, SettingsError
from lib_dumpunet.sinks import files, groups
from lib_dumpunet.sinks.dump import DumpSink
from lib_dumpunet.sinks.files import prepare_folder
from lib_dumpunet.sinks.names import key_of
from lib_dumpunet.sinks.queue import Fanout
from lib_dumpunet.sinks.reader import load_dump
from lib_dumpunet.sinks.request import DumpRequest

Make = Callable[..., list[Capture]]
FORMATS = ("bin", "npy", "safetensors")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def write(folder: Path, kind: str, request: DumpRequest, captures: list[Capture]) -> DumpSink:
    sink = DumpSink(folder, kind, request)
    with Fanout([sink]) as fanout:
        for capture in captures:
            fanout.put(capture)
    assert fanout.problems == []
    return sink


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def entries(folder: Path) -> list[dict[str, object]]:
    return list(json.loads((folder / "manifest.json").read_bytes())["files"])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_dumped_comes_back(
    tmp_path: Path, kind: str, dtype: torch.dtype, request_: DumpRequest, captures: Make
) -> None:
    made = captures(dtype=dtype)
    write(tmp_path, kind, request_, made)
    back = {loaded.tag: loaded.tensor for loaded in load_dump(tmp_path)}
    assert back.keys() == {capture.tag for capture in made}
    for capture in made:
        assert back[capture.tag].dtype == dtype
        assert torch.equal(back[capture.tag], capture.tensor)


NAMES = {
    "bin": {f"{i:03}-M00-{step}001-0004-{{time}}.bin" for i in (0, 1) for step in ("", "hr")},
    "npy": {f"{i:03}-M00-{step}001.npy" for i in (0, 1) for step in ("", "hr")},
    "safetensors": {f"{i:03}-{step}001.safetensors" for i in (0, 1) for step in ("", "hr")},
}


@pytest.mark.parametrize("kind", FORMATS)
def test_passes_have_files_and_entries_of_their_own(
    tmp_path: Path, kind: str, request_: DumpRequest, captures: Make
) -> None:
    made = captures(hires=True)
    write(tmp_path, kind, request_, made)
    (run,) = json.loads((tmp_path / "manifest.json").read_bytes())["runs"]
    names = {name.format(time=run["started"]) for name in NAMES[kind]}
    assert names <= set(visible(tmp_path))
    listed = entries(tmp_path)
    assert len(listed) == len(made)
    for entry in listed:
        marked = "-hr" in str(entry["file"])
        assert entry.get("hires") == (True if marked else None)
        assert entry["shape"] == ([5, 16, 12] if marked else [5, 8, 6])
        assert entry["step"] in (1, 2)
    assert sum("hires" in entry for entry in listed) == len(made) // 2
    back = {loaded.tag: loaded.tensor for loaded in load_dump(tmp_path)}
    assert back.keys() == {capture.tag for capture in made}
    assert all(torch.equal(back[capture.tag], capture.tensor) for capture in made)


def test_a_file_of_each_pass_is_written_once_it_is_complete(
    tmp_path: Path, request_: DumpRequest, captures: Make
) -> None:
    """Captures of both passes are mixed: those of the first may still wait when the second begins."""
    made = captures(images=1, steps=1, hires=True)
    sink = DumpSink(tmp_path, "safetensors", request_)
    for capture in (*made[:2], *made[3:5]):
        sink.accept(capture)
    assert list(tmp_path.glob("*.safetensors")) == []
    sink.accept(made[5])
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["000-hr001.safetensors"]
    sink.accept(made[2])
    for name, part in (("000-001", made[:3]), ("000-hr001", made[3:])):
        tensors = load_file(tmp_path / f"{name}.safetensors")
        assert tensors.keys() == {capture.tag.block for capture in part}
        assert all(torch.equal(tensors[capture.tag.block], capture.tensor) for capture in part)
        with safe_open(tmp_path / f"{name}.safetensors", framework="pt") as file:
            assert file.metadata().get("hires") == ("true" if "hr" in name else None)
    sink.close()


ATTENTION = {
    Tag(0, 1, "IN07", "k"): (2, 7, 4),
    Tag(0, 1, "IN07", "qk"): (2, 7, 3, 5),
    Tag(0, 1, "IN07", "qk", 9): (2, 7, 3, 5),
    Tag(0, 1, "IN07", "vqk"): (8, 3, 5),
    Tag(0, 1, "IN07", "self"): (2, 4, 4, 3, 5),
    Tag(0, 1, "IN07", "pca"): (3, 3, 5),
    Tag(0, 1, "IN07"): (5, 3, 5),
    Tag(0, 0, "", "word", 0, "red circle"): (3, 5),
    Tag(0, 0, "", "word", 0, "red-circle"): (3, 5),
    Tag(0, 0, "", "word", 0, "猫.の.耳"): (3, 5),
    Tag(0, 0, "", "word", 0, "red circle", "uncond"): (3, 5),
    Tag(0, 0, "", "point", 0, "12x80"): (3, 5),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_attention_comes_back_with_its_axes(tmp_path: Path, kind: str, request_: DumpRequest) -> None:
    made = [Capture(tag, torch.randn(shape)) for tag, shape in ATTENTION.items()]
    request_ = replace(request_, expected={key_of(tag): {1} for tag in ATTENTION if tag.step})
    write(tmp_path, kind, request_, made)
    back = {loaded.tag: loaded.tensor for loaded in load_dump(tmp_path)}
    assert back.keys() == ATTENTION.keys()
    for capture in made:
        assert torch.equal(back[capture.tag], capture.tensor)
    for entry in entries(tmp_path):
        axes, shape = entry["axes"], entry["shape"]
        assert isinstance(axes, list)
        assert isinstance(shape, list)
        assert len(axes) == len(shape)
    words = [entry for entry in entries(tmp_path) if entry["kind"] == "word"]
    assert {(e["word"], e["prompt_part"]) for e in words} == {
        ("red circle", "positive"),
        ("red-circle", "positive"),
        ("猫.の.耳", "positive"),
        ("red circle", "negative"),
    }


def test_a_word_is_read_from_its_file_alone(tmp_path: Path, request_: DumpRequest) -> None:
    (tag, shape), *_ = ((tag, shape) for tag, shape in ATTENTION.items() if tag.kind == "word")
    capture = Capture(tag, torch.randn(shape))
    write(tmp_path, "bin", request_, [capture])
    (path,) = tmp_path.glob("*.bin")
    (loaded,) = load_dump(path)
    assert loaded.tag == tag
    assert torch.equal(loaded.tensor, capture.tensor)


def test_a_file_is_complete_with_what_comes_in_its_step(tmp_path: Path, request_: DumpRequest) -> None:
    request_ = replace(request_, expected={"IN07": range(1, 4), "IN07.qk.0": {3}})
    sink = DumpSink(tmp_path, "safetensors", request_)
    for step in (1, 2, 3):
        sink.accept(Capture(Tag(0, step, "IN07"), torch.zeros(1, 1, 1)))
    assert [name for name in visible(tmp_path) if name != "manifest.json"] == [
        "000-001.safetensors",
        "000-002.safetensors",
    ]
    sink.accept(Capture(Tag(0, 3, "IN07", "qk"), torch.zeros(1, 1, 1, 1)))
    assert "000-003.safetensors" in visible(tmp_path)
    sink.close()


def test_only_some_kinds_are_written(tmp_path: Path, request_: DumpRequest) -> None:
    sink = DumpSink(tmp_path, "npy", request_, frozenset({"word"}))
    for tag, shape in ATTENTION.items():
        sink.accept(Capture(tag, torch.zeros(shape)))
    sink.close()
    assert {item.tag.kind for item in load_dump(tmp_path) if item.tag} == {"word"}


def test_tokens_come_back_with_the_maps(tmp_path: Path, request_: DumpRequest) -> None:
    request_ = replace(request_, tokens={"a cute girl, 猫": ["<start>", "a", "cute"]})
    write(
        tmp_path, "npy", request_, [Capture(Tag(i, 1, "M00", "qk"), torch.zeros(1, 3, 2, 2)) for i in (0, 1)]
    )
    assert [item.tokens for item in load_dump(tmp_path)] == [("<start>", "a", "cute"), ()]


@pytest.mark.parametrize("kind", FORMATS)
def test_attention_is_found_by_file_names_where_the_manifest_is_gone(
    tmp_path: Path, kind: str, request_: DumpRequest
) -> None:
    plain = [tag for tag in ATTENTION if tag.kind != "word" or tag.name == "red circle"]
    square = {tag: (*ATTENTION[tag][:-2], 3, 3) for tag in plain}
    del square[Tag(0, 1, "IN07", "k")]
    if kind == "bin":  # it holds no shape, so that a tensor's cells are guessed to be square
        square = {tag: shape[-3:] for tag, shape in square.items() if len(shape) == 3}
    made = [Capture(tag, torch.randn(shape)) for tag, shape in square.items()]
    write(tmp_path, kind, request_, made)
    (tmp_path / "manifest.json").unlink()
    back = {loaded.tag: loaded.tensor for loaded in load_dump(tmp_path)}
    stems = {tag.stem for tag in back if tag is not None}
    # A name that was made fit for a file is known as the file bears it.
    assert {stem.partition("_")[0] for stem in stems} == {tag.stem.partition("_")[0] for tag in square}
    for tag, tensor in back.items():
        assert tag is not None
        if tag.kind not in ("word", "point"):
            assert torch.equal(tensor, next(c.tensor for c in made if c.tag == tag))


def test_stems_differ_on_file_systems_that_ignore_case() -> None:
    names = ["red circle", "red_circle", "red-circle", "Red circle", "red circle?", "猫", "a" * 60, "a" * 61]
    names += ["straße", "strasse"]
    stems = {Tag(0, 0, "", "word", 0, name).stem.casefold() for name in names}
    assert len(stems) == len(names)
    assert all(stem.replace("-", "").replace("_", "").isalnum() and len(stem) < 64 for stem in stems)


def test_bin_has_the_original_layout(tmp_path: Path, request_: DumpRequest) -> None:
    tensor = torch.arange(2 * 2 * 3, dtype=torch.float16).reshape(2, 2, 3) / 8
    before = int(time.time())
    sink = write(tmp_path, "bin", request_, [Capture(Tag(1, 20, "OUT11"), tensor)])
    started = json.loads((tmp_path / "manifest.json").read_bytes())["runs"][0]["started"]
    assert before <= started <= time.time()
    assert sink.run == 1
    names = [f"001-OUT11-020-{channel:04}-{started}.bin" for channel in (0, 1)]
    assert visible(tmp_path) == [*names, "manifest.json"]
    for channel, name in enumerate(names):
        values = [(6 * channel + i) / 8 for i in range(6)]
        assert (tmp_path / name).read_bytes() == struct.pack("<6f", *values)


def test_npy_is_what_numpy_saves(tmp_path: Path, request_: DumpRequest) -> None:
    tensor = torch.randn(4, 3, 2).transpose(0, 2)  # not contiguous
    write(tmp_path, "npy", request_, [Capture(Tag(0, 5, "IN07"), tensor)])
    np.save(tmp_path / "plain", np.ascontiguousarray(tensor.numpy()))
    assert (tmp_path / "000-IN07-005.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_safetensors_is_read_by_its_library(
    tmp_path: Path, dtype: torch.dtype, request_: DumpRequest
) -> None:
    tensors = {
        "IN00": torch.randn(4, 3, 2).transpose(0, 2),
        "M00": torch.randn(1, 2, 3),
        "OUT11": torch.randn(3, 3, 3),
    }
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    write(tmp_path, "safetensors", request_, [Capture(Tag(1, 7, name), t) for name, t in tensors.items()])
    path = tmp_path / "001-007.safetensors"
    back = load_file(path)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) and back[name].dtype == dtype for name in tensors)
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    assert about["prompt"] == "a (~: M00: bad :~) girl"
    assert (about["negative_prompt"], about["seed"], about["sampler"]) == ("blurry", "12", "Euler a")
    assert (about["step"], about["image"], about["model"]) == ("7", "1", "tiny")
    assert json.loads(about["blocks"])["M00"] == {"input": [4, 8, 6], "output": [5, 8, 6]}


def test_safetensors_is_written_when_its_last_block_comes(
    tmp_path: Path, request_: DumpRequest, captures: Make
) -> None:
    sink = DumpSink(tmp_path, "safetensors", request_)
    *most, last = captures(images=1, steps=1)
    for capture in most:
        sink.accept(capture)
    assert visible(tmp_path) == ["manifest.json"]
    sink.accept(last)
    assert visible(tmp_path) == ["000-001.safetensors", "manifest.json"]
    sink.accept(Capture(Tag(0, 2, "IN00"), last.tensor))
    sink.close()
    assert visible(tmp_path) == ["000-001.safetensors", "000-002.safetensors", "manifest.json"]


def test_a_late_block_joins_its_file(tmp_path: Path, request_: DumpRequest, captures: Make) -> None:
    made = captures(images=1, steps=1)
    late = Capture(Tag(0, 1, "IN05"), torch.randn(2, 2, 2))
    write(tmp_path, "safetensors", request_, [*made, late])
    assert load_file(tmp_path / "000-001.safetensors").keys() == {"IN00", "IN05", "M00", "OUT11"}
    assert len(list(load_dump(tmp_path))) == 4


def test_steps_that_never_get_complete_do_not_fill_the_memory(tmp_path: Path, request_: DumpRequest) -> None:
    sink = DumpSink(tmp_path, "safetensors", request_)
    for step in range(1, 401):
        sink.accept(Capture(Tag(0, step, "M00"), torch.zeros(1, 1, 1)))
    assert 400 - len(list(tmp_path.glob("*.safetensors"))) <= groups.STALE + 1
    sink.close()
    assert len(list(load_dump(tmp_path))) == 400


def test_manifest_tells_what_a_file_is(tmp_path: Path, request_: DumpRequest, captures: Make) -> None:
    write(tmp_path, "npy", request_, captures(images=1, steps=1, dtype=torch.bfloat16))
    content = json.loads((tmp_path / "manifest.json").read_bytes())
    assert {key: content[key] for key in ("generator", "version")} == {
        "generator": "Dump U-Net",
        "version": 1,
    }
    (run,) = content["runs"]
    assert (run["run"], run["format"], run["sampler"], run["steps"]) == (1, "npy", "Euler a", 20)
    assert next(entry for entry in content["files"] if entry["block"] == "M00") == {
        "file": "000-M00-001.npy",
        "kind": "feature",
        "image": 0,
        "step": 1,
        "block": "M00",
        "axes": ["channel", "height", "width"],
        "shape": [5, 8, 6],
        "dtype": "float32",
        "source_dtype": "bfloat16",
        "prompt": "a cute girl, 猫",
        "negative_prompt": "blurry",
        "seed": 11,
        "run": 1,
    }


def test_an_image_the_request_does_not_know_has_no_prompt(tmp_path: Path, request_: DumpRequest) -> None:
    write(tmp_path, "npy", request_, [Capture(Tag(7, 1, "IN00"), torch.zeros(1, 1, 1))])
    (entry,) = entries(tmp_path)
    assert (entry["prompt"], entry["negative_prompt"], entry["seed"]) == (None, "blurry", None)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_prompt_may_hold_any_text(tmp_path: Path, kind: str) -> None:
    request = DumpRequest(prompts=['"\\ \n\0 \ud800 猫 null'], expected={"IN00": {1}})
    write(tmp_path, kind, request, [Capture(Tag(0, 1, "IN00"), torch.zeros(1, 1, 1))])
    assert entries(tmp_path)[0]["prompt"] == '"\\ \n\0 ? 猫 null'
    assert len(list(load_dump(tmp_path))) == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_a_second_run_leaves_the_first_alone(
    tmp_path: Path, kind: str, request_: DumpRequest, captures: Make
) -> None:
    runs = [captures(), [Capture(c.tag, c.tensor + 1) for c in captures()]]
    first = write(tmp_path, kind, request_, runs[0])
    before = {name: (tmp_path / name).read_bytes() for name in visible(tmp_path) if name != "manifest.json"}
    second = write(tmp_path, kind, request_, runs[1])
    assert (first.run, second.run) == (1, 2)
    assert all((tmp_path / name).read_bytes() == data for name, data in before.items())
    assert len(visible(tmp_path)) == 2 * len(before) + 1
    for number, made in enumerate(runs, 1):
        back = {loaded.tag: loaded.tensor for loaded in load_dump(tmp_path, run=number)}
        assert all(torch.equal(back[capture.tag], capture.tensor) for capture in made)
    if kind != "bin":
        assert all("-2." in name for name in set(visible(tmp_path)) - set(before) - {"manifest.json"})


@pytest.mark.parametrize("kind", FORMATS)
def test_a_lost_manifest_endangers_no_file(
    tmp_path: Path, kind: str, request_: DumpRequest, captures: Make
) -> None:
    write(tmp_path, kind, request_, captures())
    (tmp_path / "manifest.json").unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write(tmp_path, kind, request_, captures())
    assert all((tmp_path / name).read_bytes() == data for name, data in before.items())


def test_two_runs_at_once_share_a_folder(tmp_path: Path, request_: DumpRequest, captures: Make) -> None:
    sinks = [DumpSink(tmp_path, "npy", request_), DumpSink(tmp_path, "npy", request_)]
    made = captures(steps=30)
    with Fanout(sinks[:1]) as first, Fanout(sinks[1:]) as second:
        for capture in made:
            first.put(capture)
            second.put(capture)
    assert first.problems + second.problems == []
    assert {sink.run for sink in sinks} == {1, 2}
    assert len(entries(tmp_path)) == 2 * len(made)
    assert len(list(load_dump(tmp_path))) == 2 * len(made)


def test_deleted_files_leave_the_manifest_with_the_next_run(
    tmp_path: Path, request_: DumpRequest, captures: Make
) -> None:
    write(tmp_path, "npy", request_, captures(images=1, steps=1))
    (tmp_path / "000-M00-001.npy").unlink()
    write(tmp_path, "npy", request_, captures(images=1, steps=1))
    assert sorted(str(entry["file"]) for entry in entries(tmp_path)) == [
        "000-IN00-001-2.npy",
        "000-IN00-001.npy",
        "000-M00-001-2.npy",
        "000-OUT11-001-2.npy",
        "000-OUT11-001.npy",
    ]


def test_another_programs_manifest_is_left_alone(tmp_path: Path, request_: DumpRequest) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "my app"}')
    with pytest.raises(SettingsError, match="not a dump's manifest") as caught:
        DumpSink(tmp_path, "npy", request_)
    assert caught.value.field == "Output path"
    assert (tmp_path / "manifest.json").read_text() == '{"name": "my app"}'


def test_an_unknown_format_is_refused(tmp_path: Path, request_: DumpRequest) -> None:
    with pytest.raises(SettingsError, match="Use bin, npy, safetensors"):
        DumpSink(tmp_path, "png", request_)


def test_a_folder_is_made_and_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = prepare_folder(' "a/b c" ')
    assert folder == tmp_path / "a" / "b c"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "problem"),
    [("", "no folder is given"), ("  ", "no folder is given"), ("file", "not a folder"), ("file/x", "not a folder"),
     ("nul\0l", "is not a path"), ("x" * 300, "path is too long")],
)  # fmt: skip
def test_a_folder_that_cannot_be_is_told_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, problem: str
) -> None:
    if sys.platform == "win32" and len(path) > 200:
        pytest.skip("Windows words this by its own settings")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match=problem) as caught:
        prepare_folder(path)
    assert caught.value.field == "Output path"
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")]
)
def test_a_folder_that_may_not_be_written_is_told_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    # Permissions do not bind the administrator, who may run these tests, so the refusal is played.
    def refuse(path: Path, data: bytes) -> int:
        raise error

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(SettingsError, match=r"no permission|read-only"):
        prepare_folder(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="asks for a process by signal, as POSIX does")
def test_half_files_of_the_dead_are_removed_and_of_the_living_kept(tmp_path: Path) -> None:
    dead, living, old, foreign = (
        tmp_path / name
        for name in (
            ".000-IN00-001.npy.999999999.part",
            f".000-IN00-002.npy.{os.getpid()}.part",
            f".000-IN00-003.npy.{os.getpid()}.part",
            ".movie.part",
        )
    )
    for path in (dead, living, old, foreign):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    prepare_folder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([living, foreign])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    files.write_whole(path, [b"old"])

    def chunks():  # type: ignore[no-untyped-def]
        yield b"new" * 10000
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, chunks())
    assert path.read_bytes() == b"old"
    assert visible(tmp_path) == [path.name]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_goes_away_is_one_message(
    tmp_path: Path, request_: DumpRequest, captures: Make
) -> None:
    folder = tmp_path / "out"
    sink = DumpSink(folder, "npy", request_)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(HostError, match="folder no longer exists; 0 tensors"):
        sink.accept(captures()[0])
