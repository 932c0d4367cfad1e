"""run.py on a small project: without a network, and mostly with a stand-in for pip."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FAKE_PIP = '''
"""Notes its arguments, then does what the file pip-behaviour asks for."""
import pathlib, sys, time

arguments = sys.argv[1:]
root = pathlib.Path.cwd()
with open(root / "pip-calls", "a", encoding="utf-8") as file:
    print(" ".join(arguments), file=file)
behaviour = root / "pip-behaviour"
for line in behaviour.read_text(encoding="utf-8").splitlines() if behaviour.exists() else ():
    if line.startswith("sleep "):
        time.sleep(float(line[6:]))
    elif line.startswith("exit "):
        sys.exit(int(line[5:]))
    else:
        print(line, flush=True)
'''

FAKE_COMMAND = """
import json, os, sys

if __name__ == "__main__":
    print(json.dumps({"arguments": sys.argv[1:], "folder": os.getcwd(), "prefix": sys.prefix}))
    sys.exit(7 if "fail" in sys.argv else 0)
"""

BACKEND = '''
"""The build backend of the small project: an empty editable wheel."""
import zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel_directory + "/" + name, "w") as wheel:
        wheel.writestr("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: small\\nVersion: 1.0\\n")
        wheel.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("small-1.0.dist-info/RECORD", "")
    return name

build_wheel = build_editable
'''


class Project:
    """A folder with run.py, a command that reports how it was started, and no dependencies."""

    def __init__(self, folder: Path, run_py: Path) -> None:
        self.folder = folder
        (folder / "lib_dumpunet").mkdir(parents=True)
        shutil.copy(run_py, folder / "run.py")
        (folder / "lib_dumpunet" / "__init__.py").touch()
        (folder / "lib_dumpunet" / "__main__.py").write_text(FAKE_COMMAND, encoding="utf-8")
        (folder / "constraints.txt").touch()
        (folder / "backend.py").write_text(BACKEND, encoding="utf-8")
        (folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "small"\nversion = "1.0"\n',
            encoding="utf-8",
        )

    @property
    def python(self) -> Path:
        return self.folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def add_venv(self) -> None:
        """Make .venv with a stand-in for pip, in a fraction of pip's time."""
        venv.create(self.folder / ".venv", with_pip=False, symlinks=os.name != "nt")
        libraries = (
            self.folder
            / ".venv"
            / (
                "Lib/site-packages"
                if os.name == "nt"
                else "lib/python{}.{}/site-packages".format(*sys.version_info)
            )
        )
        (libraries / "pip").mkdir()
        (libraries / "pip" / "__init__.py").touch()
        (libraries / "pip" / "__main__.py").write_text(FAKE_PIP, encoding="utf-8")

    def pip_will(self, *lines: str) -> None:
        (self.folder / "pip-behaviour").write_text("\n".join(lines), encoding="utf-8")

    def pip_calls(self) -> list[str]:
        calls = self.folder / "pip-calls"
        return calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.folder / "run.py"), *arguments]

    def run(
        self, *arguments: str, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Start run.py offline, without this test run's pip settings."""
        return subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.folder,
            env=offline_environment(**variables),
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )


def offline_environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    return {
        **kept,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PYTHONIOENCODING": "utf-8",
        **variables,
    }


@pytest.fixture
def project(tmp_path: Path, root: Path) -> Project:
    project = Project(tmp_path / "a folder, größe 大", root / "run.py")
    project.add_venv()
    return project


def report(result: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """Read the last line that the small project's command printed."""
    assert result.returncode in (0, 7), result.stdout + result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_arguments_folder_and_exit_code_pass_through(project: Project, tmp_path: Path) -> None:
    arguments = ["generate", "a b", "", "--x=ü 大", "-k", "--help", "$HOME *", 'say "hi"', "fail"]
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong module')", encoding="utf-8")

    result = project.run(*arguments, cwd=tmp_path)

    assert result.returncode == 7
    assert report(result) == {
        "arguments": arguments,
        "folder": str(tmp_path),
        "prefix": str(project.folder / ".venv"),
    }


def test_first_start_installs_and_second_does_not(project: Project) -> None:
    report(project.run("demo"))
    calls = project.pip_calls()
    assert [call.split()[-1] for call in calls] == ["setuptools", ".[all]"]
    assert all("--constraint constraints.txt" in call for call in calls)

    second = project.run("demo")

    assert project.pip_calls() == calls
    assert len(second.stdout.splitlines()) == 1


def test_second_start_takes_no_noticeable_time(project: Project) -> None:
    report(project.run("demo"))

    def fastest(command: list[str]) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            subprocess.run(command, env=offline_environment(), check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
        return min(times)

    # run.py replaces itself by a second Python, which is part of its price.
    python = fastest([str(project.python), "-c", "import runpy, json"])
    # 0.1 s is the promise for an idle machine; a machine that is busy gets a little more.
    assert fastest(project.command("demo")) - python < 0.2


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_changed_pins_are_installed(project: Project, changed: str) -> None:
    report(project.run("demo"))
    (project.folder / changed).write_text("# changed", encoding="utf-8")

    report(project.run("demo"))

    assert len(project.pip_calls()) == 4
    assert project.python.exists()


def test_what_tests_need_is_installed_when_first_asked_for(project: Project) -> None:
    report(project.run("demo"))
    for _ in range(2):
        project.run("check", "lint")
        assert [call.split()[-1] for call in project.pip_calls()[2:]] == [".[test]", "stable-diffusion-sdkit"]
    report(project.run("demo"))
    assert len(project.pip_calls()) == 4


def test_what_the_site_needs_is_installed_when_first_asked_for(project: Project) -> None:
    report(project.run("demo"))
    for _ in range(2):
        project.run("docs")
        assert [call.split()[-1] for call in project.pip_calls()[2:]] == [".[docs]"]


def test_failing_to_get_what_tests_need_leaves_the_rest_usable(project: Project) -> None:
    report(project.run("demo"))
    project.pip_will("Temporary failure in name resolution", "exit 1")
    assert project.run("test").returncode == 1

    assert len(project.run("demo").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("NewConnectionError('...: Name or service not known')", "could not be reached"),
        ("SSLError(SSLCertVerificationError(CERTIFICATE_VERIFY_FAILED))", "global.cert"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk is full"),
        (
            "ERROR: No matching distribution found for torch==2.13.0",
            "found no version of a package that fits",
        ),
        ("ERROR: Could not install: [Errno 13] Permission denied: 'x'", "could not be written"),
        ("ERROR: something new", "an installer failed"),
    ],
)
def test_failed_install_says_what_to_do(project: Project, said: str, told: str) -> None:
    project.pip_will("Collecting torch", said, "exit 2")

    result = project.run("demo")

    assert result.returncode == 1
    assert told in result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    log = project.folder / ".venv" / "dumpunet-install.log"
    assert str(log) in result.stderr
    assert said in log.read_text(encoding="utf-8")

    project.pip_will()
    report(project.run("demo"))


def inside(project: Project, patch: str) -> subprocess.CompletedProcess[str]:
    """Start `run.py demo` with a part of it replaced: `patch` is Python that sees the module as `run`."""
    path = f"import sys; sys.path.insert(0, {str(project.folder)!r})"
    script = f"{path}; import run; {patch}; sys.exit(run.main(['demo']))"
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=project.folder,
        env=offline_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


@pytest.mark.skipif(os.name == "nt", reason="only Debian leaves ensurepip out")
def test_python_without_ensurepip_is_told(project: Project, tmp_path: Path) -> None:
    shutil.rmtree(project.folder / ".venv")
    python = tmp_path / "debian-python"
    python.write_text(
        "#!/bin/sh\necho The environment was not created because ensurepip is not available.; exit 1"
    )
    python.chmod(0o755)

    result = inside(project, "sys._base_executable = " + repr(str(python)))

    assert result.returncode == 1
    assert "sudo apt install python{}.{}-venv".format(*sys.version_info) in result.stderr


# Stands for create_venv where the real one would only cost time: keeps .venv, which has the stand-in for pip.
SAME_VENV_AGAIN = (
    "run.create_venv = lambda: (print('Making it anew'), run.UNFINISHED.unlink(missing_ok=True))"
)


@pytest.mark.skipif(os.name == "nt", reason="a lock does not outlive its process there")
def test_killed_install_is_repaired_and_its_lock_is_free(project: Project) -> None:
    project.pip_will("Installing collected packages: torch, numpy", "sleep 2")
    marker = project.folder / ".venv" / "dumpunet-unfinished"
    with subprocess.Popen(
        project.command("demo"), cwd=project.folder, env=offline_environment(), stdout=subprocess.PIPE
    ) as first:
        wait_until(marker.exists)
        first.kill()

    # The stand-in for pip lives on for a moment: whoever comes next must wait for it, then start afresh.
    project.pip_will()
    result = inside(project, SAME_VENV_AGAIN)

    assert "waiting for it" in result.stdout
    assert "Making it anew" in result.stdout
    assert report(result)
    assert not marker.exists()


def test_moved_folder_is_noticed(project: Project, tmp_path: Path) -> None:
    """Files that pip writes into .venv contain its path."""
    report(project.run("demo"))
    project.folder = project.folder.rename(tmp_path / "moved")

    result = inside(project, SAME_VENV_AGAIN)

    assert "Making it anew" in result.stdout
    assert len(project.pip_calls()) == 4
    assert len(project.run("demo").stdout.splitlines()) == 1


def test_two_starts_at_once_install_once(project: Project) -> None:
    project.pip_will("sleep 0.5")
    starts = [
        subprocess.Popen(
            project.command("demo", str(number)),
            cwd=project.folder,
            env=offline_environment(),
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        for number in range(2)
    ]
    outputs = [start.communicate(timeout=60)[0] for start in starts]

    assert [start.returncode for start in starts] == [0, 0]
    assert len(project.pip_calls()) == 2
    assert sum("waiting for it" in output for output in outputs) == 1


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.skipif(os.name == "nt", reason="a Ctrl-C cannot be sent to one process there")
def test_ctrl_c_while_installing_ends_without_traceback(project: Project) -> None:
    project.pip_will("Collecting torch", "sleep 20")
    start = subprocess.Popen(
        project.command("demo"),
        cwd=project.folder,
        env=offline_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    wait_until(lambda: project.pip_calls() != [])
    start.send_signal(signal.SIGINT)
    _, said = start.communicate(timeout=10)

    assert start.returncode == 130
    assert "Interrupted" in said
    assert "Traceback" not in said


def test_broken_venv_is_made_anew_by_the_real_pip(tmp_path: Path, root: Path) -> None:
    """The only full test: venv, pip, a package from a folder, the project itself."""
    project = Project(tmp_path / "whole way", root / "run.py")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "setuptools-999-py3-none-any.whl", "w") as wheel:
        info = "setuptools-999.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: setuptools\nVersion: 999\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (project.folder / "constraints.txt").write_text("setuptools==999", encoding="utf-8")
    project.python.parent.mkdir(parents=True)
    project.python.symlink_to(tmp_path / "a Python that was removed")

    result = project.run("demo", PIP_FIND_LINKS=str(wheels), PIP_USER="1")

    assert "Creating" in result.stdout
    assert report(result)["prefix"] == str(project.folder / ".venv")
    installed = [path.name for path in (project.folder / ".venv").rglob("*.dist-info")]
    assert {"setuptools-999.dist-info", "small-1.0.dist-info"} <= set(installed)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_usage_installs_nothing(tmp_path: Path, root: Path, arguments: tuple[str, ...]) -> None:
    project = Project(tmp_path / "fresh", root / "run.py")

    result = project.run(*arguments)

    assert result.returncode == 0
    assert "usage: python run.py COMMAND" in result.stdout
    assert not (project.folder / ".venv").exists()


def test_unknown_check_is_named(project: Project) -> None:
    result = project.run("check", "spelling")
    assert result.returncode == 2
    assert "'spelling'" in result.stderr


def test_old_python_is_refused_in_words(root: Path) -> None:
    """No old Python is needed: the version that run.py gets is faked, and its syntax is parsed as 3.7's."""
    source = (root / "run.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))
    script = "import sys; sys.version_info = (3, 6, 15); exec(compile(sys.stdin.read(), 'run.py', 'exec'))"

    result = subprocess.run(
        [sys.executable, "-c", script], input=source, capture_output=True, encoding="utf-8"
    )

    assert result.returncode == 1
    assert result.stderr.strip().startswith("Dump U-Net needs Python 3.10 or newer, and this is Python 3.6.")
