"""Messages: what, where, and what to do instead."""

from __future__ import annotations

import pytest

from lib_dumpunet.errors import SettingsError, SourcePosition, cell_width


def test_message_has_field_problem_and_remedy() -> None:
    error = SettingsError("7 is odd", remedy="Use 8.", field="Width")
    assert str(error) == "Width: 7 is odd. Use 8."
    assert error.position is None


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("可愛い", 6), ("ｗ", 2), ("e\u0301", 1), ("", 0)])
def test_widths_are_those_of_a_terminal(text: str, width: int) -> None:
    assert cell_width(text) == width


def test_long_lines_are_cut_around_the_caret() -> None:
    quoted, caret = SourcePosition("x" * 500 + "!" + "y" * 500, 500).render().split("\n")
    assert len(quoted) < 140
    assert quoted[caret.index("^")] == "!"


def test_control_characters_do_not_move_the_caret() -> None:
    quoted, caret = SourcePosition("a\tb\r\x1b[31m!", 9).render().split("\n")
    assert quoted[caret.index("^")] == "!"
    assert "\x1b" not in quoted


def test_end_of_a_text_is_a_place() -> None:
    assert SourcePosition("ab\ncd", 5).render() == "  cd\n    ^"
    assert SourcePosition("", 0).render() == "  \n  ^"
