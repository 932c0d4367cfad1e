"""Choosing blocks and steps by text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dumpunet import SD1, SDXL, SettingsError, select_blocks, select_steps
from lib_dumpunet.blocks import BlockOrder, block_order, spans
from lib_dumpunet.prompt.selection import parse_steps

BLOCK_CASES = {
    "IN00": "IN00",
    "in00, m00 ,Out11": "IN00 M00 OUT11",
    "OUT11,IN00": "IN00 OUT11",
    "IN00,IN00,IN00-IN01": "IN00 IN01",
    "IN10-OUT01": "IN10 IN11 M00 OUT00 OUT01",
    "OUT01-IN10": "IN10 IN11 M00 OUT00 OUT01",
    "IN00-OUT11(+2)": "IN00 IN02 IN04 IN06 IN08 IN10 M00 OUT01 OUT03 OUT05 OUT07 OUT09 OUT11",
    "IN00-IN05(+1)": "IN00 IN01 IN02 IN03 IN04 IN05",
    "IN01-IN05(+2)": "IN01 IN03 IN05",
    "IN05-IN01(+3)": "IN01 IN04",
    "IN00-IN03(+99)": "IN00",
    "IN00-OUT03(+2),OUT10": "IN00 IN02 IN04 IN06 IN08 IN10 M00 OUT01 OUT03 OUT10",
    "\tM00\n-\u3000M00 (+ 7 ) ": "M00",
    "": " ".join(SD1),
    "  \n": " ".join(SD1),
}
BAD_BLOCKS = {
    "IN12": 0,
    "IN00,IN1": 5,
    "IN00-": 5,
    "-IN00": 0,
    "IN00,,IN01": 5,
    "IN00,": 5,
    "IN00 IN01": 5,
    "IN00(+2)": 4,
    "IN00-OUT11(+0)": 12,
    "IN00-OUT11(2)": 10,
    "IN00-OUT11(+)": 12,
    "IN00-OUT11(+2": 13,
    "_": 0,
    "5": 0,
    "all": 0,
    "ＩＮ00": 0,
    "IN00;M00": 4,
    "MID": 0,
}
STEP_CASES = {
    "5": [5],
    "1,5,10": [1, 5, 10],
    "5-20(+5)": [5, 10, 15, 20],
    "8-5": [5, 6, 7, 8],
    "18-": [18, 19, 20],
    "3,19 -": [3, 19, 20],
    "11-(+4)": [11, 15, 19],
    "20-,1": [1, 20],
    "20 , 1": [1, 20],
    "1,5-20(+5)": [1, 5, 10, 15, 20],
    "": list(range(1, 21)),
}
BAD_STEPS = {
    "0": 0,
    "1,0": 2,
    "-1": 0,
    "5-x": 2,
    "-": 0,
    "5-(+)": 4,
    "21-": 0,
    "1.5": 1,
    "x": 0,
    "1-5(+0)": 5,
    "0-5": 0,
    "21": 0,
    "30-40": 0,
}


@pytest.mark.parametrize("text", BLOCK_CASES)
def test_blocks(text: str) -> None:
    assert select_blocks(text, SD1) == tuple(BLOCK_CASES[text].split())


def test_ranges_follow_the_models_own_order() -> None:
    assert select_blocks("IN07-OUT00(+2)", SDXL) == ("IN07", "M00")
    without_middle = block_order(9, 9, middle=False)
    assert select_blocks("IN08-OUT00", without_middle) == ("IN08", "OUT00")


@pytest.mark.parametrize("text", BAD_BLOCKS)
def test_wrong_blocks_are_refused_at_their_place(text: str) -> None:
    with pytest.raises(SettingsError) as error:
        select_blocks(text, SD1)
    assert error.value.position == BAD_BLOCKS[text]
    assert str(error.value).startswith("Layers: ")


def test_unknown_block_is_told_with_what_there_is() -> None:
    with pytest.raises(SettingsError, match=r"no block IN11\. The model has IN00-IN08, M00, OUT00-OUT08\."):
        select_blocks("M00,IN11", SDXL)
    with pytest.raises(SettingsError, match=r"Did you mean OUT03\?"):
        select_blocks("out3", SD1)


@pytest.mark.parametrize("text", STEP_CASES)
def test_steps(text: str) -> None:
    assert select_steps(text, 20) == tuple(STEP_CASES[text])


@pytest.mark.parametrize("text", BAD_STEPS)
def test_wrong_steps_are_refused_at_their_place(text: str) -> None:
    with pytest.raises(SettingsError) as error:
        select_steps(text, 20)
    assert error.value.position == BAD_STEPS[text]


def test_steps_past_the_end_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert select_steps("15-30(+5)", 20) == (15, 20)
    assert "sampling takes 20 steps" in caplog.text
    caplog.clear()
    assert select_steps("15-20", 20) == (15, 16, 17, 18, 19, 20)
    assert not caplog.text


def test_choice_without_a_total_knows_its_members() -> None:
    choice = parse_steps("1,5-20(+5)")
    assert [n for n in range(30) if n in choice] == [1, 5, 10, 15, 20]
    assert 10**6 in parse_steps("")


def test_huge_numbers_are_quick() -> None:
    start = time.perf_counter()
    assert len(select_steps("1-999999999", 50)) == 50
    with pytest.raises(SettingsError, match="too large"):
        select_steps("1" * 10_000, 50)
    with pytest.raises(SettingsError):
        select_blocks("IN" + "0" * 100_000, SD1)
    assert time.perf_counter() - start < 1


@given(
    st.text(alphabet=st.sampled_from("INOUTMinm0123456789,-(+) _;\n\u3000あ"), max_size=40)
    | st.text(max_size=40)
)
def test_any_text_gives_a_choice_or_an_error_with_a_place(text: str) -> None:
    for read in (lambda: select_blocks(text, SD1), lambda: select_steps(text, 20)):
        try:
            result = read()
        except SettingsError as error:
            assert error.position is not None
            assert 0 <= error.position <= len(text)
            assert str(error)
        else:
            assert result


@given(st.sets(st.sampled_from(SD1.names), min_size=1))
def test_spans_read_back_as_the_same_blocks(blocks: set[str]) -> None:
    names = tuple(name for name in SD1 if name in blocks)
    assert select_blocks(spans(names), SD1) == names
    assert str(BlockOrder(names)) == spans(names)


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "IN00—IN05": "'—' is not allowed here. Write '-' instead.",
        "IN00–IN05": "'–' is not allowed here. Write '-' instead.",
        "IN00、M00": "'、' is not allowed here. Write ',' instead.",
        "IN00-\u200bIN05": "there is an invisible character here (U+200B). Delete it.",
        "ＩＮ00": "'ＩＮ00' is not allowed here. Write 'IN00' instead.",
    }.items(),
)
def test_what_only_looks_right_is_told(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        select_blocks(text)
    assert message in str(error.value)


def test_an_open_range_goes_past_no_end() -> None:
    assert parse_steps("11-").largest == 11
    assert not parse_steps("5-").goes_past(5)
    assert parse_steps("6-").goes_past(5)


def test_an_at_sign_may_stand_in_front_as_in_a_bracket() -> None:
    assert [step for step in range(1, 15) if step in parse_steps("@11-")] == [11, 12, 13, 14]
    with pytest.raises(SettingsError) as caught:
        parse_steps(" @1,x")
    assert caught.value.position == 4
