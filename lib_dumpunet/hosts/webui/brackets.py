"""Per-block brackets in prompts that nobody reads per block: counted, erased, or warned of."""

from __future__ import annotations

from typing import Any

from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.hosts.webui.host import tell
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.template import OPEN


def count_text(params: Any) -> None:
    """Let the page's token counter count the longest text that a block reads, not the notation around it."""
    if OPEN in params.prompt:
        try:
            template = parse_prompt(params.prompt)
        except DumpUNetError:
            return
        params.prompt = max((template.text_for(block) for block in template.order), key=len)


def erased(text: str) -> str:
    """Take brackets out of a prompt; a broken one stays, and is told elsewhere."""
    try:
        return parse_prompt(text).erased
    except DumpUNetError:
        return text


def warn_of_brackets(p: Any) -> None:
    """Say under the gallery that brackets of a job are read as text, as nobody asked for texts per block."""
    if any(OPEN in text for text in (*p.all_prompts, *p.all_negative_prompts)):
        tell(p, f"a prompt holds {OPEN}, but Enable Layer Prompt is not on, so it is read as plain text.")
