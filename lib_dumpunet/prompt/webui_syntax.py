"""Remove syntax that only the AUTOMATIC1111 webui understands from prompts, so that it is not taken for words.

The syntax: https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features, "Prompt editing", "Alternating
Words", "Composable Diffusion" and "Extra networks".
"""

from __future__ import annotations

import re
from typing import NamedTuple

# No bracket of either kind may begin or end inside the removed text, and a backslash escapes a bracket.
_INSIDE = r"(?:(?!\(~:|:~\))[^\[\]\\])*"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_KINDS = (
    re.compile(r"<\w+:[^<>]+>"),  # extra network
    re.compile(r"<(?:lora|lyco|hypernet):[^<>\s]*"),  # extra network without its closing >
    re.compile(rf"(?<!\\)\[{_INSIDE}:\s*{_NUMBER}\s*\]"),  # prompt editing
    re.compile(rf"(?<!\\)\[{_INSIDE}\|{_INSIDE}\]"),  # alternating words
)
_AND = re.compile(rf"\s*(?::\s*{_NUMBER})?\s*\bAND\b")
_LAST_WEIGHT = re.compile(rf"\s*:\s*{_NUMBER}\s*$")


class Stripped(NamedTuple):
    """A prompt without webui syntax, and the removed pieces."""

    text: str
    found: tuple[str, ...]


def strip_webui_syntax(prompt: str) -> Stripped:
    """Remove extra networks, prompt editing, alternating words, and ``AND`` with its weights from a prompt."""
    text, found = prompt, []
    before = None
    while text != before:  # the innermost of nested pieces are removed first
        before = text
        for kind in _KINDS:
            found += kind.findall(text)
            text = kind.sub("", text)
    if _AND.search(text):
        found += [match.strip() for match in _AND.findall(text)]
        text = _LAST_WEIGHT.sub("", _AND.sub("", text))
    return Stripped(text, tuple(dict.fromkeys(found)))
