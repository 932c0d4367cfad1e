"""Assemble a page: one HTML file with scripts, data and picture."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from PIL import Image

from lib_dumpunet.image.draw import png_bytes
from lib_dumpunet.image.grammar import as_data

GENERATOR = "Dump U-Net"
PICTURES: Sequence[tuple[int, int]] = ((1 << 20, 95), (1024, 90), (512, 80))
"""Longest side in pixels and JPEG quality, tried in this order if an image is too large as PNG."""
SCRIPTS = ("numbers.js", "syntax.js", "formula.js", "color.js", "data.js")
"""Independent scripts, each after those that it uses."""
VIEWS = (
    *("state.js", "paint.js", "maps.js", "blocks.js", "detail.js", "image.js", "words.js", "prompt.js"),
    *("controls.js", "colors.js", "start.js"),
)
"""The page's views, in files that share one scope."""


def read_code() -> dict[str, str]:
    """Return the files that all pages share, by name."""
    return {name: _read(name) for name in ("page.html", "page.css", *SCRIPTS, *VIEWS)}


def _read(name: str) -> str:
    return (resources.files("lib_dumpunet.explorer") / "page" / name).read_text(encoding="utf-8")


def grammar_script() -> str:
    """Return a script with the grammar of formulas, from the same data that the Python parser uses."""
    data = json.dumps(as_data(), separators=(",", ":")).replace("<", "\\u003c")
    return f"globalThis.DumpUNetGrammar = {data};\n"


def put_together(code: Mapping[str, str], data: Mapping[str, Any], blobs: Sequence[str]) -> str:
    """Join everything into one HTML file; data is escaped so that it cannot close its element."""
    prompt = " ".join(str(data["parameters"].get("Prompt", "")).split())
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    blobs = "\n".join(
        f'<script type="text/plain" id="blob-{number}">{blob}</script>' for number, blob in enumerate(blobs)
    )
    views = "\n".join(code[name] for name in VIEWS)
    own_scope = f'(function () {{\n"use strict";\n{views}}})();\n'
    sources = (grammar_script(), *(code[name] for name in SCRIPTS), own_scope)
    scripts = "\n".join(f"<script>\n{source}</script>" for source in sources)
    parts = {
        "title": html.escape(f"{prompt[:80]} - {GENERATOR}"),
        "style": f"<style>\n{code['page.css']}</style>",
        "data": f'<script type="application/json" id="data">{text}</script>\n{blobs}',
        "scripts": scripts,
    }
    page = code["page.html"]
    pieces: list[str] = []
    for name, part in parts.items():
        before, page = page.split(f"<!-- {name} -->")
        pieces += [before, part]
    return "".join([*pieces, page])


def encoded(picture: Image.Image | None, most: float) -> str:
    """Return the image as a data URL, as PNG, or as JPEG if that would exceed ``most`` bytes."""
    if picture is None:
        return ""
    data, kind = png_bytes(picture, {}), "png"
    for side, quality in PICTURES:
        if len(data) <= most:
            break
        small = picture.convert("RGB")
        small.thumbnail((side, side))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=quality)
        data, kind = file.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
