"""How the panel is made: anew at each call, in the wire's order, under the names that scripts and styles rely on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import pytest

from lib_dumpunet import wire
from lib_dumpunet.settings import ColorSettings, FeatureSettings, PanelSettings
from lib_dumpunet.ui.events import Info
from lib_dumpunet.ui.panel import Panel, build

# Gradio makes an event loop for each page and leaves it open, for which the test is blamed that collects it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def no_model(width: int, height: int) -> Sequence[Any]:
    return []


def built(tab: str = "txt2img", info: Info = no_model, **more: Any) -> tuple[gr.Blocks, Panel]:
    with gr.Blocks(analytics_enabled=False) as page:
        panel = build(tab, info, **more)
    return page, panel


def test_components_are_in_the_order_of_the_wire() -> None:
    _, panel = built()
    assert [entry.path for entry in panel.entries] == [entry.path for entry in wire.ENTRIES]
    assert [component.label for component in panel.components if "formula" not in component.elem_id] == [
        entry.label for entry in wire.ENTRIES if "formula" not in entry.path
    ]
    assert wire.unpack([component.value for component in panel.components]) == PanelSettings()


def test_the_panel_begins_with_what_it_is_given() -> None:
    defaults = PanelSettings(features=FeatureSettings(enabled=False, color=ColorSettings("rgb", "linear")))
    _, panel = built(defaults=defaults)
    assert wire.unpack([component.value for component in panel.components]) == defaults


def test_every_call_makes_all_anew() -> None:
    first, second = built("txt2img"), built("img2img")
    for page, panel in (first, second):
        assert {component._id for component in panel.components} <= set(page.blocks)
    assert not {id(component) for component in first[1].components} & {
        id(component) for component in second[1].components
    }


def test_element_ids_are_one_for_each_tab() -> None:
    page, _ = built("txt2img")
    ids = [block.elem_id for block in page.blocks.values() if block.elem_id]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("dumpunet-txt2img-") for name in ids)


@pytest.mark.parametrize("section", ["features", "attention", "layerprompt"])
def test_element_ids_are_those_that_are_documented(section: str) -> None:
    page, _ = built("img2img")
    ids = {block.elem_id for block in page.blocks.values()}
    prefix = f"dumpunet-img2img-{section}"
    assert f"{prefix}-checkbox" in ids
    inner = f"{prefix}-diff" if section == "layerprompt" else prefix
    for name in ("layer", "steps", "average", "color-method", "color-transform", "color-clamp-min",
                 "color-gain", "color-formula-0", "dump-checkbox", "dump-format", "dump-path"):  # fmt: skip
        assert f"{inner}-{name}" in ids


def test_the_table_is_for_the_size_that_the_page_begins_with() -> None:
    asked = []

    def info(width: int, height: int) -> Sequence[Any]:
        asked.append((width, height))
        return []

    with gr.Blocks(analytics_enabled=False):
        build("txt2img", info, (gr.Slider(64, 2048, 768), gr.Slider(64, 2048, 320)))
    assert (768, 320) in asked
