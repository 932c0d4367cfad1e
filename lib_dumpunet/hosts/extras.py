"""Packages that only some hosts need, by the extra that installs them; what is missing is told before an import."""

from __future__ import annotations

from importlib.util import find_spec

from lib_dumpunet.errors import HostError

_DIFFUSERS = ("diffusers", "transformers", "accelerate")
PACKAGES = {"diffusers": _DIFFUSERS, "studio": (*_DIFFUSERS, "gradio")}
"""What each extra of pyproject.toml brings that nothing works without."""


def require_extra(extra: str) -> None:
    """Make sure that an extra is installed, without importing any of it.

    Raises:
        HostError: if a package of it is missing; says what to install.
    """
    missing = [name for name in PACKAGES[extra] if find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise HostError(
            f"{', '.join(missing)} {are} not installed",
            remedy=f'Install with: pip install "dumpunet[{extra}]"',
        )
