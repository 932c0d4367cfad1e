"""Labels: the font has the characters, question marks replace those that no font has, lengths are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import ImageFont

from lib_dumpunet.image import labels
from lib_dumpunet.image.labels import font_for, has_glyph, printable, shorten, text_image

Install = Callable[[dict[str, str]], None]


class FakeMask(bytes):
    """A text as Pillow draws it."""

    size = (1, 1)


class FakeFont:
    """A font that has some characters and draws all others as the same box."""

    def __init__(self, name: str, characters: str) -> None:
        self.name, self.characters = name, characters

    def getmask(self, text: str, mode: str) -> FakeMask:
        return FakeMask((text if text in self.characters else "box").encode())


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that replaces the system's fonts by others with the given names and characters."""
    truetype: Any = ImageFont.truetype

    def install(fonts: dict[str, str]) -> None:
        def find(name: Any, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(name, str):  # Pillow's own font comes out of memory
                return truetype(name, *args, **kwargs)
            if fonts[name] == "":
                raise OSError("cannot open resource")
            return FakeFont(name, fonts[name])

        monkeypatch.setattr(labels, "SYSTEM_FONTS", tuple(fonts))
        monkeypatch.setattr(ImageFont, "truetype", find)

    labels._load.cache_clear()
    yield install
    labels._load.cache_clear()


def test_latin_is_written_in_pillow_s_own_font(install: Install) -> None:
    install({"all": "a red circle<>0123"})
    assert not isinstance(font_for("a red circle <0123>", 11), FakeFont)


def test_the_first_font_that_has_all_is_taken(install: Install) -> None:
    install({"missing": "", "greek": "αβ", "japanese": "赤い丸a", "all": "αβ赤い丸a"})
    assert font_for("赤い丸", 11).name == "japanese"
    assert font_for("β a丸", 11).name == "all"


def test_the_font_that_lacks_the_fewest_is_taken_and_the_rest_is_questions(install: Install) -> None:
    install({"greek": "α", "more": "αβγ", "as many": "αβγ"})
    font = font_for("αβγδ", 11)
    assert font.name == "more"
    assert printable("αβγδ", font) == "αβγ?"


def test_without_a_font_text_is_questions_and_no_boxes(install: Install) -> None:
    install({})
    font = font_for("猫 cat", 11)
    assert printable("猫 cat", font) == "? cat"
    assert text_image("猫 cat", 11, longest=99) == text_image("? cat", 11, longest=99)


@pytest.mark.parametrize(
    "text", ["\ud800", "🙂", "\U0010ffff", "\ue000", "a\x00\r\n\tb", "\u2029", "e\u0301", "א"]
)
def test_any_text_can_be_drawn(text: str) -> None:
    image = text_image(text, 11, longest=99)
    assert image.mode == "L"
    assert image.height > 0


def test_a_label_is_one_line_without_invisible_characters(install: Install) -> None:
    install({})
    font = font_for("ab", 11)
    assert printable(" a\r\n\tb\u200b\ufe0f\x00 ", font) == "a b"


def test_accents_are_composed(install: Install) -> None:
    install({"hungarian": "ő"})
    font = font_for("o\u030b", 11)
    assert font.name == "hungarian"
    assert printable("o\u030b", font) == "ő"


def test_glyphs_are_told_from_the_sign_for_none(install: Install) -> None:
    font = font_for("a", 11)
    assert all(has_glyph(font, c) for c in " aZ0<>?,:-")
    assert not has_glyph(font, "猫")
    assert not has_glyph(font, "\U0010fffe")


def test_a_long_text_is_cut_to_the_length() -> None:
    text = "a very long title, longer than there is room for"
    font = font_for(text, 11)
    assert shorten(text, font, 1000) == text
    cut = shorten(text, font, 100)
    kept = cut.rstrip("….")
    assert cut != kept
    assert text.startswith(kept)
    assert font.getlength(cut) <= 100
    longer = text[: len(kept) + 2] + cut[len(kept) :]
    assert font.getlength(longer) > 100
    assert shorten(text, font, 1) == shorten(text, font, -5) == ""


def test_a_blank_is_no_missing_character(install: Install) -> None:
    install({"draws missing characters as blanks": "丸"})
    assert printable("丸 丸", font_for("丸 丸", 11)) == "丸 丸"


def test_all_lines_of_a_font_are_equally_thick() -> None:
    assert len({text_image(text, 11, longest=99).height for text in ("x", "gypsy", "Ab", "", "...")}) == 1


def test_the_picture_holds_all_of_the_text() -> None:
    image = text_image("red circle", 11, longest=1000)
    pixels = np.asarray(image)
    font = font_for("red circle", 11)
    assert abs(image.width - font.getlength("red circle")) <= 2
    assert (pixels < 128).sum() > 50
    assert (pixels[0] == 255).all()
    assert text_image("red circle and more", 11, longest=40).width <= 41


def test_vertical_text_reads_from_bottom_to_top() -> None:
    flat = np.asarray(text_image("red", 11, longest=99))
    upright = np.asarray(text_image("red", 11, longest=99, vertical=True))
    np.testing.assert_array_equal(upright, flat.T[::-1])


def test_a_blank_text_takes_no_room() -> None:
    assert text_image("  ", 11, longest=99).width == 0
    assert text_image("", 11, longest=99, vertical=True).height == 0
