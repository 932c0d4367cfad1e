"""This project accepts what the original extension's manual shows: its notations, labels and settings, literally."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import jinja2
import numpy as np
import pytest
from jinja2.ext import Extension

from lib_dumpunet.blocks import SD1
from lib_dumpunet.hosts.diffusers import families
from lib_dumpunet.hosts.diffusers.find import facts_of_config
from lib_dumpunet.hosts.diffusers.loading import block_table, unet_shell
from lib_dumpunet.image.colorize import colorize
from lib_dumpunet.image.expression import compile_channels
from lib_dumpunet.image.transform import transform
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.selection import select_blocks, select_steps
from lib_dumpunet.settings import METHODS, TRANSFORMS, ColorSettings, GenerateSettings
from lib_dumpunet.settings.json import from_dict
from lib_dumpunet.sinks.files import prepare_folder
from lib_dumpunet.ui.panel import build

MANUAL: dict[str, Any] = json.loads(Path(__file__).with_name("manual.json").read_text(encoding="utf-8"))


def plain(text: str) -> str:
    """Remove spaces at the ends and double spaces, as in the manual."""
    return " ".join(text.split())


# --- sampling and features ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["image", "steering"])
def test_sampling_settings(name: str) -> None:
    GenerateSettings(**{key: value for key, value in MANUAL[name].items() if key != "prompt"})


@pytest.mark.parametrize("features", MANUAL["outputs"])
def test_output_settings(features: Mapping[str, Any]) -> None:
    read = from_dict({"features": features}).features
    assert select_blocks(read.layers) == ("OUT11",)
    assert select_steps(read.steps, 20) == (20,)
    assert (read.color.transform, read.color.gain, read.color.offset) == ("sigmoid", 1, 0)


@pytest.mark.parametrize("text", MANUAL["blocks"])
def test_block_notation(text: str) -> None:
    assert list(select_blocks(text)) == MANUAL["blocks"][text]


def test_blocks_are_those_of_the_manual() -> None:
    assert list(SD1) == MANUAL["blocks"]["IN00-OUT11"]


def test_examples_of_features() -> None:
    examples = MANUAL["feature examples"]
    assert list(select_blocks(",".join(examples["layers"]))) == examples["layers"]
    assert select_steps(examples["steps"], 20) == (1, 5, 10)


def test_shapes_at_512_pixels() -> None:
    table = {row.block: row for row in block_table(unet_shell(families.SD1.unet).config, 512, 512)}
    for block, shape in MANUAL["shapes"].items():
        assert list(table[block].output) == shape
    for block in MANUAL["attention examples"]["layers"]:
        assert set(table[block].heads) == {MANUAL["attention examples"]["heads"]}


def test_examples_of_attention_have_attention() -> None:
    attending = facts_of_config(families.SD1.unet).attending
    assert set(MANUAL["attention examples"]["layers"]) <= set(attending)


# --- the panel ----------------------------------------------------------------------------------------------------


@pytest.fixture
def texts(one_event_loop: None) -> set[str]:
    """All labels and choices of the panel."""

    def no_model(width: int, height: int) -> Sequence[Any]:
        return []

    with gr.Blocks(analytics_enabled=False) as page:
        build("txt2img", no_model)
    found: set[str] = set()
    for block in page.blocks.values():
        found.add(str(getattr(block, "label", "")))
        found |= {str(name) for name, _ in getattr(block, "choices", None) or ()}
    return found


@pytest.mark.parametrize("section", MANUAL["labels"])
def test_labels_of_the_panel(section: str, texts: set[str]) -> None:
    assert set(MANUAL["labels"][section]) <= texts


def test_choices_of_the_panel(texts: set[str]) -> None:
    assert set(MANUAL["transforms"]) <= texts
    for method in MANUAL["methods"]:
        assert any(text.startswith(method) for text in texts)


# --- colours ------------------------------------------------------------------------------------------------------

VALUES = np.array([[[-8.0, -2.0, 0.0, 3.0, 8.0]]], dtype=np.float32)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("method", METHODS)
def test_ranges_of_transforms(name: str, method: str) -> None:
    color = ColorSettings(method=method, transform=name, clamp_min=-5, clamp_max=5)
    low = 0 if name == "auto01" or (method == "white-black" and name != "auto11") else -1
    result = transform(VALUES.reshape(1, -1), color)[0]
    assert result.min() == pytest.approx(low, abs=0.01)
    assert result.max() == pytest.approx(1, abs=0.01)


def test_white_is_where_the_size_is_large() -> None:
    grey = colorize(VALUES, ColorSettings(method="white-black", transform="sigmoid"))[0, 0]
    assert grey[0] == grey[-1] == 255
    assert grey[2] == 0


def test_red_is_large_and_blue_is_not() -> None:
    pixels = colorize(VALUES, ColorSettings(method="red-blue", transform="sigmoid"))[0, 0]
    assert pixels[-1].tolist() == [255, 0, 0]
    assert pixels[0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("method", ["rgb", "hsl"])
def test_formulas_see_values_and_are_clipped(method: str) -> None:
    for formula in MANUAL["formulas"]:
        compile_channels(ColorSettings(method=method, formula=(formula, formula, formula)))
    color = ColorSettings(method="rgb", transform="linear", formula=("abs(v)", "v+9", "v-9"))
    assert colorize(VALUES, color)[0, 0, 0].tolist() == [255, 255, 0]


def test_the_output_path_is_created(tmp_path: Path) -> None:
    prepare_folder(str(tmp_path / "not" / "there"))
    assert (tmp_path / "not" / "there").is_dir()


# --- per-block prompts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", MANUAL["prompts"], ids=lambda example: example["text"].replace("\n", " "))
def test_what_blocks_read(example: Mapping[str, Any]) -> None:
    template = parse_prompt(example["text"])
    for block in SD1:
        assert plain(template.text_for(block)) == example["read"].get(block, example["read"]["_"])


def test_blanks_of_a_text_stay() -> None:
    template = parse_prompt(MANUAL["as it is"]["text"])
    for block, text in MANUAL["as it is"]["read"].items():
        assert template.text_for(block) == text


class Prompts(Extension):
    """Dynamic Prompts' tag: each ``{% prompt %}`` is the prompt of an image."""

    tags = {"prompt"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        """Collect the text between the tags."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endprompt",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_keep"), [], [], body).set_lineno(line)

    def _keep(self, caller: Any) -> str:
        self.environment.kept.append(caller())
        return ""


def test_the_loop_of_dynamic_prompts() -> None:
    environment = jinja2.Environment(extensions=[Prompts])
    environment.kept = []
    environment.from_string(MANUAL["loop"]).render()
    assert len(environment.kept) == len(SD1)
    for block, prompt in zip(SD1, environment.kept, strict=True):
        template = parse_prompt(prompt)
        base = "a cute school girl, pink hair, wide shot, "
        assert template.erased == base
        assert [b for b in SD1 if template.text_for(b) == f"{base}bad anatomy"] == [block]


# --- the page -----------------------------------------------------------------------------------------------------


def test_the_page_of_the_manual_has_all_of_it(root: Path) -> None:
    page = (root / "docs" / "manual.md").read_text("utf-8")
    assert MANUAL["loop"] in page
    labels = [label for section in MANUAL["labels"].values() for label in section]
    for text in (*labels, *MANUAL["methods"], *MANUAL["transforms"], MANUAL["image"]["prompt"]):
        assert text in page
    for example in MANUAL["prompts"]:
        if "\n" not in example["text"] and not example["text"].startswith("(~: _"):
            assert example["text"] in page
    for block in MANUAL["feature examples"]["layers"]:
        assert f"manual-{block}.png" in page
    for block in MANUAL["attention examples"]["layers"]:
        assert f"manual-{block}-qk.png" in page
