"""Packages that only some hosts need, by extra; missing ones are reported before they are imported."""

from __future__ import annotations

from importlib.util import find_spec

from lib_dumpunet.errors import HostError

_DIFFUSERS = ("diffusers", "transformers", "accelerate")
PACKAGES = {"diffusers": _DIFFUSERS, "studio": (*_DIFFUSERS, "gradio")}
"""The essential packages of each extra in pyproject.toml."""


def require_extra(extra: str) -> None:
    """Check that an extra is installed, without importing any of it.

    Raises:
        HostError: if a package is missing; the message says what to install.
    """
    missing = [name for name in PACKAGES[extra] if find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise HostError(
            f"{', '.join(missing)} {are} not installed",
            remedy=f'Install with: pip install "dumpunet[{extra}]"',
        )
