"""Fixtures for all tests: the project's folder, and an environment without network and screen."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib_dumpunet.app.processor import prepare_threads
from tests.waiting import PATIENCE, load_of_machine

# Before any test imports torch, or a library that looks for a model hub.
if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a process of its own already
    os.environ.setdefault("OMP_NUM_THREADS", "1")
prepare_threads()
os.environ["HF_HUB_OFFLINE"] = "1"

# A job in the background of a shell is started with interrupts ignored, and so would be all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out browsers, and what takes many seconds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip slow tests in a quick run; else run their files first, so that no core waits for one at the end."""
    slow = [item for item in items if _takes_long(item)]
    if config.getoption("--quick"):
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]
    files = {item.path for item in slow}
    items.sort(key=lambda item: item.path not in files)


def _takes_long(item: pytest.Item) -> bool:
    return "browser" in getattr(item, "fixturenames", ()) or item.get_closest_marker("slow") is not None


@pytest.hookimpl(wrapper=True)
def pytest_report_teststatus(report: Any) -> Iterator[None]:
    """Report each test's duration in verbose runs."""
    category, letter, word = yield  # type: ignore[misc]
    if report.when == "call" and report.passed and isinstance(word, str) and word:
        word = f"{word} {report.duration:.1f} s"
    return category, letter, word  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Explain timeouts of tests on a busy machine."""
    failed = terminalreporter.stats.get("failed", []) + terminalreporter.stats.get("error", [])
    late = [report for report in failed if "timeout" in str(report.longrepr).casefold()]
    load, cores = load_of_machine(), os.cpu_count() or 1
    if late and load > cores:
        terminalreporter.write_line(
            f"{len(late)} of {len(failed)} failures ran out of time, and the machine is busy (a load of {load:.0f} on "
            f"{cores} cores). Run them again when it is not: python run.py test --last-failed"
        )


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder that holds run.py."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _own_log() -> None:
    """Undo what commands of tests or fixtures before have set for warnings."""
    logger = logging.getLogger("dumpunet")
    logger.handlers = []
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def one_event_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make Gradio use one event loop.

    It makes two for each page and leaves them open, for which a later test is blamed that collects them.
    """
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start one browser for all tests: Playwright refuses a second driver."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium to look at the page with; install it to run this test")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()
