"""How long tests wait for a page: for what they await, however busy the machine is."""

from __future__ import annotations

import os
from typing import Any

PATIENCE = 300_000
"""Milliseconds after which a page is taken for dead. On an idle machine nothing takes a hundredth of it."""


def load_of_machine() -> float:
    """Return how many programs want a core; 0 on Windows, which does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def rest(page: Any, milliseconds: float) -> None:
    """Leave a page alone where nothing can be awaited: longer as more programs want the cores."""
    page.wait_for_timeout(milliseconds * max(1.0, load_of_machine() / (os.cpu_count() or 1)))
