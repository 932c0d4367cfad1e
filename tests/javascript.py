"""Check the types of the pages' scripts with TypeScript's compiler: `.venv/bin/python -m tests.javascript`.

npm installs it, pinned, into the environment that Python runs in.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = "5.9.3"
FOLDER = Path(sys.prefix, "typescript")
PACKAGE = FOLDER / "node_modules" / "typescript"
MISSING = 3
"""Exit code where there is no compiler."""


def main() -> int:
    """Return the compiler's exit code."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return missing("Node.js and npm are not installed here.", "Install them to check the pages' scripts.")
    if not is_installed():
        options = ("--prefix", str(FOLDER), "--no-audit", "--no-fund", "--save-exact")
        done = subprocess.run([npm, "install", *options, f"typescript@{VERSION}"], capture_output=True)
        if not is_installed():
            reason = done.stderr.decode(errors="replace").strip().splitlines()
            return missing(
                f"npm could not install TypeScript {VERSION}: {' '.join(reason[-1:])}", "Check the network."
            )
    return subprocess.run([node, str(PACKAGE / "bin" / "tsc"), "-p", str(ROOT / "jsconfig.json")]).returncode


def is_installed() -> bool:
    """Return whether the pinned version is installed."""
    about = PACKAGE / "package.json"
    return about.exists() and json.loads(about.read_text("utf-8"))["version"] == VERSION


def missing(problem: str, remedy: str) -> int:
    """Return why scripts cannot be checked."""
    print(f"{problem} {remedy}", file=sys.stderr)
    return MISSING


if __name__ == "__main__":
    sys.exit(main())
