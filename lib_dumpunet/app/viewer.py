"""Draw dumped tensors into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from lib_dumpunet.blocks import SD1
from lib_dumpunet.captures import AXES, Capture, Tag
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.image.average import average
from lib_dumpunet.image.draw import png_bytes
from lib_dumpunet.image.expression import compile_channels
from lib_dumpunet.ports import Picture
from lib_dumpunet.prompt.selection import parse_steps, select_blocks
from lib_dumpunet.settings import AttentionSettings, FeatureSettings
from lib_dumpunet.sinks.files import prepare_folder, write_whole
from lib_dumpunet.sinks.names import LAYER_KINDS
from lib_dumpunet.sinks.picture import AVERAGE, GRID, Drawn, draw_block
from lib_dumpunet.sinks.reader import Loaded, load_numbers


def draw_files(
    files: list[Path],
    out: str,
    settings: FeatureSettings,
    size: tuple[int, int] | None,
    tick: Callable[[int], None],
) -> list[Path]:
    """Draw each tensor, and its average map if one is asked for; returns what was written.

    Raises:
        SettingsError: for a file that is missing or no dump, or a folder that cannot be written to.
    """
    compile_channels(settings.color)
    folder = prepare_folder(out)
    written: list[Path] = []
    for loaded, tensor_name in _chosen(files, settings, size):
        for title, image in _draw(loaded, settings):
            name = f"{tensor_name}-average" if "average" in title else tensor_name
            write_whole(folder / f"{name}.png", [png_bytes(image, {})])
            written.append(folder / f"{name}.png")
        tick(len(written))
    if not written:
        raise SettingsError(
            "none of the dumped tensors is of the chosen blocks and steps",
            remedy="Leave out --layers or --save-steps.",
        )
    return written


def _draw(loaded: Loaded[Any], settings: FeatureSettings) -> list[tuple[str, Image.Image]]:
    """Draw a tensor as it is drawn while generating; what is of no known kind, as features."""
    tensor = loaded.tensor if loaded.tensor.ndim > 2 else loaded.tensor[None]
    ratio = tensor.shape[-1] / tensor.shape[-2]
    tag = loaded.tag or Tag(0, 0, "")
    if tag.kind in LAYER_KINDS:
        import torch

        from lib_dumpunet.sinks.attention import AttentionSink

        pictures: list[Picture] = []
        tensor = torch.as_tensor(tensor)
        attention = AttentionSettings(average=settings.average, color=settings.color)
        AttentionSink(attention, lambda *_: loaded.tokens, ratio, pictures.append).accept(
            Capture(tag, tensor)
        )
        return [(picture.title, picture.image) for picture in pictures]
    kind: Drawn = "difference" if tag.kind == "difference" else "feature"
    mean = average(tensor, settings.average if tag.kind == kind else "disable")
    drawn = [] if mean is None else [(AVERAGE[kind], draw_block(mean, settings, ratio, kind))]
    return [*drawn, (GRID[kind], draw_block(tensor, settings, ratio, kind))]


def _chosen(
    files: list[Path], settings: FeatureSettings, size: tuple[int, int] | None
) -> Iterator[tuple[Loaded[Any], str]]:
    """List the tensors that ``layers`` and ``steps`` leave, each with a name for its picture."""
    steps = parse_steps(settings.steps, field="--save-steps")
    blocks = select_blocks(settings.layers, SD1, field="--layers") if settings.layers.strip() else None
    used: set[str] = set()
    for loaded in load_numbers(files, shape=size):
        tag = loaded.tag
        # A word or a point has no block: it is of no single block and step.
        if (
            tag is not None
            and tag.block
            and not (tag.step in steps and (blocks is None or tag.block in blocks))
        ):
            continue
        ranks = (2, 3) if tag is None or tag.kind not in LAYER_KINDS else (len(AXES[tag.kind]),)
        if loaded.tensor.ndim not in ranks or 0 in loaded.tensor.shape:
            raise SettingsError(
                f"{loaded.paths[0]} holds an array of shape {tuple(loaded.tensor.shape)}",
                remedy="Give arrays (channels, height, width) or (height, width).",
                field="FILE",
            )
        name = _name(loaded)
        while name in used:
            name += "+"
        used.add(name)
        yield loaded, name


def _name(loaded: Loaded[Any]) -> str:
    """Name a picture after its file, and after what it shows where a file holds several tensors, or part of one."""
    path, tag = loaded.paths[0], loaded.tag
    if tag is None or path.suffix == ".npy":
        return path.stem
    if path.suffix == ".safetensors":
        return f"{path.stem}-{tag.block}" if tag.kind == "feature" else tag.stem
    one_channel = len(loaded.paths) == 1 and tag.kind in ("feature", "difference")
    return path.stem if one_channel else tag.stem
