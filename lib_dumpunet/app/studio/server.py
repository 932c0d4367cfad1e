"""Serve the studio's page, and the results of each run to anyone who has its key."""

from __future__ import annotations

import os
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_dumpunet.errors import HostError

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
from fastapi import FastAPI, HTTPException
from fastapi.middleware import Middleware
from fastapi.responses import FileResponse, Response

from lib_dumpunet.app.studio.guard import Guard
from lib_dumpunet.app.studio.page import build_page
from lib_dumpunet.app.studio.render import ADDRESS, PREVIEW
from lib_dumpunet.app.studio.runs import Runs

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent


def _of_panel(path: str) -> Path:
    """Return a file of the panel: next to the package, where a webui expects it, or inside a built package."""
    beside = ROOT / path
    return beside if beside.exists() else HERE / "panel" / beside.name


STYLES = (_of_panel("style.css"), HERE / "studio.css")
SCRIPTS = (_of_panel("javascript/dumpunet.js"), HERE / "studio.js")
LOCAL, EVERYWHERE = "127.0.0.1", "0.0.0.0"
OWN_NAMES = (LOCAL, "localhost", "::1")
NOT_FOUND = 404  # HTTP status
FIRST_PORT, LAST_PORT = 7861, 7899  # not the webui's


@dataclass(frozen=True)
class Server:
    """How the page is served.

    Attributes:
        port: None chooses a free one.
        listen: whether other computers in the network can reach it.
        share: whether everyone can reach it, through a public Gradio URL.
        opens_browser: whether to open a browser.
    """

    port: int | None = None
    listen: bool = False
    share: bool = False
    opens_browser: bool = True

    @property
    def hosts(self) -> Sequence[str] | None:
        """Host names that requests may use; None for any."""
        return None if self.listen or self.share else OWN_NAMES


def serve(runs: Runs, server: Server, say: Callable[[str], None], until: threading.Event) -> None:
    """Serve until the event is set.

    Raises:
        HostError: if the port is taken, the page cannot be shared, or it does not start.
    """
    _keep_off_proxies()
    ports = range(FIRST_PORT, LAST_PORT + 1) if server.port is None else [server.port]
    page = build_page(runs)
    app, port, shared = _launch(page, server, ports)
    local = f"http://{LOCAL}:{port}/"
    try:
        add_results(app, runs)
        say(f"The studio is at {local}")
        if server.listen:
            say(f"Others can reach it at port {port} of this computer's network address.")
        if server.share:
            say(f"Everyone who knows this URL can use it: {shared}")
        if server.opens_browser:
            webbrowser.open(local)
        while not until.wait(1.0):  # Windows delivers an interrupt only between waits
            pass
    finally:
        page.close(verbose=False)


def _launch(page: gr.Blocks, server: Server, ports: Sequence[int]) -> tuple[FastAPI, int, str]:
    """Serve at the first free port; return the app, the port, and the public URL if shared."""
    theme = _theme()
    problem: Exception | None = None
    for port in ports:
        try:
            app, _, shared = page.launch(
                server_name=EVERYWHERE if server.listen else LOCAL,
                server_port=port,
                share=server.share,
                prevent_thread_lock=True,
                quiet=True,
                theme=theme,
                css="\n".join(_texts(STYLES)),
                head="".join(f"<script>{text}</script>" for text in _texts(SCRIPTS)),
                footer_links=[],
                app_kwargs={"middleware": [Middleware(Guard, hosts=server.hosts)]},
            )
        except OSError as error:  # another program has it
            problem = error
            continue
        except Exception as error:
            raise HostError(
                f"the studio's page did not start ({' '.join(str(error).split())})",
                remedy="Try again, because a busy computer may take too long, or try another --port.",
            ) from error
        if server.share and not shared:
            page.close(verbose=False)
            raise HostError("the page could not be shared", remedy="Check the network.", field="--share")
        return app, port, shared or ""
    raise HostError(
        f"port {ports[0]} is taken" if len(ports) == 1 else f"ports {ports[0]} to {ports[-1]} are taken",
        remedy="Choose another with --port.",
        field="--port",
    ) from problem


def _keep_off_proxies() -> None:
    """Exclude this computer from proxies: Gradio requests its own page to check that it is up."""
    for name in ("no_proxy", "NO_PROXY"):
        others = [part for part in os.environ.get(name, "").split(",") if part]
        os.environ[name] = ",".join(dict.fromkeys((*others, *OWN_NAMES)))


def _theme() -> gr.themes.Default:
    """Return Gradio's default theme with readable colours and without web fonts."""
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    # Gradio's own colours for these have too little contrast.
    dim = {"block_info_text_color": "*neutral_600", "body_text_color_subdued": "*neutral_600"}
    theme.set(
        **dim,
        **{f"{name}_dark": "*neutral_300" for name in dim},
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        color_accent="*primary_600",
    )
    return theme


def _texts(files: tuple[Path, ...]) -> list[str]:
    """Read text files."""
    return [file.read_text(encoding="utf-8") for file in files]


def add_results(app: FastAPI, runs: Runs) -> None:
    """Add the route that serves a run's results to anyone who has its key."""

    def result(key: str, path: str) -> Response:
        found = runs.find(key)
        if found is not None and found.folder is not None:
            if path == PREVIEW:
                return Response(found.preview, media_type="image/jpeg", headers={"Cache-Control": "no-store"})
            file = (found.folder / path).resolve()
            if file.is_relative_to(found.folder.resolve()) and file.is_file():
                return FileResponse(file)
        raise HTTPException(NOT_FOUND, detail="There is no such result.")

    app.add_api_route(f"/{ADDRESS}/{{key}}/{{path:path}}", result, methods=["GET"])
    # Before Gradio's own routes, one of which may match any path.
    app.router.routes.insert(0, app.router.routes.pop())
