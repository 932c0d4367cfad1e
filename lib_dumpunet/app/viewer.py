"""Draw dumped tensors to files in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from lib_dumpunet.blocks import SD1
from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.image.draw import png_bytes
from lib_dumpunet.image.expression import compile_channels
from lib_dumpunet.kinds import FEATURE, KINDS, Role
from lib_dumpunet.ports import Page
from lib_dumpunet.prompt.selection import parse_steps, select_blocks
from lib_dumpunet.settings import FeatureSettings
from lib_dumpunet.sinks.drawing import DRAWINGS, OF_ARRAYS, Style
from lib_dumpunet.sinks.files import prepare_folder, write_whole
from lib_dumpunet.sinks.reader import Loaded, load_numbers


def draw_files(
    files: list[Path],
    out: str,
    settings: FeatureSettings,
    size: tuple[int, int] | None,
    tick: Callable[[int], None],
) -> list[Path]:
    """Draw each tensor, and its average map if wanted; return the written files.

    Raises:
        SettingsError: if a file is missing or not a dump, or the folder cannot be written to.
    """
    compile_channels(settings.color)
    folder: Path | None = None
    written: list[Path] = []
    for loaded, tensor_name in _chosen(files, settings, size):
        for role, image in _draw(loaded, settings):
            name = f"{tensor_name}-average" if role == "average" else tensor_name
            folder = prepare_folder(out) if folder is None else folder  # created only if there is a picture
            write_whole(folder / f"{name}.png", [png_bytes(image, {})])
            written.append(folder / f"{name}.png")
        tick(len(written))
    if not written:
        raise SettingsError(
            "no dumped tensor belongs to the chosen blocks and steps",
            remedy="Leave out --blocks or --save-steps.",
        )
    return written


def write_pages(
    files: list[Path], out: str, settings: FeatureSettings, limit: float, say: Callable[[str], None]
) -> list[Path]:
    """Write an explorer page for each dumped image, passing its description to ``say``; return the written files.

    Raises:
        SettingsError: if a file is missing or not a dump, or the folder cannot be written to.
        HostError: if maps cannot be kept on disk.
    """
    from lib_dumpunet.explorer.recorded import write_recorded

    written: list[Path] = []

    def write(run: int | None, page: Page) -> None:
        folder = prepare_folder(out)
        path = folder / f"{page.image:03}.html"
        if path in written:  # another run of the same folder
            path = folder / f"{page.image:03}-run{run}.html"
        write_whole(path, [page.html])
        written.append(path)
        say(page.about)

    write_recorded(files, settings, limit, write)
    return written


def _draw(loaded: Loaded[Any], settings: FeatureSettings) -> Iterator[tuple[Role, Image.Image]]:
    """Draw a tensor as when generating; tensors of unknown kind, and words and points, are drawn as features."""
    tensor = loaded.tensor if loaded.tensor.ndim > 2 else loaded.tensor[None]
    tag = loaded.tag or Tag(0, 0, "")
    is_drawn = bool(KINDS[tag.kind].drawing)
    drawing = KINDS[tag.kind if is_drawn else FEATURE].drawing
    if drawing not in OF_ARRAYS:
        import torch

        tensor = torch.as_tensor(tensor)
    shown = settings if is_drawn else replace(settings, average="disable")
    style = Style(shown, tensor.shape[-1] / tensor.shape[-2], lambda *_: loaded.tokens)
    return ((role, image) for role, _, image in DRAWINGS[drawing](tag, tensor, style))


def _chosen(
    files: list[Path], settings: FeatureSettings, size: tuple[int, int] | None
) -> Iterator[tuple[Loaded[Any], str]]:
    """Yield the tensors of the chosen blocks and steps, each with a name for its picture."""
    steps = parse_steps(settings.steps, field="--save-steps")
    blocks = select_blocks(settings.layers, SD1, field="--blocks") if settings.layers.strip() else None
    used: set[str] = set()
    for loaded in load_numbers(files, shape=size):
        tag = loaded.tag
        # Words and points have no block and step of their own.
        if (
            tag is not None
            and tag.block
            and not (tag.step in steps and (blocks is None or tag.block in blocks))
        ):
            continue
        is_known = tag is not None and KINDS[tag.kind].drawing
        ranks = (len(KINDS[tag.kind].axes),) if tag is not None and is_known else (2, 3)
        if loaded.tensor.ndim not in ranks or 0 in loaded.tensor.shape:
            raise SettingsError(
                f"{loaded.paths[0]} contains an array of shape {tuple(loaded.tensor.shape)}",
                remedy="Give arrays (channels, height, width) or (height, width).",
                field="FILE",
            )
        name = _name(loaded)
        while name in used:
            name += "+"
        used.add(name)
        yield loaded, name


def _name(loaded: Loaded[Any]) -> str:
    """Return a picture's name: its file's name, and the tensor's if a file has several tensors or part of one."""
    path, tag = loaded.paths[0], loaded.tag
    if tag is None or path.suffix == ".npy":
        return path.stem
    if path.suffix == ".safetensors":
        return f"{path.stem}-{tag.block}" if tag.kind == FEATURE else tag.stem
    one_channel = len(loaded.paths) == 1 and KINDS[tag.kind].scope == "block"
    return path.stem if one_channel else tag.stem
