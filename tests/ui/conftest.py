"""The panel's page in a browser, under the Gradio of the webui and under the newest one."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.waiting import PATIENCE, rest

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE.parent.parent / ".venv" / "gradio3"
PINS = HERE / "gradio3.txt"


def old_python() -> Path:
    """Return the Python that has the webui's Gradio; the first call installs its packages."""
    if sys.version_info >= (3, 13):
        pytest.skip("Gradio 3.41.2 needs NumPy 1, which there is for Python 3.10 to 3.12")
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = ENVIRONMENT / "pins.sha256"
    digest = hashlib.sha256(PINS.read_bytes()).hexdigest()
    with FileLock(f"{ENVIRONMENT}.lock"):  # tests run in several processes
        if not (stamp.exists() and stamp.read_text() == digest):
            _install(python)
            stamp.write_text(digest)
    return python


def _install(python: Path) -> None:
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    base = getattr(sys, "_base_executable", None) or sys.executable
    subprocess.run([base, "-m", "venv", ENVIRONMENT], check=True)
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", PINS]
    # A file of constraints that holds for the project's own environment must not hold here.
    plain = {**os.environ, "PIP_CONSTRAINT": "", "PIP_CONFIG_FILE": os.devnull}
    subprocess.run(install, check=True, env=plain)


@contextmanager
def served(python: Path | str) -> Iterator[str]:
    """Serve the panel with a Python's Gradio; return its URL."""
    server = subprocess.Popen(
        [python, str(HERE / "serve.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        address = next((line.strip() for line in server.stdout if line.startswith("http")), "")
        assert address, "the page was not served"
        yield address
    finally:
        server.stdin.close()
        server.stdout.close()
        server.wait(30)


@pytest.fixture(scope="session", params=["gradio 3.41.2", "newest gradio"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with served(old_python() if "3.41" in request.param else sys.executable) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page in a new window; it can reach only this computer, and script errors fail the test."""
    opened = browser.new_page(viewport={"width": 1000, "height": 1400})
    opened.set_default_timeout(PATIENCE)
    failures: list[str] = []
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.route(
        "**/*", lambda route: route.continue_() if "127.0.0.1" in route.request.url else route.abort()
    )
    opened.goto(address)
    opened.wait_for_selector("#dumpunet-test-features-layer")
    rest(opened, 1000)
    yield opened
    opened.close()
    assert failures == []
