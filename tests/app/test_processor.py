"""The number of CPU threads: one per core, one for a small model, or the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lib_dumpunet.app.processor import _threads_at_first, core_quota, fit_threads, prepare_threads
from tests.unets import diffusers_unet


@pytest.mark.parametrize(("text", "cores"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_quota_of_a_container_is_followed(text: str, cores: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(f"{text}\n")
    assert core_quota(tmp_path) == cores


def test_older_quota_is_followed(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert core_quota(tmp_path) == 1


def test_a_quota_above_what_there_is_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000000 100000\n")
    assert core_quota(tmp_path) is None
    assert core_quota(tmp_path / "missing") is None


def test_threads_wait_asleep_unless_the_user_wants_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    prepare_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    _threads_at_first.cache_clear()
    yield 2
    torch.set_num_threads(before)
    _threads_at_first.cache_clear()


def test_a_small_unet_gets_one_thread_and_a_large_one_all(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet = diffusers_unet("sd1")
    fit_threads(unet)
    assert torch.get_num_threads() == 1
    monkeypatch.setattr("lib_dumpunet.app.processor.SMALL", 1)
    fit_threads(unet)
    assert torch.get_num_threads() == threads


def test_the_users_number_of_threads_stays(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    fit_threads(diffusers_unet("sd1"))
    assert torch.get_num_threads() == threads
