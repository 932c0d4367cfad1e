"""From a tensor to a picture, and from a picture to a PNG file's bytes."""

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
"""Bytes of a PNG file's signature and its first chunk, IHDR."""


def draw_features(tensor: Numbers, color: ColorSettings, ratio: float) -> Image.Image:
    """Draw all channels of a tensor "c h w" in one picture, near the shape ``ratio``, width by height.

    Raises:
        FormulaError: where a custom method's formula is not arithmetic on ``v``.
    """
    return grid(paint(tensor, color), ratio)


def png_bytes(image: Image.Image, info: dict[str, str]) -> bytes:
    """Encode a picture as PNG with a text chunk for each entry of ``info``.

    Keywords are plain Latin words, as PNG asks. Values go into a tEXt chunk where Latin-1 can hold them, else
    into iTXt (UTF-8); half a surrogate pair, which no encoding can hold, becomes a question mark.
    """
    buffer = io.BytesIO()
    # Colours change from pixel to pixel, so there is little for deflate to find but runs.
    image.save(buffer, "PNG", pnginfo=_text_chunks(info), compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def with_text(png: bytes, info: dict[str, str]) -> bytes:
    """Put text chunks into a PNG file's bytes, as ``png_bytes`` does, without encoding the picture again."""
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
