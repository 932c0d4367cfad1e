"""Requests that a served studio refuses: from strangers, other sites or false host names."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.app.studio.conftest import served

pytestmark = pytest.mark.slow

FORBIDDEN = 403


def ask(address: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """Send a request with only these headers; return status and text."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, data, {"Content-Type": "application/json", **given})
    answer = connection.getresponse()
    status, text = answer.status, answer.read().decode("utf-8", "replace")
    connection.close()
    return status, text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7861", "127.0.0.1.evil.example", "[::1", ""])
@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/run/generate", "/gradio_api/queue/join"])
def test_a_foreign_name_of_this_computer_is_refused(address: str, host: str, path: str) -> None:
    status, text = ask(address, "POST" if "api" in path else "GET", path, {"data": []}, Host=host)
    assert status == FORBIDDEN
    assert "own names" in text


def test_own_names_are_answered(address: str) -> None:
    port = urlsplit(address).port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert ask(address, "GET", "/", Host=host)[0] == 200


def test_pages_of_other_sites_are_refused(address: str) -> None:
    for origin in ("null", f"http://localhost:{urlsplit(address).port}", "http://127.0.0.1:1"):
        status, text = ask(address, "POST", "/gradio_api/run/generate", {"data": []}, Origin=origin)
        assert (status, text) == (FORBIDDEN, "The studio answers only its own page.")


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/upload", "/gradio_api/upload/"])
def test_files_are_refused_whatever_their_size(address: str, path: str) -> None:
    status, text = ask(address, "POST", path, b"x" * 100_000)
    assert (status, text) == (FORBIDDEN, "The studio accepts no files.")


@pytest.fixture(scope="module")
def open_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("open"), "--listen") as found:
        yield found


def test_where_others_reach_it_any_name_is_answered_and_no_file_is_taken(open_address: str) -> None:
    assert ask(open_address, "GET", "/", Host="studio.example")[0] == 200
    assert ask(open_address, "POST", "/gradio_api/upload", b"x")[0] == FORBIDDEN


def test_where_others_reach_it_the_page_has_no_say_in_how_a_model_is_loaded(open_address: str) -> None:
    status, text = ask(open_address, "GET", "/config")
    assert status == 200
    ids = {c["props"].get("elem_id") for c in json.loads(text)["components"]}
    assert "studio-model" in ids
    assert not ids & {"studio-config", "studio-device", "studio-dtype"}


def test_only_this_computer_reaches_it(address: str) -> None:
    parts = urlsplit(address)
    assert parts.hostname == "127.0.0.1"
    with socket.socket() as other:
        other.settimeout(2)
        # Another address of this computer's loopback, which a server of all addresses would answer.
        assert other.connect_ex(("127.0.0.2", parts.port)) != 0


def test_a_second_one_takes_another_port_and_a_proxy_does_not_matter(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "intranet.example")
    with served(tmp_path) as another:
        assert another != address
        assert ask(another, "GET", "/")[0] == 200
    assert os.environ["no_proxy"] == "intranet.example"
