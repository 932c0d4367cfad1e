"""Draw text in pictures: choose a font that has the characters, and draw a line of text as a picture.

Pillow's own Latin font comes first, because it looks the same everywhere. For other scripts, the system's fonts are
tried by name. A character that no font has is drawn as a question mark, never as an empty box.
"""

from __future__ import annotations

import math
import unicodedata
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SYSTEM_FONTS = (
    # Latin, Greek and Cyrillic: Windows, macOS, Linux.
    "segoeui.ttf",
    "arial.ttf",
    "Helvetica.ttc",
    "DejaVuSans.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSans-Regular.ttf",
    # Chinese, Japanese and Korean.
    "YuGothM.ttc",
    "meiryo.ttc",
    "msgothic.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKjp-Regular.otf",
    "SourceHanSans-Regular.ttc",
    "ipaexg.ttf",
    "ipagp.ttf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    # Symbols.
    "seguisym.ttf",
    "Symbola.ttf",
)
_BUILT_IN = ""

# The last code point of Unicode, a permanent noncharacter: every font draws its glyph for missing characters.
_NOBODY = "\U0010ffff"


def font_for(text: str, size: int) -> Font:
    """Return the first font that has all characters of a text, or the one that lacks the fewest.

    Args:
        text: one line, in any script.
        size: pixels per em; ignored by the font of Pillow before 10.1.
    """
    characters = set(_one_line(text))
    best, fewest = _load(_BUILT_IN, size), math.inf
    for name in (_BUILT_IN, *SYSTEM_FONTS):
        font = _load(name, size)
        lacking = math.inf if font is None else sum(not has_glyph(font, c) for c in characters)
        if lacking < fewest:
            best, fewest = font, lacking
        if fewest == 0:
            break
    assert best is not None
    return best


def printable(text: str, font: Font) -> str:
    """Reduce a text to one line, with "?" for each character that the font lacks."""
    return "".join(c if has_glyph(font, c) else "?" for c in _one_line(text))


def shorten(text: str, font: Font, longest: int) -> str:
    """Cut a text to ``longest`` pixels, including an ellipsis; return "" if not even the ellipsis fits."""
    if font.getlength(text) <= longest:
        return text
    dots = "…" if has_glyph(font, "…") else "..."
    for count in range(min(len(text), longest), -1, -1):
        cut = text[:count].rstrip() + dots
        if font.getlength(cut) <= longest:
            return cut
    return ""


def text_image(text: str, size: int, *, longest: int, vertical: bool = False) -> Image.Image:
    """Draw one line of text, black on white.

    Args:
        text: in any script; characters that no font has are drawn as "?".
        size: pixels per em.
        longest: in pixels; longer text is cut, with an ellipsis.
        vertical: rotate by 90°, to read from bottom to top.

    Returns:
        a picture of mode L, as long as the text and as high as a line of the font; 0 pixels long for a blank text.
    """
    font = font_for(text, size)
    line = shorten(printable(text, font), font, longest)
    left, _, right, bottom = font.getbbox(line) if line else (0, 0, 0, 0)
    start = -min(0, math.floor(left))  # some glyphs extend to the left of their origin
    image = Image.new("L", (start + math.ceil(right), max(_thickness(font), math.ceil(bottom))), "white")
    if line:
        ImageDraw.Draw(image).text((start, 0), line, fill="black", font=font)
    return image.transpose(Image.Transpose.ROTATE_90) if vertical else image


@lru_cache(maxsize=4096)
def has_glyph(font: Font, character: str) -> bool:
    """Return whether a font has a character, by comparing it with a missing one; Pillow has no function for this."""
    return character == " " or _mask(font, character) != _mask(font, _NOBODY)


def _thickness(font: Font) -> int:
    """Return the height of a line of the font in pixels."""
    return sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else int(font.getbbox("x")[3])


def _mask(font: Font, character: str) -> tuple[tuple[int, int], bytes] | None:
    """Draw a character; None if the font cannot encode it, such as non-Latin-1 characters before Pillow 10.1."""
    try:
        mask = font.getmask(character, mode="L")
    except UnicodeError:
        return None
    return mask.size, bytes(mask)


@lru_cache(maxsize=256)
def _load(name: str, size: int) -> Font | None:
    """Open a system font by its file name, or Pillow's own font; None if it is missing."""
    if name == _BUILT_IN:
        return _load_built_in(size)
    try:
        # The other engine, Raqm, is often not installed, and fails on some control characters.
        return ImageFont.truetype(name, size, layout_engine=ImageFont.Layout.BASIC)
    except (OSError, ImportError):
        return None


def _load_built_in(size: int) -> Font:
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError):  # Pillow before 10.1, or built without FreeType
        return ImageFont.load_default()


def _one_line(text: str) -> str:
    """Compose accents, drop control characters and variation selectors, and join lines with spaces."""
    composed = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(c for c in composed if unicodedata.category(c) not in ("Cc", "Cf") and not _is_variant(c))


def _is_variant(character: str) -> bool:
    """Return whether a character is a variation selector, as used with emoji."""
    return "\ufe00" <= character <= "\ufe0f"
