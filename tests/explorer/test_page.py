"""The page in a browser, opened from disk with the network off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.explorer.about import About
from lib_dumpunet.explorer.collect import Collection
from lib_dumpunet.explorer.document import make_page
from lib_dumpunet.image.colorize import colorize
from lib_dumpunet.settings import (
    AttentionSettings,
    ColorSettings,
    DifferenceSettings,
    ExplorerSettings,
    FeatureSettings,
    Settings,
)
from tests.explorer.conftest import PHONE, WIDE
from tests.explorer.pages import QUICK, Read, make_pages, read_page, write_page
from tests.pipelines import HEADS, WIDTHS
from tests.waiting import rest

PIXELS = """(selector) => {
    const {width, height} = document.querySelector(selector);
    const pen = document.querySelector(selector).getContext("2d");
    return [width, height, ...pen.getImageData(0, 0, width, height).data];
}"""
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Read]:
    """A page with everything: its URL and contents."""
    settings = Settings(
        FeatureSettings(),
        AttentionSettings(kinds=("qk", "self", "words")),
        DifferenceSettings(enabled=True, color=ColorSettings("white-black")),
        ExplorerSettings(enabled=True, alone=True),
    )
    sampling = replace(QUICK, steps=6, width=128, height=192)
    prompt = "a (~: OUT10: blue ; _@1-3: red ; _@4-6: green :~) circle and a square"
    (page,) = make_pages(tiny, [prompt], settings, sampling).pages
    return write_page(tmp_path_factory.mktemp("page"), page), read_page(page.html)


@pytest.fixture
def page(opened: Open, made: tuple[str, Read]) -> Any:
    seen = opened(made[0])
    tile(seen, "OUT11").wait_for()
    settle(seen)
    return seen


def tile(page: Any, block: str) -> Any:
    return page.locator(f"[data-block={block}]")


def settle(page: Any) -> None:
    """Wait until the page has drawn everything."""
    rest(page, 250)


def set_step(page: Any, place: int) -> None:
    page.locator("#step").fill(str(place))
    settle(page)


def pixels(page: Any, selector: str) -> np.ndarray:
    """Pixels "h w 3" of a canvas."""
    width, height, *values = page.evaluate(PIXELS, selector)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def shows(page: Any, selector: str, wanted: np.ndarray) -> bool:
    """Return whether a canvas shows these pixels within ten seconds: maps are unpacked when needed."""
    for _ in range(100):
        if np.array_equal(pixels(page, selector), wanted):
            return True
        rest(page, 100)
    return False


def painted(values: np.ndarray, color: ColorSettings) -> np.ndarray:
    """Pixels "h w 3" of a map "h w", as Python draws it."""
    drawn = colorize(torch.from_numpy(np.ascontiguousarray(values))[None], color)[0]
    return np.repeat(drawn[..., None], 3, -1) if drawn.ndim == 2 else np.asarray(drawn)


def summary(read: Read, mode: str, block: str, place: int, name: str) -> np.ndarray:
    part = read.layer(mode, block)["summary"]
    values: np.ndarray = read.maps(part, place)[0][part["names"].index(name)]
    return values


def choose(page: Any, mode: str) -> None:
    page.get_by_role("radio", name=mode, exact=True).check()
    settle(page)


def test_each_block_shows_its_average_map_at_the_step(page: Any, made: tuple[str, Read]) -> None:
    for place in (5, 0, 3):
        set_step(page, place)
        for block in ("IN00", "IN05", "M00", "OUT11"):
            wanted = painted(summary(made[1], "feature", block, place, "2-norm"), ColorSettings())
            assert shows(page, f"[data-block={block}] canvas", wanted)
        assert page.locator("#step-text").inner_text() == f"{place + 1} of 6"
    page.locator("#average").select_option("sum")
    settle(page)
    wanted = painted(summary(made[1], "feature", "OUT08", 3, "sum"), ColorSettings())
    assert shows(page, "[data-block=OUT08] canvas", wanted)


def test_blocks_are_laid_out_as_a_u(page: Any) -> None:
    box = {
        name: tile(page, name).bounding_box()
        for name in ("IN00", "IN03", "IN11", "M00", "OUT00", "OUT08", "OUT11")
    }
    assert box["IN00"]["y"] == pytest.approx(box["OUT11"]["y"], abs=2)
    assert box["IN03"]["y"] == pytest.approx(box["OUT08"]["y"], abs=2)
    assert box["IN00"]["y"] < box["IN03"]["y"] < box["IN11"]["y"] < box["M00"]["y"]
    assert box["IN11"]["x"] < box["M00"]["x"] < box["OUT00"]["x"]


def test_blocks_tell_what_they_are_and_read(page: Any) -> None:
    set_step(page, 0)
    assert "no cross-attention" in tile(page, "IN00").get_attribute("aria-label")
    assert "blind" in tile(page, "IN00").get_attribute("class")
    assert "reads: a blue circle and a square" in tile(page, "OUT10").get_attribute("aria-label")
    assert "a blue circle and a square" in tile(page, "OUT10").inner_text()
    assert "16×16×24" not in tile(page, "OUT10").inner_text()  # height before width
    assert f"{WIDTHS[0]}×24×16" in tile(page, "OUT10").inner_text()
    assert "a red circle" in page.locator("#reads").inner_text()
    set_step(page, 4)
    assert "a green circle" in page.locator("#reads").inner_text()
    assert "step 5" in page.locator("#reads").inner_text()
    assert "a green circle" in tile(page, "M00").inner_text()
    assert page.locator("#prompt mark").inner_text() == "(~: OUT10: blue ; _@1-3: red ; _@4-6: green :~)"


def test_a_click_on_a_block_shows_its_channels(page: Any, made: tuple[str, Read]) -> None:
    set_step(page, 2)
    tile(page, "OUT08").click()
    settle(page)
    part = made[1].layer("feature", "OUT08")["details"]
    names = page.locator(".channel b").all_text_contents()
    assert len(names) == WIDTHS[1]
    order = np.argsort(-np.array(part["variance"]), kind="stable")
    assert names == [f"channel {i}" for i in order]
    values, low, high = made[1].maps(part, 2)
    first = int(order[0])
    assert shows(page, ".channel:first-child canvas", painted(values[first], ColorSettings()))
    shown = page.locator(".channel:first-child span").inner_text().split(" … ")
    assert [float(text) for text in shown] == pytest.approx([low[first], high[first]], rel=1e-3)
    page.locator("#order").select_option("name")
    assert page.locator(".channel b").all_text_contents() == [f"channel {i}" for i in range(WIDTHS[1])]
    # They follow the step.
    settle(page)
    set_step(page, 4)
    values, *_ = made[1].maps(part, 4)
    assert shows(page, ".channel:first-child canvas", painted(values[0], ColorSettings()))
    page.locator(".channel:first-child").click()
    page.locator("#large-map").hover(position={"x": 5, "y": 5})
    assert float(page.locator("#large-value").inner_text().rpartition(": ")[2]) == pytest.approx(
        values[0, 0, 0], rel=1e-3
    )
    page.keyboard.press("Escape")
    assert page.locator("#detail").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#detail").is_hidden()


@pytest.mark.parametrize(
    ("method", "transform"),
    [("white-black", "auto01"), ("red-blue", "auto11"), ("rgb", "linear"), ("hsl", "auto11")],
)
def test_colours_change_as_in_the_panel(
    page: Any, made: tuple[str, Read], method: str, transform: str
) -> None:
    set_step(page, 1)
    page.locator("#colors summary").click()
    page.locator("#method").select_option(method)
    page.locator("#transform").select_option(transform)
    color = ColorSettings(method, transform)
    if transform == "linear":
        page.locator("#clamp_min").fill("-0.5")
        page.locator("#clamp_max").fill("2")
        color = replace(color, clamp_min=-0.5, clamp_max=2.0)
    if method == "hsl":
        page.locator("#formula-0").fill("v/3")
        color = replace(color, formula=("v/3", "1.0", "0.5"))
    settle(page)
    for block in ("IN02", "M00"):
        wanted = painted(summary(made[1], "feature", block, 1, "2-norm"), color)
        assert shows(page, f"[data-block={block}] canvas", wanted)
    page.locator("#reset").click()
    settle(page)
    wanted = painted(summary(made[1], "feature", "IN02", 1, "2-norm"), ColorSettings())
    assert shows(page, "[data-block=IN02] canvas", wanted)


def test_a_wrong_formula_is_told_and_changes_nothing(page: Any) -> None:
    before = pixels(page, "[data-block=OUT08] canvas")
    page.locator("#colors summary").click()
    page.locator("#formula-1").fill("sinn(v)")
    error = page.get_by_role("alert").filter(has_text="Color space, S")
    assert "sinn is not known. Write sin." in error.inner_text()
    settle(page)
    assert shows(page, "[data-block=OUT08] canvas", before)
    page.locator("#formula-1").fill("")
    assert page.locator("#color-error").is_hidden()
    page.locator("#transform").select_option("linear")
    page.locator("#clamp_min").fill("3")
    assert "Clamp min.: 3 is not below" in page.locator("#color-error").inner_text()


def test_differences_of_white_and_black_show_sizes(page: Any, made: tuple[str, Read]) -> None:
    choose(page, "Difference")
    set_step(page, 3)
    page.locator("#average").select_option("sum")
    settle(page)
    values = np.abs(summary(made[1], "difference", "OUT11", 3, "sum"))
    assert shows(page, "[data-block=OUT11] canvas", painted(values, ColorSettings("white-black")))


def test_attention_shows_a_token_in_each_block_and_its_heads(page: Any, made: tuple[str, Read]) -> None:
    choose(page, "Attention")
    set_step(page, 0)
    page.get_by_role("radio", name="red", exact=True).check()
    settle(page)
    wanted = painted(summary(made[1], "attention", "IN04", 0, "red"), ColorSettings())
    assert shows(page, "[data-block=IN04] canvas", wanted)
    # OUT10 reads blue, and IN00 nothing.
    assert "empty" in tile(page, "OUT10").get_attribute("class")
    assert "empty" in tile(page, "IN00").get_attribute("class")
    page.get_by_role("radio", name="blue", exact=True).check()
    settle(page)
    assert "empty" not in tile(page, "OUT10").get_attribute("class")
    page.get_by_role("radio", name="circle", exact=True).check()
    tile(page, "IN04").click()
    settle(page)
    assert sorted(page.locator("#channels b").all_text_contents()) == [
        f"head {i + 1}" for i in range(HEADS[1])
    ]


def test_arrow_keys_and_play_move_the_step(page: Any) -> None:
    page.locator("h1").click()
    page.keyboard.press("Home")
    assert page.locator("#step-text").inner_text() == "1 of 6"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#step-text").inner_text() == "3 of 6"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#step-text").inner_text() == "2 of 6"
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    assert page.locator("#step-text").inner_text() == "6 of 6"
    page.keyboard.press("Space")
    assert page.locator("#play").get_attribute("aria-pressed") == "true"
    seen = set()
    while len(seen) < 6:  # the test's time limit bounds it
        seen.add(page.locator("#step-text").inner_text())
        page.wait_for_timeout(20)
    page.locator("#play").click()
    stopped = page.locator("#step-text").inner_text()
    rest(page, 400)
    assert page.locator("#step-text").inner_text() == stopped


def test_the_image_tells_its_words_and_words_show_where_they_are(page: Any, made: tuple[str, Read]) -> None:
    word = next(word for word in made[1].data["words"] if word["name"] == "circle")
    heat = made[1].maps(word)[0][0]
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    box = page.locator("#stage").bounding_box()
    at = {
        "x": (column + 0.5) / heat.shape[1] * box["width"],
        "y": (row + 0.5) / heat.shape[0] * box["height"],
    }
    page.locator("#stage").hover(position=at)
    page.locator("#ranking li").first.wait_for()
    settle(page)
    means = {}
    for one in made[1].data["words"]:
        maps = made[1].maps(one)[0][0]
        y, x = (
            int((i + 0.5) / size * length)
            for i, size, length in zip((row, column), heat.shape, maps.shape, strict=True)
        )
        means[one["name"]] = maps[y, x] / maps.mean()
    assert page.locator("#ranking b").all_inner_texts() == sorted(means, key=lambda name: -means[name])
    assert (
        page.locator("#ranking li span:last-child").first.inner_text()
        == f"{max(means.values()):.1f} × its mean"
    )
    assert page.locator("#heat").is_hidden()
    page.get_by_role("button", name="circle", exact=True).hover()
    settle(page)
    assert page.locator("#heat").is_visible()
    shown = pixels(page, "#heat").astype(int).sum(-1)
    assert np.unravel_index(shown.argmax(), shown.shape) == (row, column)
    page.locator("h1").hover()
    settle(page)
    assert page.locator("#heat").is_hidden()


def test_a_click_shows_where_the_point_looks(page: Any, made: tuple[str, Read]) -> None:
    set_step(page, 5)
    box = page.locator("#stage").bounding_box()
    at = {"x": 0.3 * box["width"], "y": 0.8 * box["height"]}
    page.locator("#stage").click(position=at)
    settle(page)
    # Over the image in any mode, by the finest block.
    assert page.locator("#heat").is_visible()
    assert "self-attention of this point in OUT11" in page.locator("#look-text").inner_text()
    shown = pixels(page, "#heat").astype(int).sum(-1)
    looks = summary(made[1], "self", "OUT11", 5, "6,2")
    assert np.unravel_index(shown.argmax(), shown.shape) == np.unravel_index(looks.argmax(), looks.shape)
    # In each block, where that is what blocks show; the point stays on the way to them.
    choose(page, "Self-attention")
    page.locator("#stage").hover(position={"x": 2, "y": 2})
    assert shows(page, "[data-block=OUT11] canvas", painted(looks, ColorSettings()))
    wanted = painted(summary(made[1], "self", "IN05", 5, "6,2"), ColorSettings())
    assert shows(page, "[data-block=IN05] canvas", wanted)
    assert page.locator("#ring").is_visible()
    page.locator("#stage").click(position=at)
    settle(page)
    assert page.locator("#heat").is_hidden()
    assert page.locator("#look-text").inner_text() == "Click a point to see where it looks."


def test_the_keyboard_reaches_everything(page: Any) -> None:
    page.locator("#stage").focus()
    page.keyboard.press("ArrowDown")
    settle(page)
    assert "At 64, 99" in page.locator("#point-text").inner_text()
    page.keyboard.press("Enter")
    settle(page)
    assert page.locator("#heat").is_visible()
    page.keyboard.press("Enter")
    assert page.locator("#step-text").inner_text() == "6 of 6"
    tile(page, "IN02").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "detail-title"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.block") == "IN02"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_nothing_serious_bars_anyone(
    opened: Open, made: tuple[str, Read], scheme: str, viewport: dict[str, int]
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(made[0], viewport, color_scheme=scheme)
    settle(page)
    page.locator("#colors summary").click()
    for mode in ("Features", "Attention", "Self-attention", "Difference"):
        choose(page, mode)
        if mode != "Self-attention":
            tile(page, "OUT10").click()
            settle(page)
        found = Axe().run(page).response["violations"]
        serious = [
            (v["id"], [node["html"] for node in v["nodes"]])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]
        assert serious == []


def test_it_fits_on_a_phone(opened: Open, made: tuple[str, Read]) -> None:
    page = opened(made[0], PHONE, has_touch=True, is_mobile=True)
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    tile(page, "OUT09").tap()
    settle(page)
    assert page.locator("#detail").is_visible()
    page.locator("#stage").tap(position={"x": 50, "y": 60})
    settle(page)
    assert page.locator("#ranking li").count() > 0
    # The blocks come before what was asked for.
    assert page.locator("#unet").bounding_box()["y"] < page.locator("#parameters").bounding_box()["y"]


def test_a_page_of_words_alone_and_one_without_an_image(tiny: Any, opened: Open, tmp_path: Path) -> None:
    settings = Settings(
        FeatureSettings(enabled=False),
        AttentionSettings(kinds=("words",)),
        explorer=ExplorerSettings(True, True),
    )
    (made,) = make_pages(tiny, ["a red circle"], settings).pages
    page = opened(write_page(tmp_path, made))
    assert page.locator("#steps").is_hidden()
    assert page.locator("#word-list button").all_inner_texts() == ["red", "circle"]
    collection = Collection(lambda *_: ())
    about = About(
        ["IN00", "M00", "OUT00"], [], {}, {"feature": ColorSettings()}, "sum", lambda _: {}, lambda _: None
    )
    collection.add(Capture(Tag(0, 1, "M00"), torch.rand(3, 4, 4)))
    page = opened(write_page(tmp_path, make_page(0, None, collection, about, 25)))
    collection.close()
    settle(page)
    assert "was not finished" in page.locator("#stage").inner_text()
    assert "empty" in tile(page, "IN00").get_attribute("class")
    assert "empty" not in tile(page, "M00").get_attribute("class")


def test_passes_of_a_hires_fix_are_steps_of_their_own(opened: Open, tmp_path: Path) -> None:
    collection = Collection(lambda *_: ())
    about = About(["M00"], [], {}, {"feature": ColorSettings()}, "sum", lambda _: {}, lambda _: None)
    maps = {hires: torch.rand(3, side, side) for hires, side in ((False, 4), (True, 6))}
    for hires, tensor in maps.items():
        for step in (1, 2):
            collection.add(Capture(Tag(0, step, "M00", hires=hires), tensor))
    page = opened(write_page(tmp_path, make_page(0, Image.new("RGB", (48, 48)), collection, about, 25)))
    collection.close()
    settle(page)
    assert page.locator("#step-text").inner_text() == "hr2 of hr2"
    assert pixels(page, "[data-block=M00] canvas").shape == (6, 6, 3)
    set_step(page, 1)
    assert page.locator("#step-text").inner_text() == "2 of hr2"
    assert pixels(page, "[data-block=M00] canvas").shape == (4, 4, 3)


def test_colours_at_first_are_those_that_were_asked_for(made: tuple[str, Read]) -> None:
    assert made[1].data["colors"]["difference"] == {**asdict(ColorSettings("white-black")), "formula": None}


def test_blocks_of_sdxl_have_several_layers(xl: Any, opened: Open, tmp_path: Path) -> None:
    settings = Settings(
        FeatureSettings(layers="IN07"),
        AttentionSettings(kinds=("qk", "self"), steps="1"),
        explorer=ExplorerSettings(True, True),
    )
    (made,) = make_pages(xl, ["a red circle"], settings, replace(QUICK, steps=2)).pages
    page, read = opened(write_page(tmp_path, made)), read_page(made.html)
    settle(page)
    assert page.locator(".tile").count() == 19
    assert page.locator("#layer-box").is_hidden()
    choose(page, "Attention")
    page.get_by_role("radio", name="circle", exact=True).check()
    assert page.locator("#site option").all_text_contents() == ["1", "2", "3"]
    for site in (0, 2):
        page.locator("#site").select_option(index=site)
        settle(page)
        part = read.layer("attention", "M00", site=site)["summary"]
        wanted = painted(read.maps(part)[0][part["names"].index("circle")], ColorSettings())
        assert shows(page, "[data-block=M00] canvas", wanted)
    # The second step was not asked for, so the first is shown on.
    set_step(page, 1)
    assert shows(page, "[data-block=M00] canvas", wanted)
