"""Find the requested words among the tokens of several prompts."""

from __future__ import annotations

import pytest

from lib_dumpunet.errors import SettingsError
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.plan import plan_prompts
from lib_dumpunet.prompt.texts import Texts, Tokens, parse_words
from lib_dumpunet.prompt.words import Token


def tokens(text: str) -> Tokens:
    return (Token(mark="start"), *(Token(word.encode(), True) for word in text.split()), Token(mark="end"))


def test_each_block_has_the_columns_of_what_it_reads() -> None:
    cond = [parse_prompt("a (~: M00: red; _: blue :~)"), parse_prompt("a star")]
    plan = plan_prompts(cond, [parse_prompt("ugly")], ["IN04", "M00"], 2)
    names = ["a  red", "a  blue ", "a star", "ugly"]
    texts = Texts(plan, {name: tokens(name) for name in names}, tokens(""))
    assert texts.of("uncond") == [tokens("ugly")]
    assert set(texts.of("cond")) == {tokens(name) for name in ("a red", "a blue", "a star")}
    assert texts.columns(BatchRow(0, "cond"), "M00", 1, 4) == tokens("a red")
    assert texts.columns(BatchRow(0, "cond"), "IN04", 2, 6) == tokens("a blue") + tokens("")
    assert texts.columns(BatchRow(1, "cond"), "M00", 1, 4) == tokens("a star")
    assert texts.columns(BatchRow(7, "uncond"), "M00", 1, 3) == tokens("ugly")
    assert texts.columns(BatchRow(0, "cond"), "M00", 1, 5) == ()  # neither its own nor filled up
    assert Texts().columns(BatchRow(0, "cond"), "M00", 1, 5) == ()
    assert Texts().of("cond") == []


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("", ()),
        (" , ,", ()),
        ("*", ()),
        ("red  circle, star ,red circle", ("red circle", "star")),
        ("*, star", ()),
    ],
)
def test_phrases(text: str, phrases: tuple[str, ...]) -> None:
    assert parse_words(text, field="Words").phrases == phrases


def test_each_prompt_gives_the_words_that_it_has() -> None:
    choice = parse_words("red circle, star", field="Words")
    prompts = [tokens("a red circle"), tokens("a star")]
    choice.check(prompts)
    assert [[word.text for word in choice.find(prompt)] for prompt in prompts] == [["red circle"], ["star"]]
    assert [word.columns for word in choice.find(prompts[0])] == [(2, 3)]


@pytest.mark.parametrize(
    ("words", "prompts", "message"),
    [
        ("hat", ["a red circle", "a star"], r"^Words: 'hat' is not in the prompt.*red, circle, star"),
        ("circle a", ["a red circle", "a star"], "'circle a' is not"),  # half in each of two prompts
        ("", ["the", "of an"], "has only function words"),
        ("", [], "not known"),
        ("red", [], "not known"),
    ],
)
def test_mistakes(words: str, prompts: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_words(words, field="Words").check([tokens(prompt) for prompt in prompts])
