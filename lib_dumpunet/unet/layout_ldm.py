"""U-Nets laid out as in ldm: ``input_blocks``, ``middle_block``, ``output_blocks`` (ldm, sgm, Forge, ComfyUI)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from lib_dumpunet.unet.sites import Site, site


def matches(module: nn.Module) -> bool:
    """Recognise the layout by its parts, as several libraries have a class of their own for it."""
    return all(hasattr(module, name) for name in ("input_blocks", "middle_block", "output_blocks"))


def sites(module: nn.Module) -> Iterator[Site]:
    """List the blocks in forward order; a distilled model may lack the middle one."""
    for i, block in enumerate(module.input_blocks):  # type: ignore[arg-type]
        yield site(f"IN{i:02}", tuple(block.children()), "down")
    if module.middle_block is not None:
        yield site("M00", tuple(module.middle_block.children()), "")  # type: ignore[union-attr]
    for i, block in enumerate(module.output_blocks):  # type: ignore[arg-type]
        yield site(f"OUT{i:02}", tuple(block.children()), "up")
