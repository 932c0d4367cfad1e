"""How long tests wait for a page, however busy the machine is."""

from __future__ import annotations

import os
from typing import Any

PATIENCE = 300_000
"""Milliseconds after which a page is taken for dead. On an idle machine nothing takes a hundredth of it."""


def load_of_machine() -> float:
    """Return how many programs are ready to run; 0 on Windows, which does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def rest(page: Any, milliseconds: float) -> None:
    """Pause where no event can be awaited: longer on a busy machine."""
    page.wait_for_timeout(milliseconds * max(1.0, load_of_machine() / (os.cpu_count() or 1)))
