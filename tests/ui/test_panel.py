"""Building the panel: anew at each call, in the order of the settings, with names that styles rely on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import pytest

from lib_dumpunet.blocks import SD1, ModelFacts
from lib_dumpunet.errors import DumpUNetError, SettingsError
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.plan import plan_prompts
from lib_dumpunet.prompt.texts import Texts
from lib_dumpunet.prompt.words import Token
from lib_dumpunet.resolve import Prompts, resolve
from lib_dumpunet.settings import ColorSettings, DumpSettings, FeatureSettings, PanelSettings
from lib_dumpunet.settings.fields import ENTRIES, unpack
from lib_dumpunet.settings.json import from_dict
from lib_dumpunet.ui.panel import Panel, build
from lib_dumpunet.ui.tables import Info

pytestmark = pytest.mark.usefixtures("one_event_loop")


def no_model(width: int, height: int) -> Sequence[Any]:
    return []


def built(tab: str = "txt2img", info: Info = no_model, **more: Any) -> tuple[gr.Blocks, Panel]:
    with gr.Blocks(analytics_enabled=False) as page:
        panel = build(tab, info, **more)
    return page, panel


def test_components_are_in_the_order_of_the_settings() -> None:
    _, panel = built()
    assert [entry.path for entry in panel.entries] == [entry.path for entry in ENTRIES]
    assert [component.label for component in panel.components if "formula" not in component.elem_id] == [
        entry.label for entry in ENTRIES if "formula" not in entry.path
    ]
    assert unpack([component.value for component in panel.components]) == PanelSettings()


def test_the_panel_begins_with_what_it_is_given() -> None:
    defaults = PanelSettings(features=FeatureSettings(enabled=False, color=ColorSettings("rgb", "linear")))
    _, panel = built(defaults=defaults)
    assert unpack([component.value for component in panel.components]) == defaults


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


def marked(panel: Panel, error: DumpUNetError) -> list[tuple[str, ...]]:
    """Return the settings whose controls show a mistake."""
    places = [field for field in panel.fields if field.message is not None]
    return [field.entry.path for field, told in zip(places, panel.messages(error), strict=True) if told]


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"difference": {"color": {"method": "hsl", "formula": ["1", "x", "1"]}}}, "difference.color.formula.1"),
        ({"attention": {"kinds": ["qk"], "color": {"method": "rgb", "formula": "v;v;y"}}}, "attention.color.formula.2"),
        ({"features": {"layers": "IN99"}}, "features.layers"),
        ({"features": {"layers": "M00"}, "attention": {"kinds": ["qk"], "steps": "99"}}, "attention.steps"),
        ({"features": {"layers": "IN00"}, "attention": {"kinds": ["qk"], "layers": "IN00"}}, "features.layers"),
        ({"attention": {"words": "hat"}}, "attention.words"),
        ({"attention": {"points": "999,1"}}, "attention.points"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_its_own_control_alone(tree: dict[str, Any], path: str) -> None:
    """Sections have fields with the same names; only the wrong one turns red."""
    _, panel = built()
    token = Token(b"circle", ends_word=True)
    template = parse_prompt("a (~: M00: b :~)", SD1)
    plan = plan_prompts([template], [], ["M00"], 4)
    texts = Texts(plan, dict.fromkeys(plan.texts("cond"), (token,)))
    facts = ModelFacts(SD1, {block: int(block == "M00") for block in SD1})
    with pytest.raises(DumpUNetError) as caught:
        resolve(from_dict(tree).core, facts, Prompts((template,), 4, (64, 64), texts))
    assert ".".join(caught.value.path) == path
    assert marked(panel, caught.value) == [tuple(path.split("."))]


def test_a_folder_that_cannot_be_used_is_told_at_its_own_control() -> None:
    def refuse(dump: DumpSettings) -> DumpSettings:
        if dump.enabled:
            raise SettingsError("no", field="Output path")
        return dump

    _, panel = built()
    with pytest.raises(SettingsError) as caught:
        from_dict({"difference": {"dump": {"path": "x"}}}).core.with_dumps(refuse)
    assert marked(panel, caught.value) == [("difference", "dump", "path")]
