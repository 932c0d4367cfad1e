"""install.py: uses the webui's pip in a webui, and is harmless outside."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def lark_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lark" else find(name))


def launch(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []
    module = SimpleNamespace(run_pip=lambda *call: calls.append(call), **options)
    monkeypatch.setitem(sys.modules, "launch", module)
    return calls


def test_webui_installs_what_is_missing(
    root: Path, lark_is_missing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = launch(monkeypatch, args=SimpleNamespace(skip_install=False))
    runpy.run_path(str(root / "install.py"))
    assert calls == [('install "lark>=1.1.2"', "lark for Dump U-Net")]


def test_webui_may_skip_it(root: Path, lark_is_missing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = launch(monkeypatch, args=SimpleNamespace(skip_install=True))
    runpy.run_path(str(root / "install.py"))
    assert calls == []


def test_without_a_webui_it_says_what_to_install(
    root: Path, lark_is_missing: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "launch", None)
    runpy.run_path(str(root / "install.py"))
    assert 'pip install "lark>=1.1.2"' in capsys.readouterr().out


def test_without_a_webui_nothing_is_said_where_nothing_is_missing(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "launch", None)
    runpy.run_path(str(root / "install.py"))
    assert capsys.readouterr().out == ""
