"""Axes for the X/Y/Z plot, and what its cells show.

The plot copies the job for each cell and lets the axes change the copy; ``AlwaysOnScript`` then reads the changes that
they left on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from modules import scripts

from lib_dumpunet.errors import DumpUNetError, SettingsError
from lib_dumpunet.hosts.common.log_capture import TITLE
from lib_dumpunet.hosts.webui.blocks import blocks_of_model
from lib_dumpunet.hosts.webui.host import refusal
from lib_dumpunet.prompt.selection import parse_steps, select_blocks
from lib_dumpunet.settings import PanelSettings
from lib_dumpunet.settings.json import override
from lib_dumpunet.ui.tables import order_of

MODULES = ("xyz_grid.py", "scripts.xyz_grid")
PLACEHOLDER = "{block}"
PROMPTS = ("prompt", "negative_prompt", "hr_prompt", "hr_negative_prompt")
CHANGES, CELL = "dumpunet_changes", "dumpunet_cell"
"""Names of the attributes that axes set on a job."""
LABELS = {
    "features.layers": "Layers",
    "features.steps": "Steps",
    "attention.layers": "Attention layers",
    "attention.words": "Words",
}
"""Axes that do not change the image, so their cells show a map."""
CELLS = ("image", "map")


def add_axes() -> None:
    """Add the axes to the plot, if the webui has it; calling it again does nothing."""
    for data in scripts.scripts_data:
        if data.script_class.__module__ in MODULES and hasattr(data.module, "axis_options"):
            _add_to(data.module)


def changed(settings: PanelSettings, p: Any) -> PanelSettings:
    """Apply the changes that axes left on a job.

    Raises:
        SettingsError: for an invalid value.
    """
    changes: Mapping[str, str] = getattr(p, CHANGES, {})
    return override(settings, changes) if changes else settings


def has_changes(p: Any) -> bool:
    """Return whether an axis changed the settings."""
    return bool(getattr(p, CHANGES, None))


def shows_map(p: Any) -> bool:
    """Return whether a job's cell shows a map: as the axis *Cell shows* says, or if axes changed settings."""
    cell = getattr(p, CELL, None)
    return cell == "map" if cell else has_changes(p)


def _add_to(module: Any) -> None:
    known = {option.label for option in module.axis_options}
    options = [
        *(_axis(module, label, _change(path), confirm=_check(path)) for path, label in LABELS.items()),
        _axis(module, f"Block of {PLACEHOLDER}", _fill, confirm=_expand),
        _axis(module, "Cell shows", _show, confirm=_check_cells, choices=lambda: list(CELLS)),
    ]
    module.axis_options.extend(option for option in options if option.label not in known)


def _axis(module: Any, label: str, apply: Callable[..., None], **more: Any) -> Any:
    return module.AxisOption(f"[{TITLE}] {label}", str, apply, **more)


def _change(path: str) -> Callable[..., None]:
    def apply(p: Any, value: str, _: Sequence[str]) -> None:
        setattr(p, CHANGES, {**getattr(p, CHANGES, {}), path: value})

    return apply


def _check(path: str) -> Callable[..., None]:
    def confirm(p: Any, values: list[str]) -> None:
        for value in values:
            with _as_user_error(p):
                if path.endswith("layers"):
                    select_blocks(value, order_of(blocks_of_model), field=LABELS[path])
                elif path.endswith("steps"):
                    parse_steps(value, field=LABELS[path])

    return confirm


def _fill(p: Any, block: str, _: Sequence[str]) -> None:
    for name in PROMPTS:
        text = getattr(p, name, None)
        if isinstance(text, str):
            setattr(p, name, text.replace(PLACEHOLDER, block))


def _expand(p: Any, values: list[str]) -> None:
    """Replace ranges with their blocks, in place, because the webui up to 1.6 allows axes nothing else."""
    if not any(PLACEHOLDER in (getattr(p, name, None) or "") for name in PROMPTS):
        missing = SettingsError(
            f"no prompt has {PLACEHOLDER}",
            remedy=f"Write it in place of a block, as in a (~: {PLACEHOLDER}: cute :~) girl, and turn on "
            "Enable Layer Prompt.",
        )
        raise refusal(p, missing)
    blocks: list[str] = []
    for value in values:
        with _as_user_error(p):
            blocks += select_blocks(value, order_of(blocks_of_model), field=f"Block of {PLACEHOLDER}")
    values[:] = list(dict.fromkeys(blocks))


def _show(p: Any, cell: str, _: Sequence[str]) -> None:
    setattr(p, CELL, cell.strip().lower())


def _check_cells(p: Any, values: list[str]) -> None:
    for value in values:
        if value.strip().lower() not in CELLS:
            raise refusal(
                p, SettingsError(f"a cell cannot show {value!r}", remedy=f"Use {' or '.join(CELLS)}.")
            )


@contextmanager
def _as_user_error(p: Any) -> Iterator[None]:
    """Let a user's mistake end the plot: the page shows the text of any exception."""
    try:
        yield
    except DumpUNetError as error:
        raise refusal(p, error) from None
