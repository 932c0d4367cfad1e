"""Text in pictures: a font that has the characters, and a row of text as a picture of its own.

Pillow brings a small Latin font, which looks the same everywhere, so it comes first. For all else the system's
fonts are tried by name. What no font has is drawn as a question mark, never as the empty box that fonts put there.
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

# The last code point of Unicode, which is reserved for ever: every font draws its sign for a missing character.
_NOBODY = "\U0010ffff"


def font_for(text: str, size: int) -> Font:
    """Choose the font that has all characters of a text, or else lacks the fewest; among equals the first counts.

    Args:
        text: one line, of any script.
        size: pixels of an em; ignored by the font of Pillow before 10.1.
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
    """Bring a text to one line of characters that the font has, with "?" for each that it lacks."""
    return "".join(c if has_glyph(font, c) else "?" for c in _one_line(text))


def shorten(text: str, font: Font, longest: int) -> str:
    """Cut a text to ``longest`` pixels, the ellipsis included; nothing is left if not even that fits."""
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
        text: of any script; what no font has is drawn as "?".
        size: pixels of an em.
        longest: pixels; more is cut off, with an ellipsis.
        vertical: turned by 90° so that it reads from bottom to top.

    Returns:
        a picture of mode L, as long as the text and as thick as a line of the font; of a blank text, 0 pixels long.
    """
    font = font_for(text, size)
    line = shorten(printable(text, font), font, longest)
    left, _, right, bottom = font.getbbox(line) if line else (0, 0, 0, 0)
    start = -min(0, math.floor(left))  # some letters begin left of where they are put
    image = Image.new("L", (start + math.ceil(right), max(_thickness(font), math.ceil(bottom))), "white")
    if line:
        ImageDraw.Draw(image).text((start, 0), line, fill="black", font=font)
    return image.transpose(Image.Transpose.ROTATE_90) if vertical else image


@lru_cache(maxsize=4096)
def has_glyph(font: Font, character: str) -> bool:
    """Return whether a font draws a character otherwise than one that no font has; Pillow shows no table of them."""
    return character == " " or _mask(font, character) != _mask(font, _NOBODY)


def _thickness(font: Font) -> int:
    """Return the height of a line in pixels, whatever is written on it."""
    return sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else int(font.getbbox("x")[3])


def _mask(font: Font, character: str) -> tuple[tuple[int, int], bytes] | None:
    """Draw a character; None where the font has no place for it, as that of Pillow before 10.1 beyond Latin-1."""
    try:
        mask = font.getmask(character, mode="L")
    except UnicodeError:
        return None
    return mask.size, bytes(mask)


@lru_cache(maxsize=256)
def _load(name: str, size: int) -> Font | None:
    """Open the system's font of that file name, or Pillow's own; None if there is none."""
    if name == _BUILT_IN:
        return _load_built_in(size)
    try:
        # The other engine, where it is installed at all, fails on some control characters.
        return ImageFont.truetype(name, size, layout_engine=ImageFont.Layout.BASIC)
    except (OSError, ImportError):
        return None


def _load_built_in(size: int) -> Font:
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError):  # Pillow before 10.1, or one that was built without FreeType
        return ImageFont.load_default()


def _one_line(text: str) -> str:
    """Compose accents, leave out what has no shape of its own, and join lines by blanks."""
    composed = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(c for c in composed if unicodedata.category(c) not in ("Cc", "Cf") and not _is_variant(c))


def _is_variant(character: str) -> bool:
    """Tell the marks that only choose between looks of the character before, such as of emoji."""
    return "\ufe00" <= character <= "\ufe0f"
