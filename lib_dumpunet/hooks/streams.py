"""The map size and text length of the current model call, for ports whose values do not contain them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.models.model import Model
from lib_dumpunet.models.ports import OutputPort, Streams


class CallStreams:
    """Notes map size and text length at the start of each call; ``now`` is None if blocks work on tensors "b c h w"."""

    def __init__(self, model: Model) -> None:
        self.now: Streams | None = None
        self._model = model

    def install(self, hooks: HookSet) -> None:
        """Install the hook; call this before installing hooks that use ``now``."""
        if self._model.streams is not None:
            hooks.before(self._model.module, self._note)

    def change(self, hooks: HookSet, port: OutputPort, change: Callable[[Tensor], Tensor]) -> None:
        """Let ``change`` replace every image "b c h w" that a port outputs."""

        def write(output: Any) -> Any:
            return port.layout.write(output, change(port.read(output, self.now)), self.now)

        hooks.change(port.module, write)

    def _note(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert self._model.streams is not None
        self.now = self._model.streams(args, kwargs)
