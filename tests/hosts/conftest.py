"""Pipelines for tests of the diffusers host."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.pipelines import load_sd1, sdxl_pipeline


@pytest.fixture(scope="session")
def tiny() -> Any:
    """Load a small SD 1.x pipeline; tests must not change it."""
    return load_sd1()


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
