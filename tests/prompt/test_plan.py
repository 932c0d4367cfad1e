"""The plan of a request's prompts: main texts, texts to encode, and warnings."""

from __future__ import annotations

import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dumpunet import SD1, PromptSyntaxError, parse_prompt, select_blocks
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.prompt.plan import PromptPlan, plan_prompts
from lib_dumpunet.prompt.template import Share, Template

WITH = "IN01-IN02, IN04-IN05, IN07-IN08, M00, OUT03-OUT11"
ATTENDING = select_blocks(WITH, SD1)
SMALL = ("IN00", "M00", "OUT00")
"""A U-Net of three blocks, two of which have cross-attention: the middle and the last."""
COND = BatchRow(0, "cond")


def read(*prompts: str, field: str = "Prompt") -> list[Template]:
    return [parse_prompt(prompt, SD1, field=field) for prompt in prompts]


def sd1(*prompts: str, negative: tuple[str, ...] = (), steps: int = 4) -> PromptPlan:
    return plan_prompts(read(*prompts), read(*negative, field="Negative prompt"), ATTENDING, steps)


def small(prompt: str, steps: int = 4) -> PromptPlan:
    return plan_prompts([parse_prompt(prompt, SMALL)], [], ("M00", "OUT00"), steps)


@pytest.mark.parametrize(
    ("prompt", "main"),
    [
        ("girl", "girl"),
        ("", ""),
        ("girl (~: IN05: bad anatomy :~)", "girl "),
        ("a (~:IN00-OUT11:cute:~)", "a cute"),
        ("a (~:_:cute:~)", "a cute"),
        ("a (~:IN00-OUT11:cute; M00:fine:~)", "a cute"),
        ("a(~:IN00-IN11: b:~)", "a"),  # 6 of the 16
        ("a(~:IN00-M00: b; _: c:~)", "a c"),
        ("a(~:IN00-OUT03: b; _: c:~)", "a"),  # 8 to 8, though neither is the base prompt
        ("a(~:IN00-OUT03: b:~)", "a"),
        ("a(~:IN00-OUT04: b:~)", "a b"),
        ("a(~:IN00-OUT11*0: b:~)", "a"),
        ("a(~:IN00-OUT11*0.5: b:~)", "a"),
        ("a(~:IN00-OUT11*0.51: b:~)", "a b"),
        ("a(~:IN00-OUT11*0.49: b:~)", "a"),
        ("a(~:IN00-OUT11*2: b:~)", "a b"),
        ("a(~:IN00-OUT11@1-2: b:~)", "a"),
        ("a(~:IN00-OUT11@1-3: b:~)", "a b"),
        ("a(~:IN00-OUT11*0.6@1-3: b:~)", "a"),
        (
            "a(~:IN00,IN03,IN06,IN09-IN11,OUT00-OUT02,IN01: b:~)",
            "a",
        ),  # without cross-attention they have no vote
    ],
)
def test_main_text_is_that_of_most_blocks_and_steps(prompt: str, main: str) -> None:
    assert sd1(prompt).main(COND) == main


def test_rounding_makes_no_majority() -> None:
    # 1.1 + 2.2 is more than 3.3 in binary.
    assert small("a(~:M00*1.1@1: b; M00*2.2@2: b; OUT00*3.3@1: c:~)", steps=2).main(COND) == "a"
    assert small("a(~:M00*1.1@1: b; M00*2.2@2: b; OUT00*3.31@1: c:~)", steps=2).main(COND) == "a c"
    assert small("a(~:M00*0.1: b; OUT00*0.9: b:~)", steps=10).main(COND) == "a"
    assert small("a(~:M00*0.1: b; OUT00*0.91: b:~)", steps=10).main(COND) == "a b"


def test_main_text_where_no_block_has_cross_attention_is_the_base_prompt() -> None:
    plan = plan_prompts(read("a(~:_: b:~)"), [], (), 4)
    assert plan.main(COND) == "a"
    assert plan.texts("cond") == ("a",)
    assert plan.steered == ()


def test_blocks_read_what_the_template_says() -> None:
    plan = sd1("a(~:M00*0.25@2: b:~)")
    assert plan.shares(COND, "M00", 1) == (Share("a", 1.0),)
    assert plan.shares(COND, "M00", 2) == (Share("a b", 0.25), Share("a", 0.75))
    assert plan.shares(COND, "IN01", 2) == (Share("a", 1.0),)
    assert plan.text(COND, "M00", 2) == "a"
    assert sd1("a(~:M00*0.5: b:~)").text(COND, "M00", 1) == "a b"


def test_images_have_their_own_prompts() -> None:
    plan = sd1("x", "a(~:M00: b:~)", "x", negative=("n(~:IN05: o:~)",))
    assert [plan.main(BatchRow(i, "cond")) for i in range(3)] == ["x", "a", "x"]
    assert [plan.text(BatchRow(i, "cond"), "M00", 1) for i in range(3)] == ["x", "a b", "x"]
    assert {plan.text(BatchRow(i, "uncond"), "IN05", 1) for i in range(9)} == {"n o"}
    assert plan.texts("cond") == ("x", "a", "a b")
    assert plan.texts("uncond") == ("n", "n o")
    assert plan.steered == ("IN05", "M00")
    assert plan.has_brackets


def test_without_guidance_there_are_no_negative_texts() -> None:
    plan = sd1("a", "b")
    assert plan.texts("uncond") == ()
    assert plan.texts("cond") == ("a", "b")
    assert not plan.has_brackets
    assert plan.steered == ()


def test_brackets_of_the_negative_prompt_count_too() -> None:
    plan = sd1("a", negative=("(~:M00:b:~)",))
    assert plan.has_brackets
    assert plan.steered == ("M00",)


def test_texts_are_main_texts_and_then_in_order_of_use() -> None:
    plan = sd1("(~:_:z; OUT11:o; IN01@3:late; IN02:i; M00*0.5:m:~)", "y(~:OUT03: p:~)")
    assert plan.texts("cond") == ("z", "y", "i", "m", "", "y p", "o", "late")


def test_texts_that_no_block_with_cross_attention_reads_are_not_needed() -> None:
    # Nor is the base prompt "a", as every such block gets "a c".
    assert sd1("a(~:IN00: b; _: c:~)").texts("cond") == ("a c",)
    assert sd1("a(~:M00*0: b:~)").texts("cond") == ("a",)
    assert sd1("a(~:M00@5-6,1: b:~)", steps=1).texts("cond") == ("a", "a b")


def test_steered_blocks_get_something_else_in_some_step() -> None:
    assert sd1("a(~:OUT11@4: b; IN00-IN02: c; M00*0: d; IN04: :~)").steered == (
        "IN01",
        "IN02",
        "IN04",
        "OUT11",
    )
    assert sd1("a(~:IN00-OUT11: b:~)").steered == ()
    assert sd1("a(~:IN00-OUT11: b; _*0.1: c:~)").steered == ()
    assert sd1("a(~:_: b; IN05*0.9: b:~)").steered == ("IN05",)


def test_step_choice_that_ends_late_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    prompt = "(~:M00*0.5@1-30: x; IN04@3: y; _@9,2: z:~)"
    plan = sd1(prompt, prompt, prompt)
    assert [record.getMessage() for record in caplog.records] == [
        "Prompt: steps past the end are left out of M00*0.5@1-30, _@9,2; sampling takes 4 steps"
    ]
    assert plan.texts("cond") == ("", " x", " z", " y")


def test_last_step_is_not_past_the_end(caplog: pytest.LogCaptureFixture) -> None:
    sd1("(~:M00@1-4: x; IN04@2-5(+2): y:~)")
    assert not caplog.records


@pytest.mark.parametrize(
    ("prompt", "position"),
    [
        ("(~: M00@5: x :~)", 8),
        ("a (~: M00: x ; IN04*0.5@ 5-9(+2): y :~)", 25),
        ("(~: M00@1-4: x ; _@ 9,7: y :~)", 20),
    ],
)
def test_steps_of_which_none_is_left_are_a_mistake(
    prompt: str, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PromptSyntaxError) as error:
        sd1("fine (~:M00@1-9,2: x:~)", prompt)
    assert error.value.position == position
    message, line, _ = str(error.value).split("\n")
    assert message == "Prompt: no step is left, as sampling takes 4. Choose steps from 1 to 4."
    assert line == f"  {prompt}"
    assert not caplog.records  # a mistake ends it all, so nothing else is told


@pytest.mark.parametrize(
    ("prompt", "blocks"),
    [
        ("(~: IN00: x :~)", "IN00"),
        ("(~: OUT00, M00, IN03: x :~)", "IN03, OUT00"),
        ("(~: IN00-OUT11: x ; IN09: y ; IN10: z :~)", "IN09-IN10"),
        ("(~: IN00: x ; IN00-OUT11: y :~)", "IN00"),  # named, though it does not get that text
        ("(~: IN09-IN11: x :~)", "IN09-IN11"),
        ("(~: IN01: x ; IN09-IN11: y :~)", "IN09-IN11"),
        ("(~: IN01-IN02: x :~) (~: OUT00-OUT02: x :~)", "OUT00-OUT02"),  # another place of the prompt
        ("(~: IN06*0.5@1-2: x :~)", "IN06"),
        ("(~: IN01-OUT11: x ; _: y :~)", "IN00"),
        ("(~: IN00-OUT11: x ; IN09-IN11: y ; IN04: y :~)", ""),
        ("(~: IN00-OUT11: x :~)", ""),
        ("(~: _: x :~)", ""),
        ("(~: IN06-IN07: x :~)", ""),
        ("(~: M00: x ; _: y :~)", ""),
        ("plain", ""),
    ],
)
def test_text_for_blocks_without_cross_attention_is_warned_of(
    prompt: str, blocks: str, caplog: pytest.LogCaptureFixture
) -> None:
    sd1(prompt, "other", prompt)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        f"Prompt: no cross-attention in {blocks}, so the text given there is not used. "
        f"Blocks with cross-attention: {WITH}."
    ] * bool(blocks)
    assert all(record.name == "dumpunet" for record in caplog.records)


def test_all_prompts_of_a_field_are_warned_of_at_once(caplog: pytest.LogCaptureFixture) -> None:
    sd1("(~:IN00:x:~)", "(~:IN03:x:~)", negative=("(~:IN00:x:~)",))
    assert [record.getMessage().partition(", so")[0] for record in caplog.records] == [
        "Prompt: no cross-attention in IN00, IN03",
        "Negative prompt: no cross-attention in IN00",
    ]


def test_blocks_and_their_order_are_those_of_the_model(caplog: pytest.LogCaptureFixture) -> None:
    plan = small("a(~:IN00-M00: b; OUT00@2-4: c:~)")
    assert plan.main(COND) == "a b"
    assert plan.texts("cond") == ("a b", "a", "a c")
    assert plan.steered == ("OUT00",)
    assert not caplog.records
    plan_prompts([parse_prompt("(~:IN00:b:~)", SMALL)], [], (), 4)
    assert "Blocks with cross-attention: none." in caplog.text


PAIRS = st.tuples(
    st.sampled_from(["IN00", "M00", "IN00-OUT00", "_"]),
    st.sampled_from(["", "*0", "*0.4", "*3"]),
    st.sampled_from(["", "@1", "@2-3"]),
    st.sampled_from(["", "a", "b"]),
)


@given(st.lists(st.lists(PAIRS, min_size=1, max_size=3), max_size=2))
def test_texts_are_just_what_is_used(brackets: list[list[tuple[str, str, str, str]]]) -> None:
    prompt = "p" + "".join(
        f"(~:{';'.join(f'{b}{s}{n}:{t}' for b, s, n, t in pairs)}:~)" for pairs in brackets
    )
    logging.disable(logging.WARNING)
    try:
        plan = small(prompt)
    finally:
        logging.disable(logging.NOTSET)
    texts = plan.texts("cond")
    template = plan.cond[0]
    used = {s.text for b in ("M00", "OUT00") for n in range(1, 5) for s in template.shares(b, n)}
    assert texts[0] == plan.main(COND)
    assert len(set(texts)) == len(texts)
    assert set(texts) == used | {plan.main(COND)}
    assert all(plan.shares(COND, b, n) == template.shares(b, n) for b in SMALL for n in range(1, 6))


def test_many_mixed_texts_and_steps_are_quick() -> None:
    start = time.perf_counter()
    plan = sd1("".join(f"(~:_*0.{i}@1-999: {i}:~)" for i in range(1, 9)), steps=1000)
    assert len(plan.texts("cond")) == 2**8
    for step in range(1, 1001):
        for block in SD1:
            assert len(plan.shares(COND, block, step)) == (2**8 if step < 1000 else 1)
    assert time.perf_counter() - start < 20


def test_the_plain_plan_has_no_brackets() -> None:
    plan = plan_prompts(
        [parse_prompt("a (~: M00*0.5@1: x ; _: y :~) b"), parse_prompt("c")],
        [parse_prompt("d(~:_: e:~)")],
        ["IN04", "M00"],
        2,
    )
    plain = plan.plain
    assert (plain.texts("cond"), plain.texts("uncond")) == (("a  b", "c"), ("d",))
    assert plain.steered == ()
    assert not plain.has_brackets
    assert plain.plain == plain
