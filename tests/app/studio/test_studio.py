"""The studio in a browser, on the bundled model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from lib_dumpunet.tiny import MODEL
from tests.app.studio.conftest import load
from tests.waiting import rest

Open = Callable[..., Any]
PER_BLOCK = "a (~: OUT10: blue ; _: red :~) circle"


def control(tab: Any, name: str) -> Any:
    """Find the input element of a control."""
    return tab.locator(f"#{name} :is(input, textarea)").first


def fill(tab: Any, **values: Any) -> None:
    """Fill in the studio's own fields."""
    for name, value in values.items():
        control(tab, f"studio-{name}").fill(str(value))


def turn_on(tab: Any, section: str, tab_name: str) -> None:
    """Turn on a section of the panel."""
    tab.get_by_role("tab", name=tab_name).click()
    control(tab, f"dumpunet-studio-{section}-checkbox").check()


def blank(tab: Any) -> None:
    """Turn off the page's initial choices."""
    tab.get_by_role("tab", name="Settings").click()
    control(tab, "dumpunet-studio-explorer-checkbox").uncheck()
    tab.get_by_role("tab", name="Attention").click()
    tab.locator("#dumpunet-studio-attention-output").get_by_label("words", exact=True).uncheck()
    control(tab, "dumpunet-studio-attention-checkbox").uncheck()
    tab.get_by_role("tab", name="U-Net features").click()
    tab.locator("#dumpunet-studio-features-average").get_by_label("Disable").check()
    for name in ("layer", "steps"):
        control(tab, f"dumpunet-studio-features-{name}").fill("")
    control(tab, "dumpunet-studio-features-checkbox").uncheck()


def quick(tab: Any, **more: Any) -> None:
    blank(tab)
    fill(
        tab,
        **{
            "prompt": "a red circle",
            "steps": 4,
            "width": 128,
            "height": 128,
            "seed": 7,
            "guidance": 4,
            **more,
        },
    )


def generate(tab: Any) -> None:
    rest(tab, 500)  # the check of what was typed last would take the place of what Generate says
    tab.locator("#studio-generate").click()


def status(tab: Any) -> Any:
    return tab.locator("#studio-status .studio-status")


def expect_end(tab: Any, text: str = "Done") -> None:
    expect(status(tab)).to_contain_text(text)


def test_one_click_on_the_untouched_page_shows_something_of_each_kind(tab: Any) -> None:
    expect(status(tab)).to_have_text("Ready.")
    assert control(tab, "studio-prompt").input_value() == "a red circle and a blue square"
    fill(tab, seed=2)
    generate(tab)
    expect_end(tab, "Done: 1 image and")
    headings = tab.locator(".studio-gallery summary").all_inner_texts()
    # Four words, each as a picture and as a layer; three blocks in three steps, each with its average.
    assert headings == ["Words (8)", "U-Net features (18)"]
    words = tab.locator(".studio-gallery details").first
    assert words.locator("h3").all_inner_texts() == ["red", "circle", "blue", "square"]
    assert words.locator(".studio-block").first.locator("span").all_inner_texts() == ["red", "red, layer"]
    assert tab.get_by_role("link", name="Open the explorer page").count() == 1
    sizes = tab.evaluate(
        "[...document.querySelectorAll('.studio-gallery img')].map((image) => image.naturalHeight)"
    )
    assert min(size for size in sizes if size) >= 16


def test_the_name_of_the_sampler_can_be_read(tab: Any) -> None:
    box = control(tab, "studio-sampler")
    for name in ("the model's own", "DPM++ 2M Karras"):
        box.fill(name)
        assert box.evaluate("(input) => input.scrollWidth <= input.clientWidth")


def test_from_an_empty_page_to_pictures(tab: Any, folder: Path) -> None:
    expect(status(tab)).to_have_text("Ready.")
    quick(tab, prompt=PER_BLOCK, steps=6)
    turn_on(tab, "features", "U-Net features")
    control(tab, "dumpunet-studio-features-layer").fill("M00,OUT09-OUT11")
    control(tab, "dumpunet-studio-features-steps").fill("1,6")
    tab.locator("#dumpunet-studio-features-average").get_by_label("2-norm").check()
    turn_on(tab, "attention", "Attention")
    tab.locator("#dumpunet-studio-attention-output").get_by_label("words", exact=True).check()
    tab.locator("#dumpunet-studio-attention-output").get_by_label("Q*K", exact=True).check()
    control(tab, "dumpunet-studio-attention-layer").fill("OUT09")
    control(tab, "dumpunet-studio-attention-steps").fill("6")
    turn_on(tab, "layerprompt", "Layer Prompt")
    tab.get_by_role("tab", name="Settings").click()
    control(tab, "dumpunet-studio-explorer-checkbox").check()
    generate(tab)
    expect_end(tab, "Done: 1 image and 21 pictures")
    tab.locator(".studio-gallery").wait_for()
    headings = tab.locator(".studio-gallery summary").all_inner_texts()
    assert headings == ["Words (4)", "U-Net features (16)", "Attention: Q*K (1)"]
    assert "Image 0, seed 7" in tab.locator(".studio-gallery h2").inner_text()
    features = tab.locator(".studio-gallery details").nth(1)
    assert features.locator("h3").all_inner_texts() == ["M00", "OUT09", "OUT10", "OUT11"]
    texts = features.locator(".studio-block").first.locator("span").all_inner_texts()
    assert texts == ["step 1, average", "step 1", "step 6, average", "step 6"]
    # Enlarged, with its numbers.
    features.locator(".studio-thumb").nth(3).click()
    large = tab.locator("#studio-large")
    assert "Layer Name: M00, Feature Steps: 6" in large.locator("h2").inner_text()
    shown = dict(
        zip(large.locator("dt").all_inner_texts(), large.locator("dd").all_inner_texts(), strict=True)
    )
    widths = json.loads((MODEL / "unet" / "config.json").read_text("utf-8"))["block_out_channels"]
    assert shown["shape"] == f"{widths[3]}×2×2"
    assert float(shown["min"]) < float(shown["mean"]) < float(shown["max"])
    tab.wait_for_function("document.querySelector('#studio-large img').naturalWidth > 0")
    tab.keyboard.press("ArrowRight")
    assert "Layer Name: OUT09" in large.locator("h2").inner_text()
    tab.keyboard.press("Escape")
    # Only one step, then only one block.
    tab.locator("select[data-filter=step]").select_option("1")
    assert features.locator(".studio-thumb:visible").count() == 8
    tab.locator("select[data-filter=block]").select_option("OUT10")
    assert tab.locator(".studio-gallery .studio-thumb:visible").count() == 2
    # The image, and all on disk.
    image = max(folder.glob("*/000.png"), key=lambda path: path.stat().st_mtime_ns)
    with Image.open(image) as opened:
        assert opened.size == (128, 128)
        assert opened.text["parameters"].startswith(PER_BLOCK)  # type: ignore[attr-defined]
    assert len(list(image.parent.glob("features/*.png"))) == 16
    with tab.context.expect_page() as opening:
        tab.get_by_role("link", name="Open the explorer page").click()
    explorer = opening.value
    explorer.locator("[data-block=OUT10]").wait_for()
    assert "blue circle" in explorer.locator("[data-block=OUT10]").inner_text()


def test_the_image_grows_and_the_time_left_is_told(tab: Any) -> None:
    quick(tab, steps=60, width=256, height=256)
    generate(tab)
    expect(status(tab)).to_have_text(re.compile(r"Step \d+ of 60, \d+ s left"))
    tab.wait_for_function("document.querySelector('.studio-stage img')?.naturalWidth > 0")
    assert tab.locator(".studio-stage img").get_attribute("alt") == "Preview of the image"
    assert tab.locator("#studio-generate").is_disabled()
    tab.locator("#studio-stop").click()
    expect_end(tab, "Stopped")


def test_stop_keeps_what_was_made_and_the_next_run_works(tab: Any) -> None:
    quick(tab, steps=200, width=256, height=256)
    turn_on(tab, "features", "U-Net features")
    control(tab, "dumpunet-studio-features-layer").fill("M00")
    generate(tab)
    expect(status(tab)).to_contain_text("Step")
    tab.wait_for_function("document.querySelectorAll('.studio-gallery .studio-thumb').length > 2")
    tab.locator("#studio-stop").click()
    expect_end(tab, "Stopped; the results so far are below: 1 image and")
    tab.wait_for_function("document.querySelector('.studio-stage img').alt.startsWith('image 0')")
    assert tab.locator(".studio-gallery .studio-thumb").count() > 2
    fill(tab, steps=2)
    generate(tab)
    expect_end(tab, "Done: 1 image and 2 pictures")


def test_batches_and_differences(tab: Any) -> None:
    quick(tab, prompt=PER_BLOCK, batch=2, count=2)
    turn_on(tab, "layerprompt", "Layer Prompt")
    control(tab, "dumpunet-studio-layerprompt-diff-checkbox").check()
    control(tab, "dumpunet-studio-layerprompt-diff-layer").fill("OUT10")
    control(tab, "dumpunet-studio-layerprompt-diff-steps").fill("4")
    generate(tab)
    expect_end(tab, "Done: 4 images and 4 pictures")
    tab.wait_for_function("document.querySelectorAll('.studio-stage .studio-thumb').length === 8")
    texts = [thumb.get_attribute("data-text") for thumb in tab.locator(".studio-stage .studio-thumb").all()]
    assert texts[:3] == [
        "image 0 without per-block prompts",
        "image 0, seed 7",
        "image 1 without per-block prompts",
    ]
    assert len(tab.locator(".studio-gallery section").all()) == 4


@pytest.fixture(scope="module")
def mistaken(open_tab: Open) -> Any:
    """One tab for all mistakes, as a page takes longer to open than a mistake to be told."""
    tab = open_tab()
    quick(tab)
    turn_on(tab, "layerprompt", "Layer Prompt")
    return tab


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("prompt", "a (~: IN00: x", "Prompt: this bracket"),
        ("negative", "(~: IN77: x :~)", "Negative prompt: the model has no block IN77"),
        ("steps", "0", "Sampling steps: 0 is outside 1 to 1000"),
        ("steps", "", "Sampling steps: a number is missing"),
        ("guidance", "0.5", "CFG Scale: 0.5 is outside 1 to 100"),
        ("seed", "-2", "Seed: -2 is outside"),
        ("seed", "1.5", "Seed: 1.5 is not a whole number"),
        ("width", "100", "Width: 100 is not a multiple of 8. Use 96 or 104."),
        ("height", "-8", "Height: -8 is outside"),
        ("batch", "65", "Batch size: 65 is outside 1 to 64"),
        ("count", "0", "Batch count: 0 is outside"),
        (
            "model",
            "/no/such/model.safetensors",
            "Model: there is no file or folder /no/such/model.safetensors",
        ),
    ],
)
def test_a_mistake_is_told_at_its_field_as_one_types(mistaken: Any, name: str, value: str, said: str) -> None:
    tab, field = mistaken, control(mistaken, f"studio-{name}")
    before = field.input_value()
    fill(tab, **{name: value})
    field.blur()
    place = tab.locator(f"#studio-{name}-message")
    expect(place).to_contain_text(said)
    assert field.evaluate("e => getComputedStyle(e).borderTopColor") == "rgb(220, 38, 38)"
    # Generate says it, too, and begins nothing.
    generate(tab)
    expect(tab.locator("#studio-status")).to_contain_text(said.partition(": ")[2] or said)
    expect(place).to_contain_text(said)
    expect(tab.locator("#studio-generate")).to_be_enabled()
    fill(tab, **{name: before})
    field.blur()
    expect(place.locator(".dumpunet-error")).to_have_count(0)


def test_mistakes_that_only_a_run_can_find(tab: Any, tmp_path: Path) -> None:
    quick(tab, prompt="")
    generate(tab)
    expect(tab.locator("#studio-prompt-message")).to_contain_text("Prompt: the prompt is empty")
    fill(tab, prompt=PER_BLOCK)
    generate(tab)
    expect(tab.locator("#studio-prompt-message")).to_contain_text("Enable Layer Prompt is off")
    fill(tab, prompt="a red circle")
    turn_on(tab, "features", "U-Net features")
    control(tab, "dumpunet-studio-features-steps").fill("9")
    generate(tab)
    expect(tab.locator("#dumpunet-studio-features-steps-message")).to_contain_text("Image saving steps: ")
    control(tab, "dumpunet-studio-features-steps").fill("")
    turn_on(tab, "attention", "Attention")
    control(tab, "dumpunet-studio-attention-words").fill("hat")
    generate(tab)
    expect(tab.locator("#dumpunet-studio-attention-words-message")).to_contain_text("hat")
    expect(tab.locator("#studio-status")).to_contain_text("Words: ")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    control(tab, "dumpunet-studio-attention-checkbox").uncheck()
    fill(tab, model=tmp_path / "broken.safetensors")
    generate(tab)
    expect(tab.locator("#studio-model-message")).to_contain_text("could not be loaded")
    fill(tab, model="")
    generate(tab)
    expect_end(tab)
    assert tab.locator("#studio-model-message .dumpunet-error").count() == 0


def test_a_reload_in_the_middle_finds_the_run_again(tab: Any) -> None:
    quick(tab, steps=120, width=256, height=256)
    turn_on(tab, "features", "U-Net features")
    control(tab, "dumpunet-studio-features-layer").fill("M00")
    control(tab, "dumpunet-studio-features-steps").fill("1-3")
    generate(tab)
    expect(status(tab)).to_contain_text("Step")
    load(tab, tab.reload)
    # The steps of the pictures are over by then.
    expect(status(tab)).to_have_text(re.compile(r"Step ([4-9]|\d\d+) of 120"))
    tab.locator("#studio-stop").click()
    expect_end(tab, "Stopped; the results so far are below: 1 image and 3 pictures")
    load(tab, tab.reload)
    assert tab.locator(".studio-gallery .studio-thumb").count() == 3
    quick(tab, steps=2)
    generate(tab)
    expect_end(tab, "Done: 1 image")


def test_two_tabs_do_not_see_each_other(open_tab: Open) -> None:
    one, two = open_tab(), open_tab()
    quick(one, steps=80, width=256, height=256, seed=11)
    quick(two, steps=3, seed=22)
    turn_on(two, "features", "U-Net features")
    control(two, "dumpunet-studio-features-layer").fill("M00")
    generate(one)
    expect(status(one)).to_contain_text("Step")
    generate(two)
    expect(status(two)).to_have_text("Waiting: one run is ahead.")
    one.locator("#studio-stop").click()
    expect_end(one, "Stopped")
    expect_end(two, "Done: 1 image and 3 pictures")
    assert "seed 11" in one.locator(".studio-stage").inner_html()
    assert "seed 22" not in one.locator("body").inner_html()
    assert one.locator(".studio-gallery").count() == 0
    assert "seed 22" in two.locator(".studio-stage").inner_html()
    assert "seed 11" not in two.locator("body").inner_html()
    # A picture's address has a key of its run, which tells nothing of the page.
    theirs = two.locator(".studio-stage .studio-thumb").get_attribute("data-full")
    base, key, name = theirs.split("/")
    assert one.request.get(f"{one.url}{theirs}").ok
    assert one.request.get(f"{one.url}{base}/{'x' * len(key)}/{name}").status == 404
    assert one.request.get(f"{one.url}{base}/{key}/..%2F..%2F000.png").status == 404
    secret = two.evaluate("sessionStorage.getItem('dumpunet-studio')")
    assert secret not in two.locator("body").inner_html()


def test_a_duplicated_tab_has_runs_of_its_own(tab: Any) -> None:
    first = tab.evaluate("sessionStorage.getItem('dumpunet-studio')")
    with tab.context.expect_page() as opening:
        # window.open copies the session's storage, as the browser does for a tab that is duplicated.
        tab.evaluate("void window.open(location.href)")
    other = opening.value
    other.wait_for_function(f"sessionStorage.getItem('dumpunet-studio') !== '{first}'")
    assert tab.evaluate("sessionStorage.getItem('dumpunet-studio')") == first
    load(tab, tab.reload)
    assert tab.evaluate("sessionStorage.getItem('dumpunet-studio')") == first


def test_pictures_that_are_not_to_be_saved_are_shown_all_the_same(tab: Any, folder: Path) -> None:
    before = set(folder.iterdir())
    quick(tab)
    turn_on(tab, "features", "U-Net features")
    control(tab, "dumpunet-studio-features-layer").fill("M00")
    tab.get_by_role("tab", name="Settings").click()
    control(tab, "dumpunet-studio-settings-save").uncheck()
    generate(tab)
    expect_end(tab, "Done: 1 image and 4 pictures")
    tab.wait_for_function("document.querySelector('.studio-gallery img').naturalWidth > 0")
    assert set(folder.iterdir()) == before


def test_a_phone_has_room_for_it(open_tab: Open) -> None:
    tab = open_tab({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_nothing_serious_bars_anyone(tab: Any) -> None:
    quick(tab, width=100)
    turn_on(tab, "features", "U-Net features")
    control(tab, "dumpunet-studio-features-layer").fill("M00")
    expect(tab.locator("#studio-width-message")).to_contain_text("Width")
    assert serious(tab) == []
    fill(tab, width=128)
    generate(tab)
    expect_end(tab)
    tab.locator(".studio-gallery").wait_for()
    assert serious(tab) == []
    tab.locator(".studio-gallery .studio-thumb").first.click()
    assert serious(tab) == []
    load(tab, lambda: tab.goto(f"{tab.url}?__theme=dark"))
    assert tab.locator(".studio-gallery").is_visible()
    assert serious(tab) == []


FADED = "document.getAnimations().every(a => a.playState !== 'running' || a.effect.getTiming().iterations === Infinity)"


def serious(tab: Any) -> list[Any]:
    """List accessibility problems of a page, once no colour transition is running."""
    from axe_playwright_python.sync_playwright import Axe

    tab.wait_for_function(FADED)
    found = [v for v in Axe().run(tab).response["violations"] if v["impact"] in ("serious", "critical")]
    return [(v["id"], [node["html"] for node in v["nodes"]]) for v in found]
