"""Look inside a Stable Diffusion U-Net, block by block.

``trace`` and ``steer`` are for notebooks. They are imported on first use, because they need the extra
``diffusers`` and the core does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lib_dumpunet.blocks import SD1, SDXL, BlockOrder
from lib_dumpunet.errors import DumpUNetError, FormulaError, HostError, PromptSyntaxError, SettingsError
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.selection import select_blocks, select_steps
from lib_dumpunet.prompt.template import Template

if TYPE_CHECKING:
    from lib_dumpunet.hosts.diffusers.steered import steer
    from lib_dumpunet.hosts.diffusers.trace import trace

__version__ = "0.1.0"
__all__ = [
    "SD1",
    "SDXL",
    "BlockOrder",
    "DumpUNetError",
    "FormulaError",
    "HostError",
    "PromptSyntaxError",
    "SettingsError",
    "Template",
    "parse_prompt",
    "select_blocks",
    "select_steps",
    "steer",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in ("steer", "trace"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lib_dumpunet.hosts.extras import require_extra

    require_extra("diffusers")
    if name == "steer":
        from lib_dumpunet.hosts.diffusers.steered import steer

        return steer
    from lib_dumpunet.hosts.diffusers.trace import trace

    return trace
