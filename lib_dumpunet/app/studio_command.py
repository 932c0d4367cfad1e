"""``dumpunet studio``: open the studio, a page in the browser that works without the webui."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path
from typing import Any

from lib_dumpunet.app.models import add_model_flags, hush_libraries, locate
from lib_dumpunet.app.output import Terminal
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.hosts.extras import require_extra
from lib_dumpunet.sinks.files import prepare_folder

FOLDER = "dumpunet-out/studio"
LAST_PORT = 65535


def add(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "studio",
        help="open the studio, a page in the browser for all of this",
        description="Open a page in the browser with the same panel as the webui extension's. Only this computer can "
        "reach it, unless --listen or --share is given; then dumps go only to the studio's folder, and only the "
        "bundled model and the one given by --model can be loaded.",
    )
    parser.add_argument(
        "-o", "--out", metavar="FOLDER", default=FOLDER, help=f"folder for the results (default: {FOLDER})"
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="port of the page (default: a free one from 7861)"
    )
    parser.add_argument(
        "--listen", action="store_true", help="let other computers in the network reach the page"
    )
    parser.add_argument(
        "--share", action="store_true", help="let everyone reach the page, through a public Gradio URL"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    add_model_flags(parser)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Serve the page until Ctrl-C."""
    if args.port is not None and not 0 < args.port <= LAST_PORT:
        raise SettingsError(f"{args.port} is not a port", remedy=f"Use 1 to {LAST_PORT}.", field="--port")
    locate(args)
    require_extra("studio")
    folder = prepare_folder(args.out)
    terminal.say("Starting the studio ...")
    hush_libraries()
    from lib_dumpunet.app.studio.folders import Place
    from lib_dumpunet.app.studio.models import BUNDLED, Choice, Models
    from lib_dumpunet.app.studio.runs import Runs
    from lib_dumpunet.app.studio.server import Server, serve

    is_open = args.listen or args.share
    first = Choice(args.model, args.device, args.dtype, args.config, args.prediction)
    bundled = Choice(BUNDLED, args.device, args.dtype)
    models = Models(first, list(dict.fromkeys((first, bundled))) if is_open else None)
    runs = Runs(models, Place(Path(folder), is_open))
    server = Server(args.port, args.listen, args.share, not args.no_browser)
    try:
        serve(runs, server, terminal.say, threading.Event())
    finally:
        runs.close()
    return 0
