"""Pipelines for tests of the diffusers host."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lib_dumpunet.hosts.diffusers.loading import load_pipeline
from tests.pipelines import sdxl_pipeline


@pytest.fixture(scope="session")
def tiny() -> Any:
    """Load the bundled model; tests must not change it."""
    return load_pipeline("", device="cpu")


@pytest.fixture(scope="session")
def xl() -> Any:
    """Make a small SDXL pipeline; tests must not change it."""
    pipe = sdxl_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Compute on one thread, so that results do not depend on how work is split."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
