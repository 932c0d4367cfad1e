"""A model to make pages with, and a browser to open them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.pipelines import load_sd1, sdxl_pipeline
from tests.waiting import PATIENCE

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def tiny() -> Any:
    """Load a small SD 1.x pipeline; tests must not change it."""
    return load_sd1()


@pytest.fixture(scope="session")
def xl() -> Any:
    """Make a small SDXL pipeline; tests must not change it."""
    return sdxl_pipeline()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open pages from disk with the network off; script errors and network requests fail the test."""
    contexts: list[Any] = []
    failures: list[str] = []

    def watch_console(line: Any) -> None:
        # The tests read canvases more often than is good for speed.
        if line.type in ("error", "warning") and "willReadFrequently" not in line.text:
            failures.append(line.text)

    def watch_network(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            failures.append(request.url)

    def open_page(address: str, viewport: dict[str, int] = WIDE, **more: Any) -> Any:
        context = browser.new_context(viewport=viewport, offline=True, **more)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", watch_console)
        page.on("request", watch_network)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert failures == []
