"""The panel as people use it: typing, choosing, reading errors."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.waiting import rest

ID = "dumpunet-test"


def box(page: Any, name: str) -> Any:
    return page.locator(f"#{ID}-{name} input, #{ID}-{name} textarea").first


def type_into(field: Any, text: str) -> None:
    """Type like a person, and move to the next field."""
    field.click()  # waits until the field has come to rest: what is typed before may get lost
    field.press_sequentially(text, delay=50)
    field.press("Tab")


def message(page: Any, name: str, part: str) -> str:
    """The message below a field, once it contains the expected part."""
    place = page.locator(f"#{ID}-{name}-message .dumpunet-error", has_text=part).first
    place.wait_for()
    return str(place.inner_text())


def open_tab(page: Any, title: str) -> None:
    buttons = page.locator(f"#{ID}-tabs button:not([tabindex='-1'])").filter(
        has_text=re.compile(f"^\\s*{title}\\s*$")
    )
    buttons.locator("visible=true").first.click()


def unfold(page: Any, name: str) -> None:
    page.locator(f"#{ID}-{name} button, #{ID}-{name} .label-wrap").first.click()


def choose(page: Any, name: str, label: str) -> None:
    page.locator(f"#{ID}-{name} label", has_text=label).first.click()


def read(page: Any) -> Any:
    """Get the page's settings, or its error message."""
    answer = page.locator("#answer textarea, #answer input").first
    answer.evaluate("e => e.value = ''")
    page.locator("#read").click()
    page.wait_for_function("() => document.querySelector('#answer textarea, #answer input').value")
    text = answer.input_value()
    return json.loads(text) if text.startswith("{") else text


def test_what_one_fills_in_is_what_the_host_gets(page: Any) -> None:
    page.locator(f"#{ID}-features-checkbox input").check()
    box(page, "features-layer").fill("IN00-OUT00(+2)")
    box(page, "features-steps").fill("1,5-20(+5)")
    choose(page, "features-average", "1-norm")
    unfold(page, "features-colorization")
    choose(page, "features-color-transform", "Sigmoid")
    choose(page, "features-color-method", "Custom RGB")
    box(page, "features-color-formula-1").fill("v*v")
    open_tab(page, "Attention")
    page.locator(f"#{ID}-attention-checkbox input").check()
    page.locator(f"#{ID}-attention-output label", has_text="words").click()
    box(page, "attention-words").fill("赤い丸, red circle")
    open_tab(page, "Layer Prompt")
    page.locator(f"#{ID}-layerprompt-checkbox input").check()
    page.locator(f"#{ID}-layerprompt-diff-checkbox input").check()
    rest(page, 500)
    settings = read(page)
    features = settings["features"]
    assert (features["enabled"], features["layers"], features["steps"]) == (
        True,
        "IN00-OUT00(+2)",
        "1,5-20(+5)",
    )
    assert (features["average"], features["color"]["transform"]) == ("1-norm", "sigmoid")
    assert (features["color"]["method"], features["color"]["formula"]) == ("rgb", ["abs(v)", "v*v", "abs(v)"])
    assert settings["attention"]["kinds"] == ["words"]
    assert settings["attention"]["words"] == "赤い丸, red circle"
    assert settings["layer_prompt"]["enabled"]
    assert settings["difference"]["enabled"]
    assert settings["output"] == {"save": True, "log": False}


def test_a_mistake_is_marked_as_one_types(page: Any) -> None:
    layers = box(page, "features-layer")
    type_into(layers, "IN00,OUT99")
    assert message(page, "features-layer", "OUT99") == (
        "Layers: the model has no block OUT99. The model has IN00, M00, OUT00.\n  IN00,OUT99\n       ^"
    )
    assert layers.evaluate("e => getComputedStyle(e).borderColor") == "rgb(220, 38, 38)"
    layers.fill("IN00")
    page.wait_for_selector(f"#{ID}-features-layer-message .dumpunet-error", state="detached")
    assert layers.evaluate("e => getComputedStyle(e).borderColor") != "rgb(220, 38, 38)"
    type_into(box(page, "features-steps"), "5-x")
    assert message(page, "features-steps", "Image saving steps").endswith("5-x\n    ^")
    unfold(page, "features-colorization")
    type_into(box(page, "features-color-formula-0"), "mp.sin(v)")
    assert "no prefix except np" in message(page, "features-color-formula-0", "mp.sin(v)")


def test_what_is_said_is_of_the_text_that_stands_there(page: Any) -> None:
    """Typed at machine speed, without leaving the field."""
    layers = box(page, "features-layer")
    layers.press_sequentially("IN00,M00,OUT00,IN00-OUT00(+2)")
    rest(page, 1500)
    assert page.locator(f"#{ID}-features-layer-message .dumpunet-error").count() == 0
    layers.press_sequentially(",OUT99")
    assert message(page, "features-layer", "OUT99").endswith("^")
    layers.press("Backspace")
    assert "no block OUT9." in message(page, "features-layer", "OUT9.")


def test_the_caret_is_in_view_below_a_long_text(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 1400})
    type_into(box(page, "features-layer"), "IN00," * 10 + "OUT99")
    message(page, "features-layer", "OUT99")
    caret = page.locator(f"#{ID}-features-layer-message .dumpunet-spot b").first
    place = page.locator(f"#{ID}-features-layer-message .dumpunet-error").first
    outer, inner = place.bounding_box(), caret.bounding_box()
    assert outer["x"] < inner["x"] < outer["x"] + outer["width"]


def test_attention_that_looks_at_nothing_is_marked(page: Any) -> None:
    open_tab(page, "Attention")
    page.locator(f"#{ID}-attention-checkbox input").check()
    message(page, "attention-output", "nothing is selected")
    type_into(box(page, "attention-points"), "10,20")
    page.wait_for_selector(f"#{ID}-attention-output-message .dumpunet-error", state="detached")
    box(page, "attention-points").fill("")
    message(page, "attention-output", "nothing is selected")
    page.locator(f"#{ID}-attention-output label", has_text="V*Q*K").click()
    page.wait_for_selector(f"#{ID}-attention-output-message .dumpunet-error", state="detached")


def test_a_prompt_can_be_tried(page: Any) -> None:
    open_tab(page, "Layer Prompt")
    unfold(page, "layerprompt-preview")
    prompt = box(page, "layerprompt-preview-prompt")
    type_into(prompt, "a (~: IN00: red ; M00*0.5: <b> :~) cat (~: OUT00@2: big :~)")
    table = page.locator(f"#{ID}-layerprompt-preview-table").first
    table.locator("td", has_text="red").wait_for()
    texts = [row.inner_text().split() for row in table.locator("tbody tr").all()]
    assert texts == [
        ["IN00", "a", "red", "cat"],
        ["M00", "50", "%", "a", "<b>", "cat", "50", "%", "a", "cat"],
        ["OUT00", "a", "cat"],
    ]
    step = page.locator(f"#{ID}-layerprompt-preview-step input[type=number]").first
    step.fill("2")
    step.press("Enter")
    table.locator("td", has_text="big").wait_for()
    prompt.fill("")
    type_into(prompt, "a (~: M00 red :~)")
    error = table.locator(".dumpunet-error", has_text="missing")
    error.wait_for()
    assert error.inner_text().splitlines()[-1].index("^") == error.inner_text().splitlines()[-2].index("red")


def test_only_the_controls_that_a_choice_needs_are_shown(page: Any) -> None:
    unfold(page, "features-colorization")
    shown = {
        name: page.locator(f"#{ID}-features-color-{name}")
        for name in ("clamp-min", "gain", "formula-0", "formula-2")
    }
    shown["formula-2"].wait_for()
    assert {name: place.is_visible() for name, place in shown.items()} == {
        "clamp-min": False, "gain": False, "formula-0": True, "formula-2": True,
    }  # fmt: skip
    assert "H" in shown["formula-0"].inner_text()
    choose(page, "features-color-transform", "Linear")
    shown["clamp-min"].wait_for()
    choose(page, "features-color-method", "Red/Blue")
    shown["formula-0"].wait_for(state="hidden")
    choose(page, "features-color-method", "Custom RGB")
    shown["formula-0"].wait_for()
    assert "R" in shown["formula-0"].inner_text()
    assert not shown["gain"].is_visible()


def test_the_table_follows_the_chosen_blocks_and_the_size(page: Any) -> None:
    unfold(page, "features-info")
    table = page.locator(f"#{ID}-features-info-table").first
    table.locator("td", has_text="OUT00").wait_for()
    box(page, "features-layer").fill("M00")
    table.locator("td", has_text="OUT00").wait_for(state="detached")
    assert "4 x 64 x 64" in table.inner_text()
    width = page.locator("#width input[type=number]").first
    width.fill("768")
    width.press("Enter")
    table.locator("td", has_text="4 x 64 x 96").wait_for()


def test_fields_have_tooltips_and_descriptions(page: Any) -> None:
    layers = page.locator(f"#{ID}-features-layer").first
    assert "IN00-OUT11(+2)" in (layers.get_attribute("title") or "")
    assert "Blocks to capture; empty means all." in layers.inner_text()
    assert box(page, "features-layer").get_attribute("placeholder") == "eg. IN00-OUT03(+2),OUT10"
    open_tab(page, "Attention")
    page.wait_for_selector(f"#{ID}-attention-points[title*='120,80 200,200']")
