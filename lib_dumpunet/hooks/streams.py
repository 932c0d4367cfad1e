"""What the model's call that is under way works on, for ports that cannot tell from their own value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.models.model import Model
from lib_dumpunet.models.ports import OutputPort, Streams


class CallStreams:
    """Notes height, width and tokens at the beginning of each call; ``now`` is None for models of maps."""

    def __init__(self, model: Model) -> None:
        self.now: Streams | None = None
        self._model = model

    def install(self, hooks: HookSet) -> None:
        """Put the hook on, before those of whoever asks."""
        if self._model.streams is not None:
            hooks.before(self._model.module, self._note)

    def change(self, hooks: HookSet, port: OutputPort, change: Callable[[Tensor], Tensor]) -> None:
        """Let ``change`` make another image "b c h w" of every one that comes out of a port."""

        def write(output: Any) -> Any:
            return port.layout.write(output, change(port.read(output, self.now)), self.now)

        hooks.change(port.module, write)

    def _note(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert self._model.streams is not None
        self.now = self._model.streams(args, kwargs)
