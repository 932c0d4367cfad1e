"""Serve the panel on its own page, and print the URL; tests start it, with different versions of Gradio.

A button writes what the panel holds, so that a browser can see what a host would get.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1,localhost"}
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import gradio as gr  # noqa: E402

from lib_dumpunet.errors import DumpUNetError  # noqa: E402
from lib_dumpunet.settings.fields import unpack  # noqa: E402
from lib_dumpunet.ui.panel import build  # noqa: E402


@dataclass(frozen=True)
class Block:
    block: str
    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    heads: tuple[int, ...]


def info(width: int, height: int) -> Sequence[Block]:
    """Three blocks, a model that is not SD 1.x."""
    shape = (4, height // 8, width // 8)
    return [Block(name, "res+attn", shape, (32, *shape[1:]), (8,)) for name in ("IN00", "M00", "OUT00")]


def settings(*values: Any) -> str:
    """Write the settings, or the error in them."""
    try:
        return json.dumps(unpack(values), default=vars)
    except DumpUNetError as error:
        return str(error)


def main() -> None:
    style = (ROOT / "style.css").read_text(encoding="utf-8")
    script = (ROOT / "javascript" / "dumpunet.js").read_text(encoding="utf-8")
    new = int(gr.__version__.partition(".")[0]) >= 6  # where a page's style belongs to its launch
    look: dict[str, Any] = {"css": style, "head": f"<script>{script}</script>"}
    old: dict[str, Any] = {"css": style}
    with gr.Blocks(analytics_enabled=False, **({} if new else old)) as page:
        with gr.Row():
            width = gr.Slider(64, 2048, value=512, step=8, label="Width", elem_id="width")
            height = gr.Slider(64, 2048, value=512, step=8, label="Height", elem_id="height")
        panel = build("test", info, (width, height))
        button = gr.Button("Read", elem_id="read")
        answer = gr.Textbox(label="Settings", elem_id="answer")
        button.click(settings, inputs=panel.components, outputs=answer)
        if not new:
            page.load(None, None, None, _js=f"() => {{ {script} }}")
    with gr.Blocks():  # a throw-away page, as the webui's API makes one
        build("test", info)
    _, address, _ = page.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **(look if new else {})
    )
    print(address, flush=True)
    sys.stdin.read()  # until the test ends


if __name__ == "__main__":
    main()
