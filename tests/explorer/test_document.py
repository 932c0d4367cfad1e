"""A page's contents, read back and compared with the captures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError, SettingsError
from lib_dumpunet.explorer.about import About, pieces_of
from lib_dumpunet.explorer.collect import Collection, Labels
from lib_dumpunet.explorer.document import make_page
from lib_dumpunet.hosts.diffusers.generate import ResultHandlers, generate
from lib_dumpunet.hosts.diffusers.job import make_job
from lib_dumpunet.image.average import average
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.settings import (
    AttentionSettings,
    ColorSettings,
    DifferenceSettings,
    DumpSettings,
    ExplorerSettings,
    FeatureSettings,
    Settings,
)
from lib_dumpunet.sinks.reader import load_dump
from lib_dumpunet.sinks.spool import Spool
from tests.explorer.pages import QUICK, make_pages, read_page
from tests.pipelines import WIDTHS

pytestmark = pytest.mark.slow

EXPLORER = ExplorerSettings(enabled=True, alone=True)
Collecting = Callable[[Labels], Collection]
PER_BLOCK = "a (~: OUT10: blue ; _: red :~) circle"


@pytest.fixture
def collecting() -> Iterator[Collecting]:
    """Make collections, and close them at the end."""
    with ExitStack() as stack:
        yield lambda labels: stack.enter_context(closing(Collection(labels)))


def settings(folder: Path, **more: Any) -> Settings:
    """Capture everything, into a page and files."""
    dump = DumpSettings(True, "npy", str(folder))
    return Settings(
        FeatureSettings(steps="1,3", dump=dump),
        AttentionSettings(kinds=("qk", "vqk", "self", "words"), steps="1,3", dump=dump),
        **{"explorer": EXPLORER, **more},
    )


def close(values: Any, wanted: Any) -> bool:
    """Return whether maps "map h w" equal the captures up to quantisation."""
    wanted = np.asarray(wanted, np.float32)
    step = (wanted.max((1, 2)) - wanted.min((1, 2)))[:, None, None] / 255
    return bool((np.abs(values - wanted) <= 0.51 * step + 1e-6).all())


def test_maps_are_those_that_were_captured(tiny: Any, tmp_path: Path) -> None:
    made = make_pages(tiny, ["a red circle", "a star"], settings(tmp_path))
    assert made.problems == []
    assert made.pictures == []
    assert [page.image for page in made.pages] == [0, 1]
    pages = [read_page(page.html) for page in made.pages]
    compared = set()
    for item in load_dump(tmp_path):
        tag = item.tag
        assert tag is not None
        page = pages[tag.image]
        if tag.kind == "feature":
            layer = page.layer("feature", tag.block)
            place = [page.data["frames"][i]["step"] for i in layer["summary"]["frames"]].index(tag.step)
            maps, low, high = page.maps(layer["details"], place)
            assert close(maps, item.tensor)
            assert np.array_equal(low, item.tensor.amin((1, 2)))
            assert np.array_equal(high, item.tensor.amax((1, 2)))
            means = torch.cat([average(item.tensor, kind) for kind in ("sum", "1-norm", "2-norm")])  # type: ignore[misc]
            assert close(page.maps(layer["summary"], place)[0], means)
        elif tag.kind == "qk":
            layer = page.layer("attention", tag.block)
            names = layer["summary"]["names"]
            assert names[:3] == ["<start>", "a", "red" if tag.image == 0 else "star"]
            assert "<pad>" not in names
            place = [1, 3].index(tag.step)
            assert close(page.maps(layer["summary"], place)[0], item.tensor[:, : len(names)].mean(0))
            heads = item.tensor[:, : len(names)].flatten(0, 1)
            assert close(page.maps(layer["details"], place)[0], heads)
        elif tag.kind == "vqk":
            layer = page.layer("values", tag.block)
            assert close(page.maps(layer["details"], [1, 3].index(tag.step))[0], item.tensor)
        elif tag.kind == "self":
            maps, *_ = page.maps(page.layer("self", tag.block)["summary"], [1, 3].index(tag.step))
            assert close(maps, item.tensor.mean(0).flatten(0, 1))
        elif tag.kind == "word":
            word = next(word for word in page.data["words"] if word["name"] == tag.name)
            assert close(page.maps(word)[0], item.tensor[None])
        compared.add(tag.kind)
    assert compared >= {"feature", "qk", "vqk", "self", "word"}


def test_differences_and_texts_of_blocks(tiny: Any, tmp_path: Path) -> None:
    difference = DifferenceSettings(enabled=True, dump=DumpSettings(True, "npy", str(tmp_path / "d")))
    made = make_pages(tiny, [PER_BLOCK], settings(tmp_path, difference=difference))
    page = read_page(made.pages[0].html)
    for item in load_dump(tmp_path / "d"):
        assert item.tag is not None
        layer = page.layer("difference", item.tag.block)
        assert close(page.maps(layer["details"], item.tag.step - 1)[0], item.tensor)
    blocks = {block["name"]: block for block in page.data["blocks"]}
    texts = page.data["texts"]
    assert [block for block in blocks if blocks[block]["steered"]] == ["OUT10"]
    assert {texts[i] for i in blocks["OUT10"]["reads"]["cond"]} == {"a  blue  circle"}
    assert {texts[i] for i in blocks["M00"]["reads"]["cond"]} == {"a  red  circle"}
    assert set(blocks["IN00"]["reads"]["cond"]) == {-1}
    assert not blocks["IN00"]["attends"]
    assert blocks["IN03"]["output"] == [WIDTHS[0], 8, 8]
    assert page.data["prompt"][0]["parts"] == [
        ["a ", False],
        ["(~: OUT10: blue ; _: red :~)", True],
        [" circle", False],
    ]


def test_pictures_are_drawn_too_unless_the_page_is_all(tiny: Any) -> None:
    both = make_pages(
        tiny, ["a star"], Settings(FeatureSettings(layers="M00"), explorer=ExplorerSettings(True))
    )
    assert len(both.pictures) == 3
    assert len(both.pages) == 1


def test_a_page_does_not_change_the_image(tiny: Any, tmp_path: Path) -> None:
    from tests.hosts.test_generate import OFF, run

    plain = run(tiny, QUICK, OFF, ["a star"]).images[0]
    watched = run(tiny, QUICK, settings(tmp_path), ["a star"]).images[0]
    assert plain.tobytes() == watched.tobytes()


@pytest.mark.parametrize("attention", [AttentionSettings(), AttentionSettings(kinds=("k",))])
def test_nothing_to_show_is_refused_before_sampling(tiny: Any, attention: AttentionSettings) -> None:
    with pytest.raises(SettingsError, match="Write explorer page: nothing is captured"):
        make_pages(tiny, ["a star"], Settings(FeatureSettings(enabled=False), attention, explorer=EXPLORER))


@pytest.mark.parametrize("limit", [1.0, 4.0])
def test_a_page_keeps_to_its_limit(tiny: Any, limit: float) -> None:
    sampling = replace(QUICK, steps=20, width=256, height=256)
    asked = Settings(
        FeatureSettings(),
        AttentionSettings(kinds=("qk", "self", "words")),
        explorer=replace(EXPLORER, limit=limit),
    )
    (page,) = make_pages(tiny, ["a red circle and a blue square"], asked, sampling).pages
    assert 0.6 * limit < len(page.html) / 1e6 <= limit
    assert "MB, 25 blocks, 20 steps" in page.about
    data = read_page(page.html).data
    assert len({layer["block"] for layer in data["layers"] if layer["mode"] == "feature"}) == 25
    assert any(
        tuple(layer["details"]["size"]) != tuple(layer["details"]["source"]) for layer in data["layers"][:25]
    )


def test_the_limit_holds_where_compression_gains_less_than_expected(collecting: Collecting) -> None:
    collection = collecting(lambda *_: ())
    about = About(["IN00"], [], {}, {}, "sum", lambda _: {}, lambda _: None)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 21):
        # The first compresses to nothing, the others hardly at all.
        maps = torch.rand(64, 64, 64, generator=generator) if step > 1 else torch.zeros(64, 64, 64)
        collection.add(Capture(Tag(0, step, "IN00"), maps))
    page = make_page(0, None, collection, about, 1.0)
    assert len(page.html) <= 1e6
    assert "single maps" in page.about


def test_what_varies_most_is_kept(collecting: Collecting) -> None:
    collection = collecting(lambda *_: ())
    about = About(["IN00"], [], {}, {}, "sum", lambda _: {}, lambda _: None)
    maps = torch.randn(400, 64, 64, generator=torch.Generator().manual_seed(0))
    maps[123] *= 5
    maps[7] *= 3
    collection.add(Capture(Tag(0, 1, "IN00"), maps))
    page = read_page(make_page(0, None, collection, about, 1.0).html)
    details = page.layer("feature", "IN00")["details"]
    assert details["total"] == 400
    assert len(details["names"]) < 400
    assert {"7", "123"} <= set(details["names"])
    assert details["names"] == sorted(details["names"], key=int)


def test_a_text_of_a_prompt_cannot_end_its_element(tiny: Any) -> None:
    prompt = "a star </script><script>alert(1)</script><!-- <b>"
    made = make_pages(tiny, [prompt], Settings(FeatureSettings(layers="M00"), explorer=EXPLORER))
    html = made.pages[0].html.decode()
    assert "<script>alert" not in html
    assert read_page(made.pages[0].html).data["parameters"]["Prompt"] == prompt


def test_nan_and_unknown_tokens_do_no_harm(collecting: Collecting) -> None:
    collection = collecting(lambda *_: ())
    about = About(["IN00"], ["IN00"], {}, {"feature": ColorSettings()}, "sum", lambda _: {}, lambda _: None)
    maps = torch.zeros(2, 4, 4)
    maps[0, 1, 1] = torch.nan
    collection.add(Capture(Tag(0, 1, "IN00"), maps))
    collection.add(Capture(Tag(0, 1, "IN00", "qk"), torch.rand(2, 5, 4, 4)))
    page = read_page(make_page(0, None, collection, about, 25).html)
    _, low, high = page.maps(page.layer("feature", "IN00")["details"])
    assert np.isnan(low[0])
    assert (low[1], high[1]) == (0, 0)
    assert page.layer("attention", "IN00")["summary"]["names"] == ["0", "1", "2", "3", "4"]


def test_tokens_of_texts_that_change_are_told_apart(collecting: Collecting) -> None:
    labels = {1: ["<start>", "a", "red", "a", "<pad>"], 2: ["<start>", "blue", "a", "<pad>", "<pad>"]}
    collection = collecting(lambda tag, _: labels[tag.step])
    about = About(["M00"], ["M00"], {}, {}, "sum", lambda _: {}, lambda _: None)
    maps = {step: torch.rand(2, 5, 4, 4, generator=torch.Generator().manual_seed(step)) for step in labels}
    for step, tensor in maps.items():
        collection.add(Capture(Tag(0, step, "M00", "qk"), tensor))
    page = read_page(make_page(0, None, collection, about, 25).html)
    summary = page.layer("attention", "M00")["summary"]
    assert summary["names"] == ["<start>", "a", "red", "a (2)", "blue"]
    first, low, _ = page.maps(summary, 0)
    assert close(first[:4], maps[1].mean(0)[:4])
    assert np.isnan(low[4])
    second, low, _ = page.maps(summary, 1)
    assert close(second[[0, 4, 1]], maps[2].mean(0)[:3])
    assert np.isnan(low[[2, 3]]).all()


def test_prompts_are_cut_where_they_were_written() -> None:
    text = "a (~: M00: cute\\; nice ; _: b :~)(~: IN04: x :~) girl, (red:1.2)"
    pieces = pieces_of(parse_prompt(text))
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, bracket in pieces if bracket] == [
        "(~: M00: cute\\; nice ; _: b :~)",
        "(~: IN04: x :~)",
    ]


def test_a_full_disk_is_told_and_the_images_come_out(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Spool.put

    def refuse(self: Spool, tag: Tag, tensor: torch.Tensor) -> None:
        if tag.step > 1:
            raise HostError("the maps of the explorer page could not be stored in /tmp, the disk is full")
        put(self, tag, tensor)

    monkeypatch.setattr(Spool, "put", refuse)
    images: dict[int, Any] = {}
    pages: list[Any] = []
    outlet = ResultHandlers(images.__setitem__, lambda _: None, lambda *_: None, page=pages.append)
    asked = Settings(FeatureSettings(layers="M00"), explorer=EXPLORER)
    outcome = generate(tiny, make_job(tiny, ["a star"], QUICK), asked, outlet)
    assert [str(problem) for problem in outcome.problems] == [
        "the maps of the explorer page could not be stored in /tmp, the disk is full."
    ]
    assert list(images) == [0]
    # What came before it is shown.
    assert [frame["step"] for frame in read_page(pages[0].html).data["frames"]] == [1]


def test_a_page_that_cannot_be_written_is_told_and_the_next_one_comes(tiny: Any) -> None:
    pages: list[int] = []

    def refuse(page: Any) -> None:
        if page.image == 0:
            raise HostError("000.html could not be written, the disk is full")
        pages.append(page.image)

    outlet = ResultHandlers(lambda *_: None, lambda _: None, lambda *_: None, page=refuse)
    asked = Settings(FeatureSettings(layers="M00"), explorer=EXPLORER)
    outcome = generate(tiny, make_job(tiny, ["a star", "a ring"], QUICK), asked, outlet)
    assert [str(problem) for problem in outcome.problems] == [
        "000.html could not be written, the disk is full."
    ]
    assert outcome.images == 2
    assert pages == [1]


def test_room_on_the_disk_is_that_of_one_batch(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    asked = Settings(FeatureSettings(layers="M00"), explorer=EXPLORER)
    forget = Collection.forget

    def note(self: Collection, image: int) -> None:
        forget(self, image)
        left.append(len(self._spool.tags))

    monkeypatch.setattr(Collection, "forget", note)
    make_pages(tiny, ["a star"], asked, replace(QUICK, count=3))
    assert left == [0, 0, 0]


def test_a_large_image_is_made_smaller_rather_than_all_maps_left_out(collecting: Collecting) -> None:
    generator = np.random.default_rng(0)
    noise = Image.fromarray(generator.integers(0, 256, (2048, 1024, 3), dtype=np.uint8))
    collection = collecting(lambda *_: ())
    about = About(["IN00"], [], {}, {}, "sum", lambda _: {}, lambda _: None)
    collection.add(Capture(Tag(0, 1, "IN00"), torch.randn(320, 64, 64)))
    page = make_page(0, noise, collection, about, 1.0)
    assert len(page.html) <= 1e6
    read = read_page(page.html)
    assert read.data["size"] == [1024, 2048]
    assert read.data["picture"].startswith("data:image/jpeg;")
    assert len(read.layer("feature", "IN00")["details"]["names"]) > 16


def test_blocks_are_steered_in_the_image_that_says_so(tiny: Any) -> None:
    asked = Settings(FeatureSettings(layers="M00"), explorer=EXPLORER)
    pages = [read_page(page.html).data for page in make_pages(tiny, [PER_BLOCK, "a star"], asked).pages]
    steered = [{b["name"]: b["steered"] for b in page["blocks"] if b["steered"]} for page in pages]
    assert steered == [{"OUT10": ["cond"]}, {}]
    negative = replace(QUICK, negative="ugly (~: M00@2: dark :~)")
    (page,) = make_pages(tiny, ["a star"], asked, negative).pages
    blocks = {block["name"]: block for block in read_page(page.html).data["blocks"] if block["steered"]}
    assert list(blocks) == ["M00"]
    assert blocks["M00"]["steered"] == ["uncond"]
    assert pages[1]["prompt"][0]["parts"] == [["a star", False]]
