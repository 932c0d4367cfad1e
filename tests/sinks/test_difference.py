"""Differences: right to the last bit, compared from disk, drawn and dumped like features."""

from __future__ import annotations

import errno
import gc
import json
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.image.average import average
from lib_dumpunet.image.draw import draw_features
from lib_dumpunet.kinds import KINDS, Kind
from lib_dumpunet.ports import Picture
from lib_dumpunet.settings import ColorSettings, DifferenceSettings, FeatureSettings, Settings
from lib_dumpunet.sinks import spool
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.difference import DifferenceSink
from lib_dumpunet.sinks.drawing import Style
from lib_dumpunet.sinks.dump import DumpSink
from lib_dumpunet.sinks.names import key_of, parse_name, tag_of_key
from lib_dumpunet.sinks.picture import PictureSink
from lib_dumpunet.sinks.queue import Fanout
from lib_dumpunet.sinks.reader import load_dump
from lib_dumpunet.sinks.request import DumpRequest
from lib_dumpunet.sinks.spool import Spool

Make = Callable[..., list[Capture]]
TAG = Tag(0, 1, "M00")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


class Keep(Sink):
    """A sink that keeps captures of one kind."""

    def __init__(self, kind: Kind = "difference") -> None:
        self.kind = kind
        self.seen: dict[Tag, Tensor] = {}

    def accept(self, capture: Capture) -> None:
        if capture.tag.kind == self.kind:
            self.seen[capture.tag] = capture.tensor

    def close(self) -> None:
        pass


def of_kind(kind: Kind, captures: Iterable[Capture], plus: float = 0.0) -> list[Capture]:
    return [Capture(replace(c.tag, kind=kind), c.tensor + plus) for c in captures]


def run(sinks: list[Sink], *batches: list[Capture]) -> list[HostError]:
    """Put each list, and wait until it is done."""
    with Fanout(sinks) as fanout:
        for batch in batches:
            for capture in batch:
                fanout.put(capture)
            fanout.drain()
    return [problem for problem in fanout.problems if isinstance(problem, HostError)]


def pair(plain: Tensor, steered: Tensor, tag: Tag = TAG) -> tuple[list[Capture], list[Capture]]:
    return [Capture(replace(tag, kind="plain"), plain)], [Capture(replace(tag, kind="steered"), steered)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_difference_is_that_of_float32(dtype: torch.dtype, captures: Make) -> None:
    without = captures(dtype=dtype)
    noise = torch.Generator().manual_seed(1)
    with_ = [Capture(c.tag, torch.randn(c.tensor.shape, generator=noise).to(dtype)) for c in without]
    keep = Keep()
    assert run([DifferenceSink(), keep], of_kind("plain", without), of_kind("steered", with_)[::-1]) == []
    assert keep.seen.keys() == {replace(c.tag, kind="difference") for c in without}
    for first, second in zip(without, with_, strict=True):
        difference = keep.seen[replace(first.tag, kind="difference")]
        assert difference.dtype == torch.float32
        exact = second.tensor.double() - first.tensor.double()
        assert torch.equal(difference, exact.float())


def test_small_differences_of_halves_are_not_rounded_away() -> None:
    plain, steered = torch.tensor([[[2048.0]]]).half(), torch.tensor([[[0.25]]]).half()
    keep = Keep()
    run([DifferenceSink(), keep], *pair(plain, steered))
    assert [tensor.item() for tensor in keep.seen.values()] == [-2047.75]


def test_batches_follow_each_other_and_the_file_is_emptied(tmp_path: Path, captures: Make) -> None:
    sink, keep = DifferenceSink(str(tmp_path)), Keep()
    made = captures(images=6)
    sizes = []
    with Fanout([sink, keep]) as fanout:
        for number in range(3):
            batch = [c for c in made if c.tag.image // 2 == number]
            for part in (of_kind("plain", batch), of_kind("steered", batch, number + 1)):
                for capture in part:
                    fanout.put(capture)
                fanout.drain()
                sizes.append(size_of(sink))
    assert fanout.problems == []
    whole = sum(c.tensor.nbytes for c in made) // 3
    assert sizes == [whole, 0, whole, 0, whole, 0]
    assert len(keep.seen) == len(made)
    for tag, tensor in keep.seen.items():
        torch.testing.assert_close(tensor, torch.full_like(tensor, tag.image // 2 + 1), rtol=0, atol=1e-5)


def size_of(sink: DifferenceSink) -> int:
    return os.fstat(sink._spool._file.fileno()).st_size


def test_what_never_comes_back_costs_only_its_own_room() -> None:
    sink = DifferenceSink()
    sink.accept(Capture(Tag(0, 1, "IN00", "plain"), torch.zeros(2, 4, 4)))
    for image in range(1, 9):
        for part in pair(torch.zeros(3, 8, 8), torch.ones(3, 8, 8), Tag(image, 1, "M00")):
            for capture in part:
                sink.accept(capture)
    assert size_of(sink) == 4 * (2 * 4 * 4 + 3 * 8 * 8)
    sink.close()


def test_passes_are_compared_each_with_its_own(captures: Make) -> None:
    without, keep = captures(steps=1, hires=True), Keep()
    steered = [s for c in without for s in of_kind("steered", [c], 2.0 if c.tag.hires else 1.0)]
    assert run([DifferenceSink(), keep], of_kind("plain", without), steered[::-1]) == []
    assert keep.seen.keys() == {replace(c.tag, kind="difference") for c in without}
    for c in without:
        expected = torch.full_like(c.tensor, 2.0 if c.tag.hires else 1.0)
        torch.testing.assert_close(keep.seen[replace(c.tag, kind="difference")], expected, rtol=0, atol=1e-5)


def test_a_pass_is_not_compared_with_the_other() -> None:
    plain, _ = pair(torch.zeros(1, 2, 2), torch.zeros(1))
    _, steered = pair(torch.zeros(1), torch.ones(1, 2, 2), replace(TAG, hires=True))
    keep = Keep()
    (problem,) = run([DifferenceSink(), keep], plain, steered)
    assert "block M00 of step hr1, image 0, cannot be compared" in str(problem)
    assert keep.seen == {}


def test_a_plain_tensor_that_comes_again_is_the_one_compared() -> None:
    keep = Keep()
    first, steered = pair(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 5.0))
    again, _ = pair(torch.ones(1, 2, 2), torch.zeros(1))
    assert run([DifferenceSink(), keep], first, again, steered) == []
    assert torch.equal(keep.seen[Tag(0, 1, "M00", "difference")], torch.full((1, 2, 2), 4.0))


def test_memory_holds_no_tensor_that_waits(captures: Make) -> None:
    sink = DifferenceSink()
    tensors = []
    for image in range(40):
        tensor = torch.zeros(16, 16, 16)
        tensors.append(weakref.ref(tensor))
        sink.accept(Capture(Tag(image, 1, "M00", "plain"), tensor))
        del tensor
    gc.collect()
    assert [tensor for tensor in tensors if tensor() is not None] == []
    assert size_of(sink) == 40 * 4 * 16**3
    assert held_by(sink) < 4 * 16**3
    sink.close()


def held_by(sink: DifferenceSink) -> int:
    """Add up the bytes of everything that the sink references, except modules and classes."""
    seen: dict[int, Any] = {}
    waiting: list[Any] = [sink.__dict__]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, (type, type(os), type(held_by))):
            continue
        assert not isinstance(thing, Tensor)
        seen[id(thing)] = thing
        waiting.extend(gc.get_referents(thing))
    return sum(map(sys.getsizeof, seen.values())) - 200 * len(sink._spool.tags)  # a tag and its spot


@pytest.mark.parametrize("shape", [(), (1,), (0, 3, 3), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_a_tensor_comes_back_bit_for_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    store, tag = Spool("the maps"), Tag(0, 1, "M00")
    tensor = torch.randn(shape).to(dtype).requires_grad_()
    store.put(tag, tensor)
    read, taken = store.read(tag), store.take(tag)
    assert read is not None
    assert taken is not None
    assert (taken.dtype, taken.shape) == (dtype, shape)
    assert torch.equal(taken, tensor)
    assert torch.equal(read, tensor)
    assert store.take(tag) is None
    store.close()


def test_a_tensor_that_is_not_contiguous_comes_back() -> None:
    store, tag = Spool("the maps"), Tag(0, 1, "M00")
    tensor = torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1)[1:, :, ::2]
    store.put(tag, tensor)
    back = store.take(tag)
    assert back is not None
    assert torch.equal(back, tensor)
    store.close()


def test_threads_do_not_mix_tensors_up() -> None:
    store, wrong = Spool("the maps"), []

    def work(number: int) -> None:
        for step in range(1, 60):
            tag, tensor = Tag(number, step, "M00"), torch.full((1 + step % 3, 8, 8), 100.0 * number + step)
            store.put(tag, tensor)
            if step > 3:
                back = store.take(Tag(number, step - 3, "M00"))
                if back is None or not torch.equal(back, torch.full_like(back, 100.0 * number + step - 3)):
                    wrong.append(tag)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store.tags == sorted(Tag(number, step, "M00") for number in range(4) for step in (57, 58, 59))
    store.close()


def test_nothing_to_compare_with_is_one_sentence() -> None:
    _, steered = pair(torch.zeros(1), torch.zeros(2, 3, 3), Tag(3, 7, "OUT11"))
    other = Keep("steered")
    (problem,) = run([DifferenceSink(), other], steered)
    assert str(problem) == (
        "block OUT11 of step 7, image 3, cannot be compared: the run without per-block prompts did not capture it."
    )
    assert len(other.seen) == 1


def test_another_shape_is_one_sentence() -> None:
    (problem,) = run([DifferenceSink()], *pair(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5)))
    assert "it is 2×3×4 without per-block prompts, 2×3×5 with them" in str(problem)
    assert "\n" not in str(problem)


@pytest.mark.parametrize("average_", ["disable", "sum", "1-norm", "2-norm"])
@pytest.mark.parametrize("method", ["white-black", "red-blue", "hsl"])
@pytest.mark.parametrize("file_format", ["bin", "npy", "safetensors"])
def test_numbers_that_are_none_disturb_nothing(
    tmp_path: Path, average_: str, method: str, file_format: str
) -> None:
    plain = torch.tensor([math.nan, math.inf, -math.inf, math.inf, 1.0, 6e4]).view(1, 2, 3)
    steered = torch.tensor([1.0, math.inf, math.inf, 0.0, math.nan, -6e4]).view(1, 2, 3)
    pictures: list[Picture] = []
    settings = DifferenceSettings(average=average_, color=ColorSettings(method=method))
    sinks: list[Sink] = [
        DifferenceSink(),
        PictureSink("difference", Style(settings, 1.0), pictures.append),
        DumpSink(tmp_path, file_format, DumpRequest()),
    ]
    assert run(sinks, *pair(plain.half(), steered.half())) == []
    assert len(pictures) == (1 if average_ == "disable" else 2)
    (loaded,) = load_dump(tmp_path)
    assert torch.equal(loaded.tensor.nan_to_num(5), (steered.half().float() - plain.half()).nan_to_num(5))


def test_a_number_alone_is_compared() -> None:
    keep = Keep()
    assert run([DifferenceSink(), keep], *pair(torch.tensor(1.0), torch.tensor(3.0))) == []
    assert [tensor.item() for tensor in keep.seen.values()] == [2.0]


def test_other_kinds_pass_by() -> None:
    sink, keep = DifferenceSink(), Keep("feature")
    assert run([sink, keep], [Capture(Tag(0, 1, "M00"), torch.zeros(1, 2, 2))]) == []
    assert len(keep.seen) == 1


def test_a_run_that_was_cut_short_leaves_no_file_and_no_problem(tmp_path: Path) -> None:
    plain, _ = pair(torch.zeros(1, 2, 2), torch.zeros(1))
    keep = Keep()
    assert run([DifferenceSink(str(tmp_path)), keep], plain) == []
    assert keep.seen == {}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        HostError, match=r"features without per-block prompts could not be stored in .*nowh"
    ) as e:
        DifferenceSink(str(tmp_path / "nowhere"))
    assert "\n" not in str(e.value)


def test_a_path_is_read_as_that_of_a_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "my dumps").mkdir()
    DifferenceSink(' "~/my dumps" ').close()
    with pytest.raises(HostError, match="could not be stored in"):
        DifferenceSink("~nobody-of-this-name/x")


def test_temporary_files_go_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(HostError, match="gone"):
        DifferenceSink()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    if os.name == "posix" and os.access("/var/tmp", os.W_OK | os.X_OK):
        DifferenceSink().close()


def test_a_file_that_was_cut_is_one_sentence(tmp_path: Path) -> None:
    sink = DifferenceSink(str(tmp_path))
    plain, steered = pair(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3))
    sink.accept(plain[0])
    sink._spool._file.truncate(10)
    with pytest.raises(HostError, match=r"could not be read back from .*shorter than it was"):
        sink.accept(steered[0])
    sink.close()


def test_a_write_that_fails_gives_the_disk_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = DifferenceSink(str(tmp_path))
    sink.accept(Capture(Tag(0, 1, "M00", "plain"), torch.zeros(9, 9, 9)))
    file = sink._spool._file

    class Full:
        seek, truncate, close = file.seek, file.truncate, file.close

        def write(self, data: memoryview) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sink._spool, "_file", Full())
    with pytest.raises(HostError, match="the disk is full"):
        sink.accept(Capture(Tag(0, 2, "M00", "plain"), torch.zeros(9, 9, 9)))
    assert os.fstat(file.fileno()).st_size == 0
    sink.close()


def draw(
    settings: DifferenceSettings | FeatureSettings,
    difference: Tensor,
    section: Any = "difference",
    *,
    hires: bool = False,
) -> list[Picture]:
    pictures: list[Picture] = []
    sink = PictureSink(section, Style(settings, 1.0), pictures.append)
    for other in ("feature", "difference"):
        sink.accept(Capture(Tag(0, 20, "OUT11", other, hires=hires), difference))
    return pictures


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


SIGNED = torch.tensor([[[-4.0, 1.0], [2.0, 0.0]], [[3.0, -3.0], [-6.0, 0.5]]])


def test_pictures_have_names_and_captions_of_their_own() -> None:
    mean, whole = draw(DifferenceSettings(average="sum"), SIGNED)
    assert [mean.stem, whole.stem] == ["000-OUT11-020-difference-average", "000-OUT11-020-difference"]
    assert whole.caption == "Layer Name: OUT11, Feature Steps: 20, Difference: with - without Layer Prompt"
    assert mean.info == whole.info
    mean, whole = draw(FeatureSettings(average="sum"), SIGNED, "features")
    assert [mean.stem, whole.stem] == ["000-OUT11-020-unet-average", "000-OUT11-020-unet"]
    assert whole.caption == "Layer Name: OUT11, Feature Steps: 20"


def test_pictures_of_a_hires_pass_are_marked() -> None:
    mean, whole = draw(DifferenceSettings(average="sum"), SIGNED, hires=True)
    assert [mean.stem, whole.stem] == ["000-OUT11-hr020-difference-average", "000-OUT11-hr020-difference"]
    assert whole.caption == "Layer Name: OUT11, Feature Steps: hr20, Difference: with - without Layer Prompt"
    mean, whole = draw(FeatureSettings(average="sum"), SIGNED, "features", hires=True)
    assert [mean.stem, whole.stem] == ["000-OUT11-hr020-unet-average", "000-OUT11-hr020-unet"]
    assert mean.caption == whole.caption == "Layer Name: OUT11, Feature Steps: hr20"


@pytest.mark.parametrize("transform", ["auto01", "auto11", "linear", "sigmoid"])
def test_white_black_shows_the_size_of_a_difference(transform: str) -> None:
    color = ColorSettings(method="white-black", transform=transform)
    mean, whole = draw(DifferenceSettings(average="sum", color=color), SIGNED)
    assert same(whole.image, draw_features(SIGNED.abs(), color, 1.0))
    averaged = average(SIGNED, "sum")
    assert averaged is not None
    assert same(mean.image, draw_features(averaged.abs(), color, 1.0))
    *_, feature = draw(FeatureSettings(color=color), SIGNED, "features")
    assert same(feature.image, draw_features(SIGNED, color, 1.0))


@pytest.mark.parametrize("method", ["red-blue", "rgb", "hsl"])
def test_other_methods_show_the_sign(method: str) -> None:
    color = ColorSettings(method=method)
    (whole,) = draw(DifferenceSettings(color=color), SIGNED)
    assert same(whole.image, draw_features(SIGNED, color, 1.0))


def test_what_is_drawn_is_not_changed_for_other_sinks() -> None:
    before = SIGNED.clone()
    draw(DifferenceSettings(average="sum", color=ColorSettings(method="white-black")), SIGNED)
    assert torch.equal(SIGNED, before)


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("file_format", ["bin", "npy", "safetensors"])
def test_dumps_come_back_beside_features(
    tmp_path: Path, file_format: str, manifest: bool, request_: DumpRequest, captures: Make
) -> None:
    features = captures(dtype=torch.float16, shape=(3, 6, 6))
    keys = [key_of(Tag(0, 1, c.tag.block, "difference")) for c in features]
    request_ = replace(request_, expected={**request_.expected, **dict.fromkeys(keys, range(1, 1000))})
    sinks: list[Sink] = [DifferenceSink(), DumpSink(tmp_path, file_format, request_)]
    steered = [*features, *of_kind("steered", features, 1.0)]
    assert run(sinks, of_kind("plain", features), steered) == []
    if not manifest:
        (tmp_path / "manifest.json").unlink()
    back = {loaded.tag: loaded.tensor for loaded in load_dump(tmp_path) if loaded.tag is not None}
    assert back.keys() == {replace(c.tag, kind=kind) for c in features for kind in ("feature", "difference")}
    for c in features:
        difference = back[replace(c.tag, kind="difference")]
        assert difference.dtype == torch.float32
        assert torch.equal(difference, (c.tensor + 1.0).float() - c.tensor.float())
        assert torch.equal(back[c.tag].float(), c.tensor.float())


def test_a_safetensors_file_is_complete_with_its_differences(tmp_path: Path) -> None:
    expected = {key_of(Tag(0, 1, "M00", kind)): {2} for kind in ("feature", "difference")}
    sink = DumpSink(tmp_path, "safetensors", DumpRequest(expected=expected))
    sink.accept(Capture(Tag(0, 2, "M00"), torch.zeros(1, 2, 2)))
    assert list(tmp_path.glob("*.safetensors")) == []
    sink.accept(Capture(Tag(0, 2, "M00", "difference"), torch.ones(1, 2, 2)))
    (path,) = tmp_path.glob("*.safetensors")
    assert {item.tag for item in load_dump(path)} == {Tag(0, 2, "M00"), Tag(0, 2, "M00", "difference")}
    sink.close()


@pytest.mark.parametrize(
    ("name", "channel", "number"),
    [
        ("000-OUT11-020-difference.npy", None, 1),
        ("000-OUT11-020-difference-2.npy", None, 2),
        ("000-OUT11-020-difference-0003-1700000000.bin", 3, 1),
    ],
)
def test_file_names_are_read(name: str, channel: int | None, number: int) -> None:
    parsed = parse_name(name)
    assert parsed is not None
    assert parsed.tag == Tag(0, 20, "OUT11", "difference")
    assert (parsed.channel, parsed.run) == (channel, number)


@pytest.mark.parametrize(
    "name", ["000-OUT11-020-difference2.npy", "000-OUT11-020-plain.npy", "000-difference-x.npy"]
)
def test_file_names_that_no_dump_has(name: str) -> None:
    assert parse_name(name) is None


def test_keys_are_read_and_differ_from_a_features() -> None:
    tag = Tag(4, 9, "IN07", "difference")
    assert key_of(tag) == "IN07.difference"
    assert tag_of_key(key_of(tag), 4, 9) == tag
    for key in ("IN07.difference.0", "IN07.plain", "word.difference"):
        with pytest.raises(ValueError, match=r"."):
            tag_of_key(key, 4, 9)


PASSING = frozenset(row.name for row in KINDS.values() if row.is_passing)


@pytest.mark.parametrize("kinds", [frozenset(KINDS), PASSING])
def test_what_only_passes_is_never_dumped(tmp_path: Path, kinds: frozenset[Kind]) -> None:
    sink = DumpSink(tmp_path, "npy", DumpRequest(), kinds)
    for kind in KINDS:
        sink.accept(Capture(Tag(0, 1, "M00", kind), torch.zeros([2] * len(KINDS[kind].axes))))
    sink.close()
    listed = json.loads((tmp_path / "manifest.json").read_bytes())["files"]
    assert {entry["kind"] for entry in listed} == kinds - PASSING
    assert len(list(tmp_path.glob("*.npy"))) == len(kinds - PASSING)


def test_off_unless_asked_for() -> None:
    assert not Settings().difference.enabled
