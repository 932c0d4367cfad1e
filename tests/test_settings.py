"""Settings converted and back: through the panel's values, JSON, and the parameters of an image."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dumpunet.errors import DumpUNetError, SettingsError
from lib_dumpunet.kinds import CHOICES
from lib_dumpunet.settings import (
    AVERAGES,
    FORMATS,
    METHODS,
    TRANSFORMS,
    AttentionSettings,
    AttentionSwitch,
    ColorSettings,
    DifferenceSettings,
    DumpSettings,
    FeatureSettings,
    LayerPromptSettings,
    OutputSettings,
    PanelSettings,
)
from lib_dumpunet.settings.fields import ENTRIES, entries, pack, unpack
from lib_dumpunet.settings.infotext import from_infotext, to_infotext
from lib_dumpunet.settings.json import from_dict, override

# --- what a user can have set ---

TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "IN00-OUT03(+2),OUT10",
            "赤い丸, 青い四角",
            'a "red" circle',
            '"red"',
            "a: b\nSteps: 1, Seed: 2",
            "back\\slash",
            " blanks around ",
            "512x512",
            "True",
            "line\r\nline",
        ]
    ),
)
FORMULA_TEXTS = TEXTS.map(str.strip)


def formulas(method: str) -> st.SearchStrategy[tuple[str, str, str] | None]:
    """Only custom methods have formulas; empty ones are the method's defaults."""
    if method not in ("rgb", "hsl"):
        return st.none()
    three = st.tuples(*(FORMULA_TEXTS.filter(bool) for _ in range(3)))
    return st.none() | three


@st.composite
def colors(draw: st.DrawFn) -> ColorSettings:
    method = draw(st.sampled_from(list(METHODS)))
    return ColorSettings(
        method=method,
        transform=draw(st.sampled_from(list(TRANSFORMS))),
        clamp_min=draw(st.floats(-1e4, -1e-3)),
        clamp_max=draw(st.floats(1e-3, 1e4)),
        gain=draw(st.floats(0.001, 1e4)),
        offset=draw(st.floats(-1e4, 1e4)),
        formula=draw(formulas(method)),
    )


DUMPS = st.builds(DumpSettings, enabled=st.booleans(), format=st.sampled_from(list(FORMATS)), path=TEXTS)
LOOKING = {
    "layers": TEXTS,
    "steps": TEXTS,
    "average": st.sampled_from(list(AVERAGES)),
    "color": colors(),
    "dump": DUMPS,
}
KINDS = st.lists(st.sampled_from(list(CHOICES)), unique=True, min_size=1).map(tuple)
PANELS = st.builds(
    PanelSettings,
    features=st.builds(FeatureSettings, enabled=st.booleans(), **LOOKING),
    switch=st.builds(AttentionSwitch, enabled=st.booleans()),
    attention=st.builds(
        AttentionSettings,
        kinds=KINDS,
        words=TEXTS,
        negative_words=TEXTS,
        lattice=st.integers(1, 16),
        points=TEXTS,
        **LOOKING,
    ),
    layer_prompt=st.builds(LayerPromptSettings, enabled=st.booleans()),
    difference=st.builds(DifferenceSettings, enabled=st.booleans(), **LOOKING),
    output=st.builds(OutputSettings, save=st.booleans(), log=st.booleans()),
)


# --- the panel's values ---


@given(PANELS)
def test_settings_come_back_from_the_panel(settings: PanelSettings) -> None:
    assert unpack(pack(settings)) == settings


def test_an_untouched_panel_asks_for_nothing() -> None:
    settings = unpack([entry.default for entry in ENTRIES])
    assert settings == PanelSettings()
    assert not settings.wants_anything


def test_entries_are_those_of_the_settings_tree() -> None:
    """Only the folder of heatmaps has no control: words go where all attention does."""

    def paths(settings: Any, above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        found = set()
        for f in fields(settings):
            value = getattr(settings, f.name)
            found |= paths(value, (*above, f.name)) if is_dataclass(value) else {(*above, f.name)}
        return found

    whole = {path for path in paths(PanelSettings()) if path[:2] != ("attention", "heat")}
    shown = {entry.path[:-1] if "formula" in entry.path else entry.path for entry in ENTRIES}
    assert shown == whole
    assert len({entry.key for entry in ENTRIES}) == len(ENTRIES)


def panel_with(**values: Any) -> list[Any]:
    """Return a panel's values, some set by dotted paths with ``__`` for the dots."""
    paths = {tuple(name.split("__")): value for name, value in values.items()}
    assert paths.keys() <= {entry.path for entry in ENTRIES}
    return [paths.get(entry.path, entry.default) for entry in ENTRIES]


def test_components_send_what_they_like() -> None:
    """Sliders send floats, empty fields None, and lists come in the order of clicks."""
    settings = unpack(
        panel_with(
            attention__lattice=4.0,
            attention__kinds=["words", "Q*K", "qk"],
            features__layers=None,
            features__color__gain=2,
            features__color__method="rgb",
            features__color__formula__1="v*v",
            features__dump__format="bin (raw float32)",
        )
    )
    assert settings.attention.lattice == 4
    assert isinstance(settings.attention.lattice, int)
    assert settings.attention.kinds == ("words", "qk")
    assert settings.features.layers == ""
    assert settings.features.color == ColorSettings(
        method="rgb", gain=2.0, formula=("abs(v)", "v*v", "abs(v)")
    )
    assert settings.features.dump.format == "bin"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"features__average": "3-norm"},
            "Show averaged map: '3-norm' is not one of its choices. Use disable, sum,",
        ),
        ({"attention__kinds": ["Q*V"]}, "Output features: 'Q*V' is not one of its choices. Use k, qk,"),
        ({"attention__kinds": 5}, "Output features: 5 is not a list"),
        ({"attention__lattice": 2.5}, "Lattice: 2.5 is not a whole number"),
        ({"attention__lattice": 17.0}, "Lattice: 17 is outside 1 to 16"),
        ({"features__color__gain": None}, "gain: a number is missing"),
        ({"features__color__gain": True}, "gain: True is not a number"),
        ({"features__color__clamp_min": float("nan")}, "Clamp min.: nan is not a number"),
        ({"features__color__clamp_min": 2.0}, "Clamp min.: 2 is not below Clamp max. 1"),
        ({"features__layers": 5}, "Layers: 5 is not a text"),
        ({"features__enabled": "maybe"}, "Extract U-Net features: 'maybe' is neither true nor false"),
        ({"switch__enabled": True}, "Output features: nothing is selected. Choose among K, Q*K,"),
    ],
)
def test_a_wrong_value_names_its_field(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        unpack(panel_with(**values))
    assert str(caught.value).startswith(message)


def test_a_page_of_another_version_is_told() -> None:
    with pytest.raises(SettingsError, match="Reload the page"):
        unpack(pack(PanelSettings())[:-1])


def test_what_is_switched_off_is_left_out() -> None:
    settings = PanelSettings(
        attention=AttentionSettings(kinds=("qk",), dump=DumpSettings(path="maps")),
        difference=DifferenceSettings(enabled=True),
    )
    assert not settings.wants_anything
    assert not settings.core.attention.enabled
    assert not settings.core.difference.enabled
    on = replace(
        settings, switch=AttentionSwitch(enabled=True), layer_prompt=LayerPromptSettings(enabled=True)
    )
    assert on.core.attention.kinds == ("qk",)
    assert on.core.attention.heat.path == "maps"
    assert on.core.difference.enabled


# --- JSON ---


def as_dict(settings: PanelSettings) -> dict[str, Any]:
    """Write settings like a caller of the API who names everything."""
    tree: dict[str, Any] = {}
    for entry in entries(settings):
        path = ("attention", "enabled") if entry.path == ("switch", "enabled") else entry.path
        place = tree
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = entry.default
    for section in ("features", "attention", "difference"):
        color = tree[section]["color"]
        color["formula"] = list(color["formula"].values())
    return tree


@given(PANELS)
def test_settings_come_back_from_json(settings: PanelSettings) -> None:
    assert from_dict(json.loads(json.dumps(as_dict(settings)))) == settings


def test_all_of_json_may_be_left_out() -> None:
    assert from_dict({}) == PanelSettings()


def test_naming_a_section_turns_it_on() -> None:
    settings = from_dict(
        {
            "features": {"layers": "M00", "color": {"method": "rgb", "formula": "v;v;1"}, "dump": {}},
            "attention": {"kinds": "qk, words"},
            "difference": {},
        }
    )
    assert settings.features.enabled
    assert settings.features.color.formula == ("v", "v", "1")
    assert settings.features.dump.enabled
    assert settings.switch.enabled
    assert settings.attention.kinds == ("qk", "words")
    assert settings.difference.enabled
    assert settings.layer_prompt.enabled


def test_a_named_section_can_be_off() -> None:
    settings = from_dict(
        {
            "features": {"enabled": False, "layers": "M00", "dump": {"enabled": False}},
            "attention": {"enabled": False, "words": "cat"},
            "layer_prompt": {"enabled": False},
            "difference": {},
        }
    )
    assert settings.features.layers == "M00"
    assert not settings.features.dump.enabled
    assert not settings.wants_anything
    assert not settings.core.difference.enabled


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"feature": {}},
            "settings: there is no 'feature'. There are features, attention, layer_prompt, difference, explorer, "
            "output.",
        ),
        (
            {"features": {"layer": "M00"}},
            "features: there is no 'layer'. There are enabled, layers, steps, average, color, dump.",
        ),
        ({"features": {"color": {"colour": 1}}}, "features.color: there is no 'colour'. There are method,"),
        ({"attention": {"heat": {}}}, "attention: there is no 'heat'. There are kinds, layers,"),
        ({"switch": {"enabled": True}}, "settings: there is no 'switch'. There are features, attention,"),
        ({"features": "M00"}, "features: 'M00' is not a dictionary. Write its settings in braces."),
        ({"features": {"color": {"gain": "steep"}}}, "features.color.gain: 'steep' is not a number."),
        ({"attention": {"layers": "M00"}}, "Output features: nothing is selected. Choose among K, Q*K,"),
        ({"features": {"dump": None}}, "features.dump: None is not a dictionary."),
        ({"features": {"steps": 10}}, "features.steps: 10 is not a text. Write it in quotes."),
        ({"features": {"enabled": "on"}}, "features.enabled: 'on' is neither true nor false."),
        (
            {"difference": {"average": 1}},
            "difference.average: 1 is not one of its choices. Use disable, sum,",
        ),
        ({"attention": {"kinds": 1}}, "attention.kinds: 1 is not a list. Use k, qk,"),
        ({"attention": {"lattice": "8.5"}}, "attention.lattice: '8.5' is not a whole number."),
        ({"features": {"color": {"formula": ["v"]}}}, "features.color.formula: ['v'] is not three formulas."),
        ({"features": {"color": {"gain": 0}}}, "gain: 0.0 is outside 0.001 to 10000."),
    ],
)
def test_wrong_json_names_the_key_and_what_there_is(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_dict(tree)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("value", ["hsl", "Custom HSL", "custom hsl"])
def test_choices_are_known_by_both_names(value: str) -> None:
    assert from_dict({"features": {"color": {"method": value}}}).features.color.method == "hsl"


@pytest.mark.parametrize("method", METHODS)
def test_formulas_left_empty_are_the_methods_own(method: str) -> None:
    color = {"method": method, "formula": ["v", "", " "]}
    found = from_dict({"features": {"color": color}}).features.color.formula
    assert found == {"rgb": ("v", "abs(v)", "abs(v)"), "hsl": ("v", "1.0", "0.5")}.get(method)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
NAMES = st.sampled_from(sorted({name for entry in ENTRIES for name in entry.path})) | st.text(max_size=5)
JSON = st.recursive(
    LEAVES, lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=4)
)


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_any_json_gives_settings_or_a_sentence(tree: dict[str, Any]) -> None:
    try:
        settings = from_dict(tree)
    except DumpUNetError as error:
        assert str(error)
    else:
        assert isinstance(settings, PanelSettings)


# --- single changes ---


def test_an_axis_changes_one_setting_and_turns_its_section_on() -> None:
    before = from_dict({"features": {"enabled": False, "steps": "3"}})
    after = override(before, {"features.layers": "M00"})
    assert after == replace(before, features=replace(before.features, layers="M00", enabled=True))
    assert override(before, {"output.save": "false"}).output == OutputSettings(save=False)


def test_a_change_of_one_formula_keeps_the_others() -> None:
    before = from_dict({"features": {"color": {"formula": "v;v*v;1"}}})
    after = override(before, {"features.color.formula.0": "v/2"})
    assert after.features.color.formula == ("v/2", "v*v", "1")


def test_formulas_of_one_method_are_not_those_of_another() -> None:
    before = from_dict({"features": {"color": {"method": "hsl", "formula": "v;v*v;1"}}})
    assert override(before, {"features.color.method": "rgb"}).features.color.formula is None


@pytest.mark.parametrize("path", ["features.layer", "layers", "features", "features.color", ""])
def test_a_change_of_what_there_is_not_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="there is no"):
        override(PanelSettings(), {path: "M00"})


# --- parameters of an image ---

# As the webui reads them, and how it quotes values when it writes them.
WEBUI_PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
WEBUI_SIZE = re.compile(r"^(\d+)x(\d+)$")


def webui_writes(parameters: dict[str, Any]) -> str:
    """Write parameters into an image, after its prompt."""

    def quote(value: Any) -> Any:
        if all(sign not in str(value) for sign in ",\n:"):
            return value
        return json.dumps(value, ensure_ascii=False)

    line = ", ".join(key if key == value else f"{key}: {quote(value)}" for key, value in parameters.items())
    return f"a cat\nNegative prompt: a dog\n{line}".strip()


def webui_reads(text: str) -> dict[str, str]:
    """Read the last line of an image's parameters."""
    found: dict[str, str] = {}
    for key, value in WEBUI_PARAMETER.findall(text.strip().split("\n")[-1]):
        if not value:
            continue  # the webui prints an error, and goes on
        if value[0] == '"' and value[-1] == '"':
            with suppress(ValueError):
                value = json.loads(value)
        size = WEBUI_SIZE.match(value)
        if size is None:
            found[key] = value
        else:
            found[f"{key}-1"], found[f"{key}-2"] = size.groups()
    return found


def as_told(settings: PanelSettings) -> PanelSettings:
    """Return settings as in an image: without folders, and with defaults for sections that are off."""
    plain = PanelSettings()

    def without_dump(section: Any) -> Any:
        return replace(section, dump=DumpSettings(format=section.dump.format))

    features, attention, difference = (
        without_dump(section) for section in (settings.features, settings.attention, settings.difference)
    )
    if not settings.switch.enabled:
        attention = plain.attention
    return replace(
        settings,
        features=features if features.enabled else plain.features,
        attention=attention,
        difference=difference if difference.enabled and settings.layer_prompt.enabled else plain.difference,
    )


def pasted(parameters: dict[str, str], before: list[Any]) -> list[Any]:
    """Return the controls' values after pasting parameters."""
    values = [from_infotext(parameters, entry) for entry in ENTRIES]
    return [old if value is None else value for old, value in zip(before, values, strict=True)]


@given(PANELS)
def test_settings_come_back_from_an_image(settings: PanelSettings) -> None:
    told = to_infotext(settings)
    text = webui_writes({"Steps": 20, "Seed": 1, **told, "Version": "v1.10.1"})
    read = webui_reads(text)
    assert (read["Steps"], read["Seed"], read["Version"]) == ("20", "1", "v1.10.1")
    values = pasted(read, pack(PanelSettings()))
    assert unpack(values) == (as_told(settings) if told else PanelSettings())


@given(PANELS)
def test_an_image_tells_nothing_of_folders(settings: PanelSettings) -> None:
    path = "a-folder-of-this-computer"
    dump = DumpSettings(enabled=True, path=path)
    settings = replace(settings, features=replace(settings.features, enabled=True, dump=dump))
    told = to_infotext(settings)
    assert told
    assert all(path not in value for value in told.values())
    assert not any("dump enabled" in key or "dump path" in key for key in told)


def test_no_image_can_set_a_folder() -> None:
    before = pack(PanelSettings(features=FeatureSettings(dump=DumpSettings(path="mine"))))
    strange = {
        **{entry.key: "/etc" for entry in ENTRIES if entry.path[-1] == "path"},
        **{entry.key: "True" for entry in ENTRIES if entry.path[-2:] == ("dump", "enabled")},
        "Dump U-Net features enabled": "True",
    }
    settings = unpack(pasted(strange, before))
    assert settings.features.enabled
    assert settings.features.dump == DumpSettings(path="mine")
    assert not settings.difference.dump.enabled
    assert settings.attention.dump.path == ""


def test_defaults_and_what_is_off_are_not_told() -> None:
    assert to_infotext(PanelSettings()) == {}
    settings = from_dict({"features": {"layers": "M00", "steps": "1,5"}})
    assert to_infotext(settings) == {
        "Dump U-Net features enabled": "True",
        "Dump U-Net features layers": "M00",
        "Dump U-Net features steps": "1,5",
    }
    off = replace(settings, features=replace(settings.features, enabled=False))
    assert to_infotext(off) == {}


def test_a_page_that_begins_with_other_values_gets_those_of_the_image() -> None:
    """Settings that an image lacks are this project's defaults, not those of the page that it is pasted into."""
    page = PanelSettings(features=FeatureSettings(enabled=False, color=ColorSettings(method="red-blue")))
    told = to_infotext(from_dict({"features": {"layers": "M00"}}))
    values = [from_infotext(told, entry) for entry in entries(page)]
    settings = unpack([old if new is None else new for old, new in zip(pack(page), values, strict=True)])
    assert settings.features.color.method == "hsl"


def test_parameters_without_any_of_these_change_nothing() -> None:
    before = pack(from_dict({"features": {"layers": "M00"}}))
    assert pasted({"Steps": "20", "Script": "Dump U-Net", "Dump U-Nets": "1"}, before) == before


def test_parameters_of_another_version_are_left_at_their_defaults() -> None:
    told = {
        "Dump U-Net features enabled": "True",
        "Dump U-Net features average": "3-norm",
        "Dump U-Net features color gain": "1,5",
        "Dump U-Net attention kinds": "Q*K;Q*V",
        "Dump U-Net something": "new",
    }
    assert unpack(pasted(told, pack(PanelSettings()))) == PanelSettings(
        features=FeatureSettings(enabled=True)
    )


def test_keys_are_such_as_the_webui_reads() -> None:
    for entry in ENTRIES:
        assert re.fullmatch(r"Dump U-Net [\w \-/]+", entry.key)


@pytest.mark.parametrize("text", ["nan", "1e999", "-1e9", "low"])
def test_numbers_that_no_control_can_hold_fall_back_to_the_default(text: str) -> None:
    clamp = next(e for e in ENTRIES if e.path == ("features", "color", "clamp_min"))
    assert from_infotext({clamp.key: text}, clamp) == -1.0
