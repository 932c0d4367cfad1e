"""What all tests share: the project's folder, and an environment without a network or a screen."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# Before any test imports a library that looks for a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"

# A job in the background of a shell is started with interrupts ignored, and so would be all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder that holds run.py."""
    return Path(__file__).resolve().parent.parent
