"""Settings there and back: as a panel's values, as JSON, as parameters of an image."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dumpunet import wire
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.settings import METHODS, PanelSettings

# How the webui writes and reads the parameters of an image.
PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search("[,\n:]", value) else value


def written_and_read(parameters: dict[str, str]) -> dict[str, str]:
    line = ", ".join(f"{key}: {quoted(value)}" for key, value in parameters.items())
    pairs = PARAMETER.findall(line)
    return {k: json.loads(v) if v[:1] == '"' and v[-1:] == '"' and len(v) > 1 else v for k, v in pairs}


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)
"""What one can type into a line."""


@st.composite
def panels(draw: st.DrawFn) -> PanelSettings:
    """Any state of the panel that holds no mistake."""
    values: list[Any] = []
    for entry in wire.ENTRIES:
        if entry.control == "checkbox":
            values.append(draw(st.booleans()))
        elif entry.control == "choice":
            values.append(draw(st.sampled_from(list(entry.choices.values()))))
        elif entry.control == "choices":
            values.append(
                draw(st.lists(st.sampled_from(list(entry.choices.values())), unique=True, min_size=1))
            )
        elif entry.control == "number":
            low, high = {"clamp_min": (-9, -1), "lattice": (1, 16)}.get(entry.path[-1], (1, 9))
            values.append(draw(st.integers(low, high)))
        else:
            values.append(draw(TEXT))
    return wire.unpack(values)


@given(panels())
def test_a_panels_values_are_its_settings(settings: PanelSettings) -> None:
    assert wire.unpack(wire.pack(settings)) == settings


TIDY = re.compile(r'(?!\s)[^"\\]*(?<!\s)')
"""The webui's reader strips blanks, and takes some quotes and backslashes for its own."""


@given(panels())
def test_parameters_bring_the_settings_back(settings: PanelSettings) -> None:
    texts = wire.to_infotext(settings)
    if not all(TIDY.fullmatch(text) for text in texts.values()) or not texts:
        return
    read = written_and_read(texts)
    assert read == texts
    for entry, before in zip(wire.ENTRIES, wire.entries(settings), strict=True):
        pasted = wire.from_infotext(read, entry)
        if entry.key in texts:
            assert pasted == before.default
        else:
            assert pasted == (entry.default if entry.is_shared else None)


def test_parameters_tell_no_folder_and_set_none() -> None:
    settings = wire.from_dict({"features": {"layers": "M00", "dump": {"path": "/home/me"}}})
    texts = wire.to_infotext(settings)
    assert "/home/me" not in texts.values()
    dump = [entry for entry in wire.ENTRIES if "dump" in entry.path and entry.path[-1] != "format"]
    assert len(dump) == 6
    for entry in dump:
        assert wire.from_infotext({**texts, entry.key: "/etc"}, entry) is None


def test_other_images_leave_the_panel_alone() -> None:
    assert {wire.from_infotext({"Steps": "20"}, entry) for entry in wire.ENTRIES} == {None}


def test_parameters_of_sections_that_are_off_are_not_written() -> None:
    settings = wire.override(PanelSettings(), {"features.layers": "M00"})
    assert wire.to_infotext(settings) == {
        "Dump U-Net features enabled": "True",
        "Dump U-Net features layers": "M00",
    }
    assert wire.to_infotext(PanelSettings()) == {}


def test_what_was_written_by_hand_falls_back_to_the_default() -> None:
    entry = next(e for e in wire.ENTRIES if e.path == ("features", "color", "method"))
    assert wire.from_infotext({entry.key: "Plaid"}, entry) == "Custom HSL"


def test_a_section_that_is_named_is_on() -> None:
    settings = wire.from_dict({"features": {}, "layer_prompt": {}})
    assert settings.features.enabled
    assert settings.layer_prompt.enabled
    assert not settings.switch.enabled
    assert not wire.from_dict({"features": {"enabled": False, "layers": "M00"}}).features.enabled
    difference = wire.from_dict({"difference": {"steps": "1"}})
    assert difference.core.difference.enabled
    assert not wire.from_dict({"difference": {}, "layer_prompt": {"enabled": False}}).core.difference.enabled


def test_attention_counts_where_it_is_asked_for() -> None:
    asked = wire.from_dict({"attention": {"kinds": ["qk", "words"], "dump": {"path": "x"}}})
    assert asked.core.attention.kinds == ("qk", "words")
    assert asked.core.attention.heat == asked.core.attention.dump
    off = wire.from_dict({"attention": {"enabled": False, "kinds": "qk"}})
    assert not off.core.attention.enabled


@pytest.mark.parametrize("value", ["hsl", "Custom HSL", "custom hsl"])
def test_choices_are_known_by_both_names(value: str) -> None:
    assert wire.from_dict({"features": {"color": {"method": value}}}).features.color.method == "hsl"


@pytest.mark.parametrize("method", METHODS)
def test_formulas_left_empty_are_the_methods_own(method: str) -> None:
    color = {"method": method, "formula": ["v", "", " "]}
    found = wire.from_dict({"features": {"color": color}}).features.color.formula
    assert found == {"rgb": ("v", "abs(v)", "abs(v)"), "hsl": ("v", "1.0", "0.5")}.get(method)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"feature": {}}, "settings: there is no 'feature'. There are features, attention, layer_prompt"),
        ({"features": {"layer": ""}}, "features: there is no 'layer'. There are enabled, layers, steps"),
        ({"features": 3}, "features: 3 is no dictionary"),
        ({"features": {"layers": 3}}, "features.layers: 3 is not a text"),
        ({"features": {"enabled": "maybe"}}, "features.enabled: 'maybe' is neither true nor false"),
        ({"features": {"color": {"gain": "steep"}}}, "features.color.gain: 'steep' is not a number"),
        ({"features": {"color": {"gain": 0}}}, "gain: 0.0 is outside"),
        ({"attention": {"lattice": 2.5, "kinds": ["qk"]}}, "attention.lattice: 2.5 is not a whole number"),
        ({"features": {"color": {"formula": ["v"]}}}, "features.color.formula: ['v'] is not three formulas"),
        ({"features": {"average": "3-norm"}}, "features.average: '3-norm' is not one of its choices"),
        ({"switch": {}}, "settings: there is no 'switch'"),
        ({"attention": {"layers": "M00"}}, "Output features: nothing is chosen"),
    ],
)
def test_a_mistake_says_where_and_what(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        wire.from_dict(tree)
    assert str(raised.value).startswith(message)


def test_a_list_of_another_length_is_refused() -> None:
    with pytest.raises(SettingsError, match="Reload the page"):
        wire.unpack([True])
