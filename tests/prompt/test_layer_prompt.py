"""Per-block prompts: the text that each block gets, and where a wrong one is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dumpunet import SD1, SDXL, PromptSyntaxError, parse_prompt

# prompt, base prompt, and the text of some blocks
CASES = [
    ("a (~: IN00-OUT11: cute ; M00: excellent :~) girl", "a  girl",
     {"M00": "a  excellent  girl", "IN05": "a  cute  girl", "OUT11": "a  cute  girl"}),
    ("(~: IN00: A ; IN01: B :~)", "", {"IN00": " A ", "IN01": " B ", "IN02": "", "M00": ""}),
    ("(~: IN00: A ; IN01: B ; IN02: C ; _ : D :~)", "", {"IN02": " C ", "M00": " D "}),
    ("(~: _ : D ; IN00: A :~)", "", {"IN00": " A ", "M00": " D "}),
    ("(~: IN00,IN01: A ; M00 : B :~)", "", {"IN00": " A ", "IN01": " A ", "M00": " B ", "OUT00": ""}),
    ("(~:IN00:A:~)", "", {"IN00": "A", "IN01": ""}),
    ("(~:IN00:A;:~)", "", {"IN00": "A"}),
    ("(~:IN00:A; :~)", "", {"IN00": "A"}),
    ("(~: IN00-IN11(+2): x :~)", "", {"IN00": " x ", "IN01": "", "IN10": " x "}),
    ("(~: OUT11-IN00: x :~)", "", {"IN00": " x ", "M00": " x "}),
    ("(~: IN00-OUT11: x; IN05: y; IN05: z:~)", "", {"IN05": " z", "IN04": " x"}),
    ("x (~: IN00: a :~) y (~: M00: b ; _: c :~) z", "x  y  z",
     {"IN00": "x  a  y  c  z", "M00": "x  y  b  z", "IN01": "x  y  c  z"}),
    ("(~: M00: (cute:1.2), [a:b:0.5], 12:30 :~)", "", {"M00": " (cute:1.2), [a:b:0.5], 12:30 "}),
    (r"(~: M00: a\; b \(c\) \\ ; IN00: d:~)", "", {"M00": r" a; b \(c\) \\ ", "IN00": " d"}),
    ("(~: M00: :~)", "", {"M00": " "}),
    ("(~: M00::~)", "", {"M00": ""}),
    ("(~: M00:; IN00: x :~)", "", {"M00": "", "IN00": " x "}),
    ("", "", {"IN00": ""}),
    ("plain (text:1.1), ~ : ) (~ :", "plain (text:1.1), ~ : ) (~ :", {"M00": "plain (text:1.1), ~ : ) (~ :"}),
    ("a(~:\n  in00 -\tin02 : 可愛い\n女の子 ;\n  m00:ｗｉｄｅ\n:~)b", "ab",
     {"IN01": "a 可愛い\n女の子 b", "M00": "aｗｉｄｅ\nb", "OUT00": "ab"}),
    ("<lora:x:1> (~: M00: y :~)", "<lora:x:1> ", {"M00": "<lora:x:1>  y "}),
    ("((~: M00: y :~):1.3)", "(:1.3)", {"M00": "( y :1.3)", "IN00": "(:1.3)"}),
]  # fmt: skip

# prompt, position of the mistake, a part of the message
WRONG = [
    ("a (~: IN00 cute :~)", 11, "':'"),
    ("(~: IN00 :~) girl", 9, "':'"),
    ("(~: IN00: a (~: IN01: b :~) :~)", 12, "do not nest"),
    ("a :~) b", 2, "closes nothing"),
    ("a (~: IN00: x :~) :~)", 18, "closes nothing"),
    ("女の子 (~: IN00: 可愛い ; IN99: x :~)", 20, "no block IN99"),
    ("(~: IN00: a", 0, "not closed"),
    ("x (~: IN00: a :~) (~: M00", 18, "not closed"),
    ("(~:", 0, "not closed"),
    ("(~::~)", 3, "a block such as"),
    ("(~: :~)", 4, "a block such as"),
    ("(~: ; IN00: a :~)", 4, "a block such as"),
    ("(~: IN00: a ;; M00: b :~)", 13, "a block such as"),
    ("(~: IN00, _: a :~)", 10, "a block such as"),
    ("(~: _, IN00: a :~)", 5, "':'"),
    ("(~: IN00-: a :~)", 9, "a block such as"),
    ("(~: IN00-IN05(+0): a :~)", 15, "advance by 0"),
    ("(~: IN5: a :~)", 4, "Did you mean IN05?"),
    ("(~: cute :~)", 4, "a block such as"),
    ("(~: M00: a <lora:x:1> :~)", 11, "<lora:x:1> cannot be given per block"),
    ("(~: M00: a <hypernet:y> :~)", 11, "whole U-Net"),
]


@pytest.mark.parametrize(("text", "base", "blocks"), CASES)
def test_each_block_gets_its_text(text: str, base: str, blocks: dict[str, str]) -> None:
    template = parse_prompt(text, SD1)
    assert template.erased == base
    assert {block: template.text_for(block) for block in blocks} == blocks
    assert template.has_brackets == (base != text)


@pytest.mark.parametrize(("text", "position", "message"), WRONG)
def test_mistakes_are_told_at_their_place(text: str, position: int, message: str) -> None:
    with pytest.raises(PromptSyntaxError) as error:
        parse_prompt(text, SD1)
    assert error.value.position == position
    assert message in str(error.value)


def test_caret_stands_under_the_character_whatever_its_width() -> None:
    with pytest.raises(PromptSyntaxError) as error:
        parse_prompt("first line\n可愛い (~: IN77: x :~)", SD1, field="Prompt")
    assert str(error.value).split("\n") == [
        "Prompt: the model has no block IN77. The model has IN00-IN11, M00, OUT00-OUT11.",
        "  可愛い (~: IN77: x :~)",
        " " * 13 + "^",
    ]


def test_blocks_are_those_of_the_model() -> None:
    assert parse_prompt("(~: IN00-OUT08(+9): x :~)", SDXL).text_for("M00") == " x "
    with pytest.raises(PromptSyntaxError, match="no block IN09"):
        parse_prompt("(~: IN09: x :~)", SDXL)


PIECES = [
    "(~:",
    ":~)",
    ";",
    ":",
    ",",
    "-",
    "(+2)",
    "_",
    "IN00",
    "M00",
    "out11",
    " ",
    "\n",
    "あ",
    "\\",
    "x",
    "<lora:a:1>",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=60))
def test_any_text_gives_a_template_or_an_error_with_a_place(text: str) -> None:
    try:
        template = parse_prompt(text, SD1)
    except PromptSyntaxError as error:
        assert error.position is not None
        assert 0 <= error.position <= len(text)
        assert str(error)
    else:
        assert template.has_brackets or template.text_for("M00") == template.erased == text


def test_long_prompts_are_read_quickly() -> None:
    text = "word, " * 20_000 + "(~: M00: x :~)"
    assert parse_prompt(text, SD1).text_for("M00").endswith(" x ")
