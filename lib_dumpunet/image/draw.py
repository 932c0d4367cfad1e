"""Draw a tensor as a picture, and encode a picture as PNG."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

from PIL import Image, PngImagePlugin

from lib_dumpunet.image.colorize import paint
from lib_dumpunet.image.grid import grid
from lib_dumpunet.settings import ColorSettings

if TYPE_CHECKING:
    from lib_dumpunet.image.colorize import Numbers

AFTER_HEADER = 8 + 25
"""Size in bytes of a PNG file's signature and its first chunk, IHDR."""


def draw_features(tensor: Numbers, color: ColorSettings, ratio: float) -> Image.Image:
    """Draw all channels of a tensor "c h w" as a grid, with an aspect ratio (width by height) near ``ratio``.

    Raises:
        FormulaError: if a custom method's formula is not arithmetic on ``v``.
    """
    return grid(paint(tensor, color), ratio)


def png_bytes(image: Image.Image, info: dict[str, str]) -> bytes:
    """Encode a picture as PNG with a text chunk for each entry of ``info``.

    Keywords must be Latin-1, as PNG requires. A value goes into a tEXt chunk if Latin-1 can encode it, else into iTXt
    (UTF-8); a lone surrogate, which no encoding allows, becomes a question mark.
    """
    buffer = io.BytesIO()
    # Colours change from pixel to pixel, so deflate finds little but runs.
    image.save(buffer, "PNG", pnginfo=_text_chunks(info), compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def with_text(png: bytes, info: dict[str, str]) -> bytes:
    """Insert text chunks into a PNG file's bytes, as ``png_bytes`` does, without re-encoding the picture."""
    # Portable Network Graphics (PNG) Specification, 5.3: length, name, data, CRC of name and data.
    chunks = b"".join(
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
        for name, data, *_ in _text_chunks(info).chunks
    )
    return png[:AFTER_HEADER] + chunks + png[AFTER_HEADER:]


def _text_chunks(info: dict[str, str]) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for keyword, value in info.items():
        chunks.add_text(keyword, value.encode("utf-8", "replace").decode("utf-8"))
    return chunks
