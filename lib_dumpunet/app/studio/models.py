"""The studio's model: one is loaded at a time, because memory is limited."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lib_dumpunet.app.processor import fit_threads
from lib_dumpunet.errors import DumpUNetError, SettingsError
from lib_dumpunet.hooks.shapes import BlockInfo
from lib_dumpunet.hosts.diffusers.loading import block_table, load_pipeline, unet_config

log = logging.getLogger("dumpunet")

BUNDLED = ""
"""The name of the bundled model."""


@dataclass(frozen=True)
class Choice:
    """A model, as arguments of ``load_pipeline``."""

    model: str = BUNDLED
    device: str = "auto"
    dtype: str = "auto"
    config: str | None = None
    prediction: str = "auto"


class Models:
    """Loads models, and lists the blocks of the last one.

    Args:
        first: the page's initial model.
        allowed: the models that may be loaded; None for any.
    """

    def __init__(self, first: Choice, allowed: Sequence[Choice] | None = None) -> None:
        self.first, self.allowed = first, allowed
        self._choice: Choice | None = None
        self._pipe: Any = None
        self._config = _config_of(first.model) or _config_of(BUNDLED)

    def load(self, choice: Choice) -> Any:
        """Return the pipeline of a model; only one thread calls this at a time.

        Raises:
            SettingsError, UnsupportedModelError: if there is no such model, or it may not be loaded.
        """
        self.check(choice)
        if choice != self._choice:
            self._choice = self._pipe = None  # free its memory first
            self._pipe = load_pipeline(
                choice.model,
                device=choice.device,
                dtype=choice.dtype,
                config=choice.config,
                prediction=choice.prediction,
            )
            fit_threads(self._pipe.unet)
            self._choice = choice
            self._config = self._pipe.unet.config
        return self._pipe

    def check(self, choice: Choice) -> None:
        """Check that a model may be loaded with these options.

        Raises:
            SettingsError: if not.
        """
        if self.allowed is not None and choice not in self.allowed:
            raise SettingsError(
                f"the studio can be reached from other computers, so {choice.model or 'this'} is not allowed",
                remedy="Choose one from the list.",
                field="Model",
            )

    def blocks(self, width: int, height: int) -> Sequence[BlockInfo]:
        """Measure the blocks for an image size, in pixels."""
        return _table(_Config(self._config), max(8, width // 8 * 8), max(8, height // 8 * 8))

    @property
    def side(self) -> int:
        """The model's default width and height, in pixels."""
        return int((self._config or {}).get("sample_size") or 64) * 8


@dataclass(frozen=True, eq=False)
class _Config:
    """A configuration that is compared and hashed by identity, as a cache key."""

    values: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Config) and other.values is self.values

    def __hash__(self) -> int:
        return id(self.values)


@lru_cache(maxsize=16)
def _table(config: _Config, width: int, height: int) -> Sequence[BlockInfo]:
    return block_table(config.values, width, height)


def _config_of(model: str) -> Mapping[str, Any] | None:
    """Read the configuration of a model's U-Net without loading it; None if that is not possible."""
    try:
        return unet_config(model)
    except DumpUNetError:
        log.debug("no configuration of %s", model, exc_info=True)
        return None
