"""Rules of the repository that a program can check."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import run
from tests import javascript

ROOT = Path(run.__file__).resolve().parent
LARGEST_FILE = 2_000_000  # bytes

# Addresses that a reader may be sent to. A registry or a machine's own address belongs into nobody's files.
PUBLIC_HOSTS = {"arxiv.org", "doi.org", "github.com", "huggingface.co", "semver.org", "www.apache.org"}
LOCAL_HOSTS = {"localhost", "127.0.0.1"}
# Folders of one machine; names such as /home/you in an example are spelt with "you", "me" or a placeholder.
MACHINE_PATH = re.compile(
    r"(?<![\w.~}$/-])/(?:root|work|home/(?!you\b|me\b|user\b)\w+|Users/(?!you\b|me\b)\w+)/\w"
)
UNFINISHED_WORK = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")


def project_files() -> list[Path]:
    """List the files that belong to the repository; in a copy without git, all that are not generated."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listing.returncode == 0:
        found = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    else:
        found = [path for path in ROOT.rglob("*") if not is_generated(path.relative_to(ROOT))]
    return sorted(path for path in found if path.is_file())


def is_generated(path: Path) -> bool:
    """Return the patterns of .gitignore: caches, environments, results."""
    first = path.parts[0]
    return (
        first in (".git", ".venv", "out", "build", "dist", "site")
        or first.endswith((".egg-info", "_cache"))
        or first == ".hypothesis"
        or "__pycache__" in path.parts
    )


def text_files() -> list[Path]:
    """List the project's files with text written by people."""
    suffixes = (".py", ".md", ".toml", ".txt", ".lark", ".yml", ".js", ".css", "")
    return [path for path in project_files() if path.suffix in suffixes]


def findings(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    """Quote every line that `pattern` matches, with its position."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


@pytest.mark.parametrize("name", run.CHECKS)
def test_check_passes(name: str) -> None:
    """Run what `run.py check` runs."""
    if name == "types" and sys.version_info[:2] != (3, 11):
        pytest.skip("NumPy's stubs differ by its version, so types are checked with one: that of Python 3.11")
    result = subprocess.run(
        [sys.executable, *run.CHECKS[name]], cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace"
    )
    if name == "javascript" and result.returncode == javascript.MISSING:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_file_is_large_but_the_model() -> None:
    large = [
        str(path.relative_to(ROOT))
        for path in project_files()
        if path.stat().st_size > LARGEST_FILE and path.suffix != ".safetensors"
    ]
    assert large == []


def test_no_work_is_left_for_later() -> None:
    assert findings(UNFINISHED_WORK, text_files()) == []


def test_no_text_is_run_as_code() -> None:
    """Text from a prompt or a colour field must never reach the interpreter."""
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.func.id}"
        for path in sorted((ROOT / "lib_dumpunet").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec", "compile", "__import__")
    ]
    assert calls == []


def test_no_path_of_one_machine() -> None:
    assert findings(MACHINE_PATH, text_files()) == []


def test_no_name_of_this_machine() -> None:
    name = socket.gethostname()
    if len(name) < 6 or name.isalpha():
        pytest.skip("this machine has a name that could be a word")
    assert findings(re.compile(re.escape(name)), text_files()) == []


def test_addresses_are_public_ones() -> None:
    allowed = "|".join(re.escape(host) for host in sorted(PUBLIC_HOSTS | LOCAL_HOSTS))
    other_host = re.compile(rf"\b(?:https?|ftp|tcp)://(?!(?:{allowed})(?![\w.-])|[{{<$])")
    assert findings(other_host, text_files()) == []


def test_readme_names_only_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"run\.py ([a-z][\w-]*)", readme))
    assert {"demo", "test"} <= named
    unknown = named - set(run.COMMANDS)
    if unknown:
        command = [sys.executable, "-m", "lib_dumpunet", "--help"]
        help_text = subprocess.run(
            command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True
        ).stdout
        unknown -= set(re.findall(r"[a-z][\w-]*", help_text))
    assert unknown == set()
