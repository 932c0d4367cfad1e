"""Draw dumped tensors into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from lib_dumpunet.blocks import SD1
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.image.average import average
from lib_dumpunet.image.colorize import compile_channels
from lib_dumpunet.image.draw import draw_features, png_bytes
from lib_dumpunet.prompt.selection import parse_steps, select_blocks
from lib_dumpunet.settings import FeatureSettings
from lib_dumpunet.sinks.files import prepare_folder, write_whole
from lib_dumpunet.sinks.reader import Loaded, load_dump


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
        tensor = loaded.tensor if loaded.tensor.ndim == 3 else loaded.tensor[None]
        ratio = tensor.shape[2] / tensor.shape[1]
        mean = average(tensor, settings.average)
        for name, what in ((f"{tensor_name}-average", mean), (tensor_name, tensor)):
            if what is not None:
                data = png_bytes(draw_features(what, settings.color, ratio), {})
                write_whole(folder / f"{name}.png", [data])
                written.append(folder / f"{name}.png")
        tick(len(written))
    if not written:
        raise SettingsError(
            "none of the dumped tensors is of the chosen blocks and steps",
            remedy="Leave out --layers or --save-steps.",
        )
    return written


def _chosen(
    files: list[Path], settings: FeatureSettings, size: tuple[int, int] | None
) -> Iterator[tuple[Loaded, str]]:
    """List the tensors that ``layers`` and ``steps`` leave, each with a name for its picture."""
    steps = parse_steps(settings.steps, field="--save-steps")
    blocks = select_blocks(settings.layers, SD1, field="--layers") if settings.layers.strip() else None
    used: set[str] = set()
    for loaded in load_dump(files, shape=size):
        if loaded.tag is not None and (
            loaded.tag.step not in steps or (blocks is not None and loaded.tag.block not in blocks)
        ):
            continue
        if loaded.tensor.ndim not in (2, 3) or 0 in loaded.tensor.shape:
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


def _name(loaded: Loaded) -> str:
    """Name a picture after its file, and after the block where a file holds several."""
    stem = loaded.paths[0].stem
    if loaded.paths[0].suffix == ".safetensors" and loaded.tag is not None:
        return f"{stem}-{loaded.tag.block}"
    if len(loaded.paths) > 1 and loaded.tag is not None:
        return f"{loaded.tag.image:03}-{loaded.tag.block}-{loaded.tag.step:03}"
    return stem
