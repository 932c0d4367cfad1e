"""Per-block prompts: the text that each block gets, and the positions of mistakes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dumpunet import SD1, SDXL, PromptSyntaxError, SettingsError, parse_prompt, select_blocks
from lib_dumpunet.prompt.template import Share

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))
RULE = "\n----\n"

# Prompt, base prompt, and what some blocks get, "M00@3" in step 3: a text, or texts with their weights.
CASES = [
    # the manual
    ("a (~: IN00-OUT11: cute ; M00: excellent :~) girl", "a  girl",
     {"M00": "a  excellent  girl", "M00@20": "a  excellent  girl", "IN05": "a  cute  girl", "OUT11": "a  cute  girl"}),
    ("a (~: IN00-OUT11: cute; M00: excellent :~) girl", "a  girl",
     {"M00": "a  excellent  girl", "IN00": "a  cute girl"}),
    ("(~: IN00: A ; IN01: B :~)", "", {"IN00": " A ", "IN01": " B ", "IN02": "", "M00": ""}),
    ("(~: IN00: A ; IN01: B ; IN02: C :~)", "", {"IN00": " A ", "IN02": " C ", "IN03": "", "OUT11": ""}),
    ("(~: IN00: A ; IN01: B ; IN02: C ; _ : D :~)", "", {"IN02": " C ", "M00": " D "}),
    ("(~: IN00,IN01: A ; M00 : B :~)", "", {"IN00": " A ", "IN01": " A ", "M00": " B ", "OUT00": ""}),
    ("(~: IN00-OUT11: A ; M00 : B :~)", "", {"IN00": " A ", "OUT11": " A ", "M00": " B "}),
    ("(~:\nIN00:prompt;\nM00:prompt two;\nOUT11:three;\n:~)", "",
     {"IN00": "prompt", "M00": "prompt two", "OUT11": "three", "IN01": ""}),
    ("a cute school girl, pink hair, wide shot, (~:IN05:bad anatomy:~)", "a cute school girl, pink hair, wide shot, ",
     {"IN05": "a cute school girl, pink hair, wide shot, bad anatomy",
      "IN04": "a cute school girl, pink hair, wide shot, "}),
    # what is named, and what wins
    ("(~: _ : D ; IN00: A :~)", "", {"IN00": " A ", "M00": " D "}),
    ("(~: _: a ; _: b :~)", "", {"M00": " b "}),
    ("(~: IN00-IN11(+2): x :~)", "", {"IN00": " x ", "IN01": "", "IN10": " x "}),
    ("(~: OUT11-IN00: x :~)", "", {"IN00": " x ", "M00": " x "}),
    ("(~: IN05-IN01(+3): x :~)", "", {"IN01": " x ", "IN04": " x ", "IN05": "", "IN02": ""}),
    ("(~: IN00-OUT11: x; IN05: y; IN05: z:~)", "", {"IN05": " z", "IN04": " x"}),
    ("(~: IN05: y; IN00-OUT11: x :~)", "", {"IN05": " x ", "IN04": " x "}),
    ("x (~: IN00: a :~) y (~: M00: b ; _: c :~) z", "x  y  z",
     {"IN00": "x  a  y  c  z", "M00": "x  y  b  z", "IN01": "x  y  c  z"}),
    ("(~:M00:a:~)(~:M00:b:~)", "", {"M00": "ab", "IN00": ""}),
    # the text, to the letter
    ("(~:IN00:A:~)", "", {"IN00": "A", "IN01": ""}),
    ("(~:IN00:A;:~)", "", {"IN00": "A"}),
    ("(~:IN00:A; :~)", "", {"IN00": "A"}),
    ("(~: M00: (cute:1.2), [a:b:0.5], 12:30 :~)", "", {"M00": " (cute:1.2), [a:b:0.5], 12:30 "}),
    ("(~: M00:0.5: x :~)", "", {"M00": "0.5: x "}),
    ("(~: M00: IN00*0.5@1-10: x :~)", "", {"M00": " IN00*0.5@1-10: x ", "IN00": ""}),
    (r"(~: M00: a\; b \(c\) \\ ; IN00: d:~)", "", {"M00": r" a; b \(c\) \\ ", "IN00": " d"}),
    ("(~: M00: :~)", "", {"M00": " "}),
    ("(~: M00::~)", "", {"M00": ""}),
    ("(~: M00:; IN00: x :~)", "", {"M00": "", "IN00": " x "}),
    ("", "", {"IN00": ""}),
    ("plain (text:1.1), ~ : ) (~ :", "plain (text:1.1), ~ : ) (~ :", {"M00": "plain (text:1.1), ~ : ) (~ :"}),
    ("M00*0.5@1-10: a; b", "M00*0.5@1-10: a; b", {"M00": "M00*0.5@1-10: a; b"}),
    ("a(~:\n  in00 -\tin02 : 可愛い\n女の子 ;\n  m00:ｗｉｄｅ\n:~)b", "ab",
     {"IN01": "a 可愛い\n女の子 b", "M00": "aｗｉｄｅ\nb", "OUT00": "ab"}),
    ("赤い(~:M00:丸；四角：星:~)。", "赤い。", {"M00": "赤い丸；四角：星。", "IN00": "赤い。"}),
    ("<lora:x:1> (~: M00: y :~)", "<lora:x:1> ", {"M00": "<lora:x:1>  y "}),
    ("((~: M00: y :~):1.3)", "(:1.3)", {"M00": "( y :1.3)", "IN00": "(:1.3)"}),
    ("[(~:M00:cat:~):dog:0.5] AND (x)", "[:dog:0.5] AND (x)", {"M00": "[cat:dog:0.5] AND (x)"}),
    # steps
    ("a(~:M00@3: b:~)", "a", {"M00@2": "a", "M00@3": "a b", "M00@4": "a", "IN00@3": "a"}),
    ("(~:M00@1-3:a; _:b:~)", "", {"M00@3": "a", "M00@4": "b", "IN00@3": "b"}),
    ("(~:M00@3-1:a:~)", "", {"M00@1": "a", "M00@3": "a", "M00@4": ""}),
    ("(~:M00@1,5-20(+5):a:~)", "",
     {"M00@1": "a", "M00@2": "", "M00@5": "a", "M00@6": "", "M00@20": "a", "M00@25": ""}),
    ("(~:M00@1, 5, IN00: a:~)", "", {"M00@5": " a", "M00@2": "", "IN00@2": " a", "IN00@5": " a"}),
    ("(~:M00@1\n,\n5 ,IN00@2:a:~)", "",
     {"M00@5": "a", "M00@2": "", "IN00@1": "", "IN00@2": "a", "IN00@5": ""}),
    ("(~: IN00-IN05(+5) @ 2 - 4 (+ 2 ) : a:~)", "",
     {"IN05@2": " a", "IN05@3": "", "IN05@4": " a", "IN04@2": "", "IN00@4": " a"}),
    ("(~:M00@1-10:a; M00@5-15:b:~)", "", {"M00@4": "a", "M00@5": "b", "M00@10": "b", "M00@15": "b", "M00@16": ""}),
    ("(~:M00@5-15:b; M00@1-10:a:~)", "", {"M00@4": "a", "M00@5": "a", "M00@10": "a", "M00@11": "b"}),
    ("(~:IN00-OUT11:x; M00@5:y:~)", "", {"M00@4": "x", "M00@5": "y", "IN00@5": "x"}),
    ("(~:M00@5:y; IN00-OUT11:x:~)", "", {"M00@5": "x"}),
    ("(~:_@1-10:a:~)", "", {"M00@10": "a", "M00@11": ""}),
    ("(~:_@1:a; _:b; IN00@2:c:~)", "", {"M00@1": "b", "IN00@2": "c", "IN00@1": "b"}),
    ("(~:_:b; _@1,3-4:a; IN00@2:c:~)", "", {"M00@1": "a", "M00@2": "b", "IN00@2": "c", "IN00@3": "a", "IN00@5": "b"}),
    # strengths
    ("a (~: M00*0.5: b :~) c", "a  c", {"M00": {"a  b  c": 0.5, "a  c": 0.5}, "IN00": "a  c"}),
    ("(~:M00*.25:b:~)", "", {"M00": {"b": 0.25, "": 0.75}}),
    ("(~:M00 * 1. :b; IN00*0:c; IN01*00.50:d:~)", "", {"M00": "b", "IN00": "", "IN01": {"d": 0.5, "": 0.5}}),
    ("(~:M00*2:b:~)", "", {"M00": {"b": 2, "": -1}}),
    ("(~:M00*10:b:~)", "", {"M00": {"b": 10, "": -9}}),
    ("(~:_*0.3:b; M00*0.6:c:~)", "", {"M00": {"c": 0.6, "": 0.4}, "IN00": {"b": 0.3, "": 0.7}}),
    ("(~:IN00-OUT11:b; M00*0.6:c:~)", "", {"M00": {"c": 0.6, "": 0.4}, "IN00": "b"}),
    ("(~:M00*0.3::~)x", "x", {"M00": "x"}),
    ("(~:M00*0.5:a:~) (~:M00*0.2:b:~)", " ", {"M00": {"a b": 0.1, "a ": 0.4, " b": 0.1, " ": 0.4}}),
    ("(~:M00*0.5:a:~)(~:M00*0.2:a:~)", "", {"M00": {"aa": 0.1, "a": 0.5, "": 0.4}}),
    ("(~:M00*0.5:a:~)(~:M00:b:~)(~:IN00*0.5:c:~)", "",
     {"M00": {"ab": 0.5, "b": 0.5}, "IN00": {"c": 0.5, "": 0.5}}),
    ("(~:M00*2:a:~)(~:M00*0.5:b:~)", "", {"M00": {"ab": 1, "a": 1, "b": -0.5, "": -0.5}}),
    # both
    ("(~: IN04*0.3, M00*0.8@1,5-20(+5), OUT03: t:~)", "",
     {"IN04@9": {" t": 0.3, "": 0.7}, "M00@10": {" t": 0.8, "": 0.2}, "M00@11": "", "OUT03@11": " t"}),
    ("(~: IN04-IN08(+2)*0.3 @ 2-3 :t:~)", "", {"IN06@2": {"t": 0.3, "": 0.7}, "IN06@1": "", "IN05@2": ""}),
    ("(~:M00*0.5@1-2:a; _*0.2@2-3:b:~)", "",
     {"M00@2": {"a": 0.5, "": 0.5}, "M00@3": {"b": 0.2, "": 0.8}, "M00@4": "", "IN00@1": ""}),
    ("(~:M00*0.5@1-2:a:~)(~:M00*0.5@2-3:b:~)", "",
     {"M00@1": {"a": 0.5, "": 0.5}, "M00@2": {"ab": 0.25, "a": 0.25, "b": 0.25, "": 0.25}, "M00@4": ""}),
]  # fmt: skip


def place(key: str) -> tuple[str, int]:
    """Parse "M00@3", and "M00" as step 1."""
    block, _, step = key.partition("@")
    return block, int(step or 1)


@pytest.mark.parametrize(("text", "base", "blocks"), CASES)
def test_each_block_gets_its_text(text: str, base: str, blocks: dict[str, str | dict[str, float]]) -> None:
    template = parse_prompt(text, SD1)
    assert template.erased == base
    assert template.has_brackets == ("(~:" in text)
    for key, wanted in blocks.items():
        shares = template.shares(*place(key))
        if isinstance(wanted, str):
            assert (key, shares) == (key, (Share(wanted, 1.0),))
        else:
            assert (key, [s.text for s in shares]) == (key, list(wanted))  # the order counts
            assert [s.weight for s in shares] == pytest.approx(list(wanted.values()), rel=1e-15)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_mistakes_are_told_as_agreed(path: Path) -> None:
    prompt, _, message = path.read_text(encoding="utf-8").removesuffix("\n").partition(RULE)
    with pytest.raises(PromptSyntaxError) as error:
        parse_prompt(prompt, SD1, field="Prompt")
    assert str(error.value) == message


def test_there_are_many_agreed_messages() -> None:
    assert len(GOLDEN) >= 25


@pytest.mark.parametrize("text", ["M00*0.5", "IN00, M00 *1@2", "M00 @1"])
def test_choice_of_blocks_knows_no_strength_and_no_steps(text: str) -> None:
    with pytest.raises(SettingsError, match=r"is not allowed here\. Expected ',', '-' or '\(\+'\.") as error:
        select_blocks(text, SD1)
    assert error.value.position == text.index("*" if "*" in text else "@")


def test_blocks_are_those_of_the_model() -> None:
    assert parse_prompt("(~: IN00-OUT08(+9): x :~)", SDXL).text_for("M00") == " x "
    with pytest.raises(PromptSyntaxError, match="no block IN09"):
        parse_prompt("(~: IN09: x :~)", SDXL)


@pytest.mark.parametrize(
    ("text", "heaviest"),
    [
        ("(~:M00*0.6:a:~)", "a"),
        ("(~:M00*0.4:a:~)", ""),
        ("(~:M00*0.5:a:~)", "a"),
        ("(~:M00*0.2:a:~)(~:M00*0.5:b:~)", "b"),
        ("(~:M00*2:a:~)", "a"),
    ],
)
def test_text_of_a_mixture_is_the_heaviest_or_the_more_steered(text: str, heaviest: str) -> None:
    assert parse_prompt(text, SD1).text_for("M00") == heaviest


def test_equal_templates_come_from_equal_prompts() -> None:
    one, same, other = (parse_prompt(f"(~: M00: {word} :~)", SD1) for word in "aab")
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != parse_prompt(one.source, SDXL)


def test_number_of_mixed_texts_has_a_limit() -> None:
    eight = "(~:M00*0.5:a:~)b" * 8
    assert len(parse_prompt(eight, SD1).shares("M00", 1)) == 2**8
    # What mixes nothing in this block, or is a text for certain, does not count.
    assert parse_prompt(f"{eight}(~:IN04*0.5:a:~)(~:M00*1:a:~)(~:M00*0:a:~)", SD1)
    with pytest.raises(PromptSyntaxError, match="more than 8 brackets mix texts in M00") as error:
        parse_prompt(f"{eight}(~:_*0.5:a:~)", SD1)
    assert error.value.position == len(eight)


WORDS = st.text("ab ,", max_size=4)
STRENGTHS = st.sampled_from(["", "*0", "*.3", "*0.7", "*1", "*2.5", "*10"])
STEPS = st.sampled_from(["", "@1", "@2-3", "@3,5-1(+2)", "@4"])
SPECS = st.sampled_from(["IN00", "M00", "IN00-OUT11", "IN00-OUT11(+2)", "_"])
PAIRS = st.tuples(SPECS, STRENGTHS, STEPS, WORDS)
PARTS = st.lists(WORDS | st.lists(PAIRS, min_size=1, max_size=4), max_size=4)
Pair = tuple[str, str, str, str]


def written(parts: list[str | list[Pair]], strength: str | None = None, steps: str | None = None) -> str:
    """Write a prompt; a strength or steps, if given, replace all others."""

    def pair(spec: str, own_strength: str, own_steps: str, text: str) -> str:
        return f"{spec}{own_strength if strength is None else strength}{own_steps if steps is None else steps}:{text}"

    return "".join(p if isinstance(p, str) else f"(~:{';'.join(pair(*q) for q in p)}:~)" for p in parts)


@given(PARTS, st.sampled_from(SD1.names), st.integers(1, 6))
def test_weights_add_up_to_1_and_texts_are_distinct(
    parts: list[str | list[Pair]], block: str, step: int
) -> None:
    shares = parse_prompt(written(parts), SD1).shares(block, step)
    assert math.isclose(math.fsum(share.weight for share in shares), 1, abs_tol=1e-9)
    assert all(share.weight for share in shares)
    assert len({share.text for share in shares}) == len(shares)


@given(PARTS, st.sampled_from(["IN00", "IN01", "M00"]), st.integers(1, 6))
def test_strength_1_and_all_steps_are_the_plain_notation(
    parts: list[str | list[Pair]], block: str, step: int
) -> None:
    plain, strong, always = (
        parse_prompt(written(parts, strength, steps), SD1)
        for strength, steps in [("", ""), ("*1", ""), ("", "@1-6")]
    )
    assert plain.shares(block, step) == (Share(plain.text_for(block), 1.0),)
    assert plain.shares(block, step) == strong.shares(block, step) == always.shares(block, step)


@given(PARTS, st.sampled_from(["IN00", "IN01", "M00"]), st.integers(1, 6))
def test_strength_0_and_steps_past_the_end_erase(
    parts: list[str | list[Pair]], block: str, step: int
) -> None:
    for strength, steps in [("*0", None), (None, "@7")]:
        template = parse_prompt(written(parts, strength, steps), SD1)
        assert template.shares(block, step) == (Share(template.erased, 1.0),)


@given(PARTS, STRENGTHS, st.sampled_from(["IN00", "M00"]), st.integers(1, 6))
def test_empty_text_is_the_erased_bracket_at_any_strength(
    parts: list[str | list[Pair]], strength: str, block: str, step: int
) -> None:
    emptied = [p if isinstance(p, str) else [(*q[:3], "") for q in p] for p in parts]
    template = parse_prompt(written(emptied, strength), SD1)
    assert template.shares(block, step) == (Share(template.erased, 1.0),)


@given(PARTS, st.sampled_from(["IN00", "IN01", "M00"]), st.integers(1, 6))
def test_item_outside_of_its_steps_is_as_if_not_written(
    parts: list[str | list[Pair]], block: str, step: int
) -> None:
    acting = {"": range(1, 7), "@1": [1], "@2-3": [2, 3], "@3,5-1(+2)": [1, 3, 5], "@4": [4]}
    remaining = [
        part if isinstance(part, str) else [pair for pair in part if step in acting[pair[2]]]
        for part in parts
    ]
    fewer = parse_prompt(written([part for part in remaining if part], steps=""), SD1)
    assert parse_prompt(written(parts), SD1).shares(block, step) == fewer.shares(block, step)


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
    "*",
    "@",
    "0.5",
    "1",
    "＊",
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


def test_many_brackets_of_no_strength_are_quick() -> None:
    template = parse_prompt("p" + "".join(f"(~:M00*0: {i} :~)" for i in range(60)))
    assert template.shares("M00", 1) == (Share("p", 1.0),)


def test_too_many_brackets_are_refused_at_the_first_too_many() -> None:
    one = "(~: M00: x :~)"
    parse_prompt(one * 500)
    with pytest.raises(PromptSyntaxError, match="more than 500 brackets") as error:
        parse_prompt(one * 501)
    assert error.value.position == 500 * len(one)
