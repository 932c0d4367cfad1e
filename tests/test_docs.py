"""The documentation is true: samples run, commands are accepted, links and pictures exist."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import run as starter
from lib_dumpunet.app.cli import main, make_parser
from tests.samples import LANGUAGES, Sample, commands, pages, samples
from tests.test_repository_rules import project_files

pytestmark = pytest.mark.slow

ROOT = Path(starter.__file__).resolve().parent
DRY = ("generate", "explore", "words", "sweep")
"""Commands that can say what they would do."""


def ids(sample: object) -> str:
    return str(sample) if isinstance(sample, Sample) else ""


def arguments_of(command: list[str]) -> list[str] | None:
    """Return the arguments for our command line; None for commands of other programs or of run.py itself."""
    if command[:2] == ["python3", "run.py"] and command[2] not in ("test", "check", "docs"):
        assert command[2] in starter.COMMANDS
        return command[2:]
    return command[1:] if command[0] == "dumpunet" else None


def run_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code and output."""
    code = main(arguments)
    return (code, *capsys.readouterr())


def test_each_sample_says_what_it_is() -> None:
    assert [str(sample) for sample in samples(ROOT) if sample.language not in LANGUAGES] == []
    counts = {language: len(samples(ROOT, language)) for language in ("sh", "console", "python")}
    assert counts["sh"] > 15
    assert counts["console"] > 3
    assert counts["python"] > 4


@pytest.mark.parametrize("sample", samples(ROOT, "sh", "console"), ids=ids)
def test_commands_are_those_of_the_parser(sample: Sample) -> None:
    for command in commands(sample):
        arguments = arguments_of(command)
        if arguments is not None:
            make_parser().parse_args(arguments)
        elif command[:2] == ["python3", "run.py"]:
            assert set(command[3:]) <= {"-x", "tests/image"}
        else:
            assert command[0] in ("pip", "curl"), f"{sample}: {command[0]} is not known"


def ours(sample: Sample) -> list[list[str]]:
    return [arguments for command in commands(sample) if (arguments := arguments_of(command)) is not None]


DRY_RUNS = [
    pytest.param(arguments, id=f"{sample}-{i}")
    for sample in samples(ROOT, "sh")
    for i, arguments in enumerate(ours(sample))
    if arguments[0] in DRY and "--model" not in arguments
]


@pytest.mark.parametrize("arguments", DRY_RUNS)
def test_the_bundled_model_takes_the_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything except sampling: settings are resolved against the model, and words found in the prompt."""
    code, _, err = run_command([*arguments, "--dry-run", "-q"], capsys)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("sample", samples(ROOT, "console"), ids=ids)
def test_what_a_command_prints_is_what_stands_there(
    sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    (arguments,) = ours(sample)
    code, out, err = run_command(arguments, capsys)
    printed, expected = err if code else out, sample.text.partition("\n")[2]
    if arguments[0] == "blocks":  # the shapes are the bundled model's own, which may become another
        printed, expected = layers(printed), layers(expected)
    assert printed == expected


def layers(table: str) -> str:
    """Keep only the names and kinds of blocks."""
    return "\n".join(" ".join(line.split()[:2]) for line in table.splitlines())


@pytest.fixture(scope="module")
def done_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo has been run, as the samples assume."""
    folder = tmp_path_factory.mktemp("reader")
    assert main(["demo", "-q", "-o", str(folder / "dumpunet-out")]) == 0
    return folder


@pytest.mark.parametrize(
    "path", sorted({sample.path for sample in samples(ROOT, "python")}), ids=lambda path: path.name
)
def test_python_of_a_page_runs_from_top_to_bottom(path: Path, done_before: Path, tmp_path: Path) -> None:
    """Runs in its own process, in which warnings are not errors: it is the user's program."""
    script = tmp_path / "page.py"
    texts = [sample.text for sample in samples(ROOT, "python") if sample.path == path]
    script.write_text("\n\n".join(texts), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, str(script)],
        cwd=done_before,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_draws_dumps_of_the_demo_again(
    done_before: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done_before)
    (view,) = [a for s in samples(ROOT, "sh") if s.path.name == "dumps.md" for a in ours(s) if a[0] == "view"]
    code, _, err = run_command([*view, "-q"], capsys)
    assert (code, err) == (0, "")
    assert list((done_before / view[view.index("--out") + 1]).glob("*.png"))


def test_extras_to_install_are_there() -> None:
    declared = (ROOT / "pyproject.toml").read_text("utf-8").partition("[project.optional-dependencies]")[2]
    extras = re.findall(r"^(\w+) = \[", declared.partition("\n[")[0], re.MULTILINE)
    text = "\n".join(path.read_text("utf-8") for path in pages(ROOT))
    named = {name for part in re.findall(r"(?:dumpunet|\.)\[([a-z,]+)\]", text) for name in part.split(",")}
    assert named
    assert named <= set(extras)


def anchors(path: Path) -> set[str]:
    """Return a page's headings as anchors of links."""
    titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", pages(ROOT), ids=lambda path: path.name)
def test_links_and_pictures_are_there(path: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.is_file(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{path.name}: {target}"


def test_pictures_tell_what_they_show() -> None:
    tags = [tag for path in pages(ROOT) for tag in re.findall(r"<img [^>]*>", path.read_text("utf-8"))]
    assert [tag for tag in tags if 'alt="' not in tag] == []


def test_no_picture_is_left_over() -> None:
    text = "\n".join(path.read_text("utf-8") for path in pages(ROOT))
    pictures = [path.name for path in project_files() if path.parent == ROOT / "images"]
    assert [name for name in pictures if not name.endswith(".py") and f"images/{name}" not in text] == []


def navigation() -> list[str]:
    """List the pages in the site's table of contents."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    return [
        page
        for part in config["nav"]
        for entries in part.values()
        for entry in entries
        for page in entry.values()
    ]


def test_every_page_is_in_the_table_of_contents() -> None:
    assert sorted(navigation()) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def named(identifier: str) -> Any:
    """Import the object that a dotted name of the reference means."""
    try:
        return importlib.import_module(identifier)
    except ModuleNotFoundError:
        module, _, name = identifier.rpartition(".")
        return getattr(importlib.import_module(module), name)


def test_the_reference_has_what_the_package_offers() -> None:
    identifiers = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
    assert all(named(identifier).__doc__ for identifier in identifiers)
    package = importlib.import_module("lib_dumpunet")
    errors = {name for name in package.__all__ if name.endswith("Error")}
    orders = {"SD1", "SDXL"}  # values of BlockOrder
    assert set(package.__all__) - errors - orders <= {name.rpartition(".")[2] for name in identifiers}


def test_readme_is_read_in_five_minutes() -> None:
    words = re.sub(r"<img [^>]*>", "", (ROOT / "README.md").read_text("utf-8")).split()
    assert len(words) < 1000  # 200 words a minute


def test_the_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the packages for the site are not installed: run.py docs")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert built.returncode == 0, built.stderr
    html = (tmp_path / "site" / "api.html").read_text("utf-8")
    assert "load_dump" in html


FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_are_ones(path: Path) -> None:
    form = yaml.safe_load(path.read_text("utf-8"))
    assert {"name", "description", "body"} <= set(form)
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked)
    assert all(part["attributes"]["label"] for part in asked)
    assert all(part["attributes"]["options"] for part in asked if part["type"] == "dropdown")
