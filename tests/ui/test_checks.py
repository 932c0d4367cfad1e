"""Messages about a field's text, without a browser."""

from __future__ import annotations

import pytest

from lib_dumpunet.blocks import SD1
from lib_dumpunet.errors import PromptSyntaxError
from lib_dumpunet.ui import checks


@pytest.mark.parametrize("text", ["", "IN00", "in00-out11(+2), m00", " IN00 , IN01 "])
def test_right_layers_have_no_message(text: str) -> None:
    assert checks.check_layers(text, SD1, field="Layers") == ""


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (checks.check_layers("IN12", SD1, field="Layers"), "the model has no block IN12"),
        (checks.check_steps("0", field="Steps"), "Steps: there is no step 0"),
        (checks.check_points("1,2,3"), "Points: a point is expected here"),
        (checks.check_formula("v +", field="H"), "H: "),
        (checks.check_clamp(2.0, 1.0), "Clamp min.: 2 is not below Clamp max. 1"),
    ],
)
def test_a_mistake_has_the_cores_message(message: str, part: str) -> None:
    assert part in message


def test_attention_that_is_on_looks_at_something() -> None:
    assert "nothing is selected" in checks.check_attention(True, [], " ", "", "")
    assert checks.check_attention(False, [], "", "", "") == ""
    for something in (["self Q*K"], "", "", ""), ([], "cat", "", ""), ([], "", "*", ""), ([], "", "", "1,2"):
        assert checks.check_attention(True, *something) == ""


def test_blocks_that_read_the_same_are_together() -> None:
    prompt = "(~: M00: a ; IN00-OUT11(+2)@2-x: b :~)"
    with pytest.raises(PromptSyntaxError):
        checks.texts_of_blocks(prompt, SD1, 1)
    prompt = "a (~: M00*0.25: red ; IN01-IN02@2-5: blue :~) cat"
    first = checks.texts_of_blocks(prompt, SD1, 1)
    assert first == [
        ("IN00-IN11, OUT00-OUT11", (("a  cat", 1.0),)),
        ("M00", (("a  red  cat", 0.25), ("a  cat", 0.75))),
    ]
    assert [blocks for blocks, _ in checks.texts_of_blocks(prompt, SD1, 2)] == [
        "IN00, IN03-IN11, OUT00-OUT11", "IN01-IN02", "M00",
    ]  # fmt: skip


def test_what_is_empty_or_right_has_none() -> None:
    assert checks.check_steps("5-20(+5)", field="Steps") == ""
    assert checks.check_points("") == ""
    assert checks.check_formula(" ", field="H") == ""
    assert checks.check_formula("sin(v)", field="H") == ""
    assert checks.check_clamp(-1, 1) == ""
