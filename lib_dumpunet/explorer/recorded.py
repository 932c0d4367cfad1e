"""Make explorer pages from dumps, even if the run was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from lib_dumpunet.blocks import SD1
from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.explorer.about import About
from lib_dumpunet.explorer.collect import Collection
from lib_dumpunet.explorer.document import make_page
from lib_dumpunet.image.expression import compile_channels
from lib_dumpunet.kinds import KINDS, is_shown, modes
from lib_dumpunet.ports import Page
from lib_dumpunet.prompt.selection import parse_steps, select_blocks
from lib_dumpunet.settings import FeatureSettings
from lib_dumpunet.sinks.manifest import Entry, read_manifest
from lib_dumpunet.sinks.reader import load_dump


def write_recorded(
    files: Iterable[Path], settings: FeatureSettings, limit: float, write: Callable[[int | None, Page], None]
) -> None:
    """Make a page for each image of each run; ``write`` gets it with its run number, if it has one.

    ``settings`` choose blocks, steps and initial colours. ``limit`` is the largest size of a page in megabytes. Pages
    lack the image, which dumps do not contain.

    Raises:
        SettingsError: if a file is missing, damaged or not a dump, or pages would be empty.
        HostError: if maps cannot be kept on disk, or a page cannot be written.
    """
    paths = list(files)
    known = _known(paths)
    steps = parse_steps(settings.steps, field="--save-steps")
    blocks = select_blocks(settings.layers, SD1, field="--blocks") if settings.layers.strip() else None
    compile_channels(settings.color)
    found = False
    for run, items in groupby(load_dump(paths), key=lambda loaded: loaded.run):
        tokens: dict[Tag, tuple[str, ...]] = {}
        with closing(Collection(lambda tag, _, tokens=tokens: tokens.get(tag, ()))) as collection:  # type: ignore[misc]
            for item in items:
                tag = item.tag
                if tag is None or not is_shown(KINDS[tag.kind]):
                    continue
                # Words and points have no block and step of their own.
                if not tag.block or (tag.step in steps and (blocks is None or tag.block in blocks)):
                    tokens[tag] = item.tokens
                    collection.add(Capture(tag, item.tensor))
            about = _about(known.get(run, _Run()), list(tokens), settings)
            for image in sorted({tag.image for tag in tokens}):
                found = True
                write(run, make_page(image, None, collection, about, limit))
                collection.forget(image)
    if not found:
        raise SettingsError(
            "none of the dumped tensors can be shown on a page",
            remedy="Give the folder or files of a dump; leave out --blocks and --save-steps.",
        )


@dataclass
class _Run:
    """What a manifest says about one run as a whole and about each image."""

    whole: Mapping[str, Any] = field(default_factory=dict)
    images: dict[int, Entry] = field(default_factory=dict)

    def parameters(self, image: int) -> dict[str, str]:
        """Return an image's generation parameters by label, as far as they are known."""
        entry, guidance = self.images.get(image, {}), self.whole.get("guidance")
        values = {
            "Prompt": entry.get("prompt"),
            "Negative prompt": entry.get("negative_prompt"),
            "Seed": entry.get("seed"),
            "Sampler": self.whole.get("sampler"),
            "CFG scale": f"{guidance:g}" if isinstance(guidance, (int, float)) else None,
            "Steps": self.whole.get("steps"),
            "Model": self.whole.get("model"),
        }
        return {label: str(value) for label, value in values.items() if value not in (None, "", 0)}


def _known(paths: Iterable[Path]) -> dict[int | None, _Run]:
    """Read what the manifests of folders say about their runs."""
    runs: dict[int | None, _Run] = {}
    for path in paths:
        content = read_manifest(path) if path.is_dir() else None
        if content is None:
            continue
        for whole in content["runs"]:
            runs[whole["run"]] = _Run(whole)
        for entry in content["files"]:
            runs.setdefault(entry["run"], _Run()).images.setdefault(entry["image"], entry)
    return runs


def _about(run: _Run, tags: Sequence[Tag], settings: FeatureSettings) -> About:
    blocks = {tag.block: None for tag in sorted(tags) if tag.block}  # IN, M, OUT: forward order
    table: Mapping[str, Any] = run.whole.get("blocks") or {}
    read = {tag.block for tag in tags if KINDS[tag.kind].reads_text}
    attending = {name for name, row in table.items() if row.get("heads")} | read
    return About(
        order=tuple(table) if blocks.keys() <= table.keys() else tuple(blocks),
        attending=tuple(attending),
        table=table,
        colors=dict.fromkeys(modes(), settings.color),
        average="2-norm" if settings.average == "disable" else settings.average,
        parameters=run.parameters,
        plan=lambda _: None,
        no_picture="A dump contains no image.",
    )
