"""Forward hooks that are always removed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from lib_dumpunet.models.ports import Arguments

Before = Callable[[tuple[Any, ...], dict[str, Any]], None]
"""Gets the positional and keyword arguments of a module about to run."""
Replace = Callable[[tuple[Any, ...], dict[str, Any]], Arguments | None]
"""Returns other arguments for a module about to run, or None to keep them."""
Around = Callable[[tuple[Any, ...], dict[str, Any], Any], None]
"""Gets the positional and keyword arguments and the output of a module that has run."""
Change = Callable[[Any], Any]
"""Returns another output for a module's output."""
After = Callable[[Tensor], None]
"""Gets the output of a module that has run."""


class HookSet:
    """A group of forward hooks; leaving the ``with`` removes each of them, on success, error and interrupt."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> HookSet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove all hooks; calling it again does nothing."""
        self._stack.close()

    def before(self, module: nn.Module, see: Before) -> None:
        """Call ``see`` with the arguments of every forward call of ``module``."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            see(args, kwargs)

        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        self._stack.callback(handle.remove)

    def around(self, module: nn.Module, see: Around) -> None:
        """Call ``see`` with the arguments and the whole output of every forward call of ``module``."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            see(args, kwargs, output)

        handle = module.register_forward_hook(hook, with_kwargs=True)
        self._stack.callback(handle.remove)

    def replace(self, module: nn.Module, replace: Replace) -> None:
        """Let ``replace`` change the arguments of every forward call of ``module``."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
            return replace(args, kwargs)

        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        self._stack.callback(handle.remove)

    def change(self, module: nn.Module, change: Change) -> None:
        """Let ``change`` replace the output of every forward call of ``module``; later hooks see the new output."""

        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
            return change(output)

        handle = module.register_forward_hook(hook)
        self._stack.callback(handle.remove)

    def after(self, module: nn.Module, see: After) -> None:
        """Call ``see`` with the output of every forward call of ``module``, unpacked where it is a tuple."""

        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            see(output if isinstance(output, Tensor) else output[0])

        handle = module.register_forward_hook(hook)
        self._stack.callback(handle.remove)
