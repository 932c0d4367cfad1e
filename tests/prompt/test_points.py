"""Points of the image as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dumpunet.errors import SettingsError
from lib_dumpunet.prompt.points import parse_points


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("  ", []),
        ("0,0", ["0x0"]),
        (" 12,80 ", ["12x80"]),
        ("12, 80  3 ,4\n99,49", ["12x80", "3x4", "99x49"]),
        ("1,2 1,2 01,2", ["1x2"]),
    ],
)
def test_points(text: str, names: list[str]) -> None:
    assert [point.name for point in parse_points(text, (100, 100))] == names


def test_a_point_is_the_middle_of_its_pixel() -> None:
    (point,) = parse_points("50,10", (200, 40))
    assert point.place == (50.5 / 200, 10.5 / 40)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("12", 0, "a point is expected"),
        ("1,2 x", 4, "a point is expected"),
        ("1,2,3", 0, "a point is expected"),
        ("-1,2", 0, "a point is expected"),
        ("1,2 100,0", 4, "100,0 is outside the image of 100x50"),
        ("0,50", 0, "Use 0 to 99 and 0 to 49"),
        ("1234567,1", 0, "a point is expected"),
        (" ".join(f"{x},1" for x in range(65)), 310, "more than 64 points"),
    ],
)
def test_mistakes_have_their_place(text: str, position: int, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as error:
        parse_points(text, (100, 50))
    assert error.value.position == position
    assert error.value.field == "Points"


@given(st.text(alphabet="0123456789, \n-x", max_size=20))
def test_any_text_gives_points_or_a_place(text: str) -> None:
    try:
        points = parse_points(text)
    except SettingsError as error:
        assert error.position is not None
        assert 0 <= error.position <= len(text)
    else:
        assert all(0 < fraction < 1 for point in points for fraction in point.place)
