"""The studio, started as by users, and a browser."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parent.parent.parent.parent
WIDE = {"width": 1280, "height": 1000}
ASKED = re.compile("gradio_api/run/predict")


@contextmanager
def served(folder: Path, *flags: str) -> Iterator[str]:
    """Start the studio in its own process; return its URL."""
    command = [
        sys.executable,
        "-m",
        "lib_dumpunet",
        "studio",
        "--no-browser",
        "--device",
        "cpu",
        "-o",
        str(folder),
    ]
    server = subprocess.Popen([*command, *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        lines = []
        for line in server.stderr:
            lines.append(line)
            if "The studio is at" in line:
                break
        assert "The studio is at" in "".join(lines[-1:]), "".join(lines)
        yield lines[-1].rpartition(" ")[2].strip()
    finally:
        server.terminate()
        server.stderr.close()
        server.wait(30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The studio's output folder."""
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder) as found:
        yield found


@pytest.fixture(scope="module")
def open_tab(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Open the page in new tabs; it can reach only this computer, and script errors fail the test."""
    failures: list[str] = []
    tabs: list[Any] = []

    def watch_network(request: Any) -> None:
        if "127.0.0.1" not in request.url and not request.url.startswith(("data:", "blob:")):
            failures.append(request.url)

    def open_page(viewport: dict[str, int] = WIDE) -> Any:
        tab = browser.new_context(viewport=viewport).new_page()
        tabs.append(tab)
        tab.set_default_timeout(PATIENCE)
        tab.on("pageerror", lambda error: failures.append(str(error)))
        tab.on("request", watch_network)
        load(tab, lambda: tab.goto(address))
        return tab

    yield open_page
    for tab in tabs:
        tab.context.close()
    assert failures == []


@pytest.fixture
def tab(open_tab: Callable[..., Any]) -> Iterator[Any]:
    opened = open_tab()
    yield opened
    opened.close()


def load(tab: Any, go: Callable[[], Any]) -> None:
    """Go to the page, and wait until it has asked for the run that it is to show, and shows it."""
    with tab.expect_response(ASKED):
        go()
    settle(tab)


def settle(tab: Any) -> None:
    """Wait until the page has drawn what came in, and noted what was typed."""
    tab.evaluate("async () => { for (const _ of [1, 2, 3]) await new Promise(requestAnimationFrame); }")
