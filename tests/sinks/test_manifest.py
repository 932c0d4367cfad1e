"""The manifest is complete at every moment, and lists the existing files."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from lib_dumpunet.errors import SettingsError
from lib_dumpunet.sinks import manifest
from lib_dumpunet.sinks.files import locked, write_whole
from lib_dumpunet.sinks.manifest import Manifest, file_names, read_manifest


def entry(number: int) -> dict[str, object]:
    name = f"{number:03}-IN00-001.npy"
    return {"file": name, "kind": "feature", "image": number, "step": 1, "block": "IN00", "shape": [1, 2, 2]}


def test_valid_at_every_moment_and_lists_only_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_INTERVAL", 0.0)
    monkeypatch.setattr(manifest, "_SHARE", 0)
    book = Manifest(tmp_path, {})
    done, looks = threading.Event(), []

    def look() -> None:
        while not done.is_set():
            content = json.loads((tmp_path / "manifest.json").read_bytes())
            assert all((tmp_path / item["file"]).exists() for item in content["files"])
            looks.append(len(content["files"]))

    def work(part: int) -> None:
        for number in range(part * 100, part * 100 + 100):
            write_whole(tmp_path / str(entry(number)["file"]), [b"x"])
            book.add([entry(number)])

    watcher = threading.Thread(target=look)
    workers = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in (watcher, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    book.close()
    done.set()
    watcher.join()
    assert len(set(looks)) > 5, "it was seen growing"
    content = read_manifest(tmp_path)
    assert content is not None
    assert sorted(item["image"] for item in content["files"]) == list(range(400))


def test_thousands_of_entries_cost_no_quadratic_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[float] = []
    replace = Manifest._replace

    def count(self: Manifest, lines: list[str]) -> None:
        writes.append(time.monotonic())
        replace(self, lines)

    monkeypatch.setattr(Manifest, "_replace", count)
    book = Manifest(tmp_path, {})
    begin = time.monotonic()
    for number in range(5000):
        book.add([{**entry(number), "prompt": "x" * 500}])
    book.close()
    seconds = time.monotonic() - begin
    assert len(writes) <= 3 + seconds / 0.5
    content = read_manifest(tmp_path)
    assert content is not None
    assert len(content["files"]) == 5000


def test_what_another_run_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    one, two = Manifest(tmp_path, {}), Manifest(tmp_path, {})
    assert (one.run, two.run) == (1, 2)
    assert one.started < two.started
    one.add([entry(1)])
    two.add([entry(2)])
    two.close()
    one.close()
    content = read_manifest(tmp_path)
    assert content is not None
    assert sorted((item["run"], item["image"]) for item in content["files"]) == [(1, 1), (2, 2)]
    assert [run["run"] for run in content["runs"]] == [2, 1]


def test_an_entry_for_the_same_tensor_replaces_the_former(tmp_path: Path) -> None:
    book = Manifest(tmp_path, {})
    book.add([entry(1)])
    book.add([{**entry(1), "shape": [9, 9, 9]}])
    book.close()
    content = read_manifest(tmp_path)
    assert content is not None
    assert [item["shape"] for item in content["files"]] == [[9, 9, 9]]


def test_entries_of_two_passes_do_not_replace_each_other(tmp_path: Path) -> None:
    second = {**entry(1), "file": "001-IN00-hr001.npy", "hires": True}
    book = Manifest(tmp_path, {})
    book.add([entry(1), second])
    book.add([{**second, "shape": [9, 9, 9]}])
    book.close()
    content = read_manifest(tmp_path)
    assert content is not None
    assert [(item.get("hires"), item["shape"]) for item in content["files"]] == [
        (None, [1, 2, 2]),
        (True, [9, 9, 9]),
    ]


def test_a_bin_entry_stands_for_its_channels() -> None:
    item = {"file": "000-IN00-001-{channel:04}-17.bin", "shape": [2, 8, 8]}
    assert list(file_names(item)) == ["000-IN00-001-0000-17.bin", "000-IN00-001-0001-17.bin"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"runs": [], "files": []}', "\xff",
             '{"generator": "Dump U-Net", "runs": [{}], "files": []}',
             '{"generator": "Dump U-Net", "runs": [], "files": [{"file": 3, "block": "a"}]}', "[" * 100000],
)  # fmt: skip
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode("latin1"))
    with pytest.raises(SettingsError, match="not a dump's manifest"):
        read_manifest(tmp_path)


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


def test_the_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside, most = [], []

    def enter() -> None:
        for _ in range(5):
            with locked(tmp_path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 20
