"""Serve the panel for its pictures: the page of the tests, with the blocks that the first line of stdin tells.

Started by make.py with the Gradio of the webui, where neither torch nor diffusers is installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial

from tests.ui import serve

if __name__ == "__main__":
    table = [
        serve.Block(row["block"], row["kind"], tuple(row["input"]), tuple(row["output"]), tuple(row["heads"]))
        for row in json.loads(sys.stdin.readline())
    ]

    def info(width: int, height: int) -> Sequence[serve.Block]:
        """Return the table, whatever the size: no picture shows another one."""
        return table

    def pages() -> str:
        """Return links to explorer pages, of which there are none."""
        return ""

    serve.info = info
    serve.build = partial(serve.build, pages=pages)
    serve.main()
