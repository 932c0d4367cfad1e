"""Syntax that only the webui understands is found and removed; the rest is unchanged."""

from __future__ import annotations

import pytest

from lib_dumpunet.prompt.webui_syntax import strip_webui_syntax

CASES = {
    "a red circle <lora:foo:1>": ("a red circle ", ["<lora:foo:1>"]),
    "<hypernet:x:0.5>a <lyco:b c:1:2>": ("a ", ["<hypernet:x:0.5>", "<lyco:b c:1:2>"]),
    "a [red:blue:0.5] circle": ("a  circle", ["[red:blue:0.5]"]),
    "a [blue:10] [red::0.5]": ("a  ", ["[blue:10]", "[red::0.5]"]),
    "a [cat|dog|cow] b": ("a  b", ["[cat|dog|cow]"]),
    "a [x [b:c:0.3]:d:0.5] e": ("a  e", ["[b:c:0.3]", "[x :d:0.5]"]),
    "a cat AND a dog": ("a cat a dog", ["AND"]),
    "a cat :1.2 AND a dog:0.5": ("a cat a dog", [":1.2 AND"]),
    "[a|b] <lora:c:1> [a|b]": ("  ", ["<lora:c:1>", "[a|b]"]),
    "a (~: M00: [red:blue:5] :~) b": ("a (~: M00:  :~) b", ["[red:blue:5]"]),
    "可愛い<lora:絵:1>女の子": ("可愛い女の子", ["<lora:絵:1>"]),
}
KEPT = [
    "a (red:1.2) circle",
    "a [red] [[circle]]",
    r"a \[red:blue:0.5\]",
    "a BAND, android",
    "a < b > c, x:y",
    "time 10:30",
    "a (~: IN00*0.5@1-10: cute ; M00: [soft] :~) girl",
    "[a (~: IN00: b :~):0.5]",
]


@pytest.mark.parametrize("prompt", CASES)
def test_webui_syntax_is_taken_out(prompt: str) -> None:
    text, found = CASES[prompt]
    assert strip_webui_syntax(prompt) == (text, tuple(found))


@pytest.mark.parametrize("prompt", KEPT)
def test_all_else_stays(prompt: str) -> None:
    assert strip_webui_syntax(prompt) == (prompt, ())
