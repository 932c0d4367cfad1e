"""Per-block brackets in prompts that are not read per block: counted, erased, or reported."""

from __future__ import annotations

from typing import Any

from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.hosts.webui.host import tell
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.template import OPEN


def count_text(params: Any) -> None:
    """Make the page's token counter count the longest text that a block reads, without the bracket's syntax."""
    if OPEN in params.prompt:
        try:
            template = parse_prompt(params.prompt)
        except DumpUNetError:
            return
        params.prompt = max((template.text_for(block) for block in template.order), key=len)


def erased(text: str) -> str:
    """Erase brackets from a prompt; broken ones stay, and are reported elsewhere."""
    try:
        return parse_prompt(text).erased
    except DumpUNetError:
        return text


def warn_of_brackets(p: Any) -> None:
    """Warn under the gallery that brackets are read as plain text, because the job has no settings for them."""
    if any(OPEN in text for text in (*p.all_prompts, *p.all_negative_prompts)):
        tell(p, f"a prompt contains {OPEN}, but Enable Layer Prompt is off, so it is read as plain text.")
