"""Restrict the folders of dumps: the webui has no sandbox, and anyone who can reach its page can send any path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from modules import paths, shared

from lib_dumpunet.errors import SettingsError
from lib_dumpunet.settings import DumpSettings, Settings
from lib_dumpunet.sinks.files import FIELD, is_inside, joined

OUTDIRS = (
    "outdir_samples",
    "outdir_txt2img_samples",
    "outdir_img2img_samples",
    "outdir_grids",
    "outdir_txt2img_grids",
    "outdir_img2img_grids",
    "outdir_save",
)
"""The webui's settings for output folders."""
NAME = "dumpunet"


def with_folders(settings: Settings, p: Any) -> Settings:
    """Resolve the folders of all dumps, and refuse those that the webui's operator does not allow.

    Raises:
        SettingsError: if users may not choose folders, or this folder is not allowed.
    """
    return settings.with_dumps(lambda dump: _resolved(dump, p))


def _resolved(dump: DumpSettings, p: Any) -> DumpSettings:
    if not dump.enabled:
        return dump
    if not dump.path.strip():
        return replace(dump, path=str(_absolute(p.outpath_samples) / NAME))
    if getattr(shared.cmd_opts, "hide_ui_dir_config", False):
        raise SettingsError(
            "the webui was started with --hide-ui-dir-config, so users may not choose folders",
            remedy="Leave the field empty: the files then go to the webui's own output folder.",
            field=FIELD,
        )
    path = _absolute(dump.path)
    if getattr(shared.cmd_opts, "webui_is_non_local", False) and not any(
        is_inside(path, root) for root in _roots()
    ):
        raise SettingsError(
            f"the webui can be reached from other computers, so {path} is not allowed",
            remedy="Choose a folder inside the webui's output folders, or leave the field empty.",
            field=FIELD,
        )
    return replace(dump, path=str(path))


def _absolute(path: str) -> Path:
    """Make a path absolute from the webui's data folder, as the webui does."""
    return joined(Path(paths.data_path), path)


def _roots() -> Iterator[Path]:
    """Yield the webui's output folders."""
    yield Path(paths.data_path) / "outputs"
    for name in OUTDIRS:
        folder = str(getattr(shared.opts, name, "") or "").strip()
        if folder:
            yield Path(paths.data_path) / folder
