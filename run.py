"""Start Dump U-Net: create `.venv` next to this file, install the pinned packages into it, and run a command in it.

This file uses only the standard library, and still parses on Python 3.6, so that an old Python gets a message instead
of a syntax error. Later starts only read one small file: a stamp in `.venv` that records the installed packages, the
Python and the location. The stamp and a marker file reveal a broken `.venv` (an interrupted installation, a moved
folder, a removed Python), and the next start repairs it.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit(
        "Dump U-Net needs Python 3.10 or newer, and this is Python %d.%d. Start run.py with a newer one, "
        "for example: python3.12 run.py demo" % sys.version_info[:2]
    )

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "dumpunet-stamp.json"
UNFINISHED = VENV / "dumpunet-unfinished"
LOCK = VENV / "dumpunet-lock"
LOG = VENV / "dumpunet-install.log"
MOST_TEST_PROCESSES = 4  # each has torch and a browser in memory: 2 GB

# Arguments of `pip install`, in order. setuptools comes first because the project is built with the pinned copy in
# .venv. stable-diffusion-sdkit provides the U-Net in the original layout for the tests; its dependencies are old, large
# and not needed for that.
PACKAGE_SETS = {
    "base": (("setuptools",), ("--no-build-isolation", "--editable", ".[all]")),
    "test": (("--no-build-isolation", "--editable", ".[test]"), ("--no-deps", "stable-diffusion-sdkit")),
    "docs": (("--no-build-isolation", "--editable", ".[docs]"),),
}

# The commands that `check` runs in .venv's Python; tests/test_repository_rules.py runs the same.
CHECKS = {
    "lint": ("-m", "ruff", "check", "."),
    "format": ("-m", "ruff", "format", "--check", "."),
    "types": ("-m", "mypy"),
    "imports": ("-c", "from importlinter.cli import lint_imports_command as main; main()"),
    "javascript": ("-m", "tests.javascript"),
}

# `python -m` would put the current folder first on the path, and import a user's file such as random.py, or another
# copy of this project. Here the project's folder takes its place.
START_MODULE = (
    "import runpy, sys; sys.path[0] = sys.argv.pop(1); "
    "runpy.run_module('lib_dumpunet', run_name='__main__', alter_sys=True)"
)

COMMANDS = {
    "demo": "draw the features of the small bundled model, without a network",
    "studio": "open the studio, a page in the browser for all of this",
    "explore": "generate an image, and an explorer page of everything captured",
    "generate": "generate images, with pictures of blocks and attention layers",
    "words": "generate an image, and show where each word of the prompt lands",
    "sweep": "try a text in each block, and rank the blocks by how much it changes the image",
    "blocks": "list a model's blocks with their shapes and attention layers",
    "prompt": "show the text that each block reads from a per-block prompt",
    "view": "redraw dumped tensors in other colours",
    "bench": "measure speed and memory",
    "test": "run all tests, all except slow ones (--quick), or pass arguments to pytest",
    "docs": "build the documentation site in the folder site",
    "check": "run all code checks, or only the named ones ({})".format(", ".join(CHECKS)),
}

if sys.platform == "linux":
    SIZE = "up to 3 GB of downloads and 7 GB on disk (mostly NVIDIA's libraries)"
else:
    SIZE = "about 0.4 GB of downloads and 1.7 GB on disk"

# (fragments of pip's or venv's output in lower case, what happened, what to do); the first match is reported.
CAUSES = (
    (
        ("no space left on device", "errno 28", "not enough space on the disk", "disk quota exceeded"),
        "the disk is full.",
        f"Free some space (all packages need {SIZE}), then run the same command again.",
    ),
    (
        ("ensurepip is not available", "no module named ensurepip", "no module named venv"),
        "this Python comes without venv or ensurepip.",
        "On Debian and Ubuntu: sudo apt install python{0}-venv. Elsewhere, install a complete Python {0}.".format(
            "%d.%d" % sys.version_info[:2]
        ),
    ),
    (
        ("certificate_verify_failed", "sslerror", "ssl module is not available"),
        "the secure connection to the package registry was refused.",
        "Behind a company's proxy, name its certificate: pip config set global.cert FILE. "
        "A wrong clock on this computer has the same effect. Then run the same command again.",
    ),
    (
        (
            "newconnectionerror",
            "connecttimeouterror",
            "readtimeouterror",
            "name resolution",
            "connection broken",
            "connection refused",
            "connection reset",
            "proxyerror",
            "timed out",
            "network is unreachable",
            "getaddrinfo failed",
        ),
        "the package registry could not be reached.",
        "Check the network and, if you have one, the proxy (HTTPS_PROXY), then run the same command again; "
        "complete downloads are kept.",
    ),
    (
        ("no matching distribution found", "requires a different python", "resolutionimpossible"),
        "pip found no version of a package that fits.",
        "Either the package registry did not answer (check the network), or no version supports this computer: "
        "PyTorch supports Python 3.10 to 3.13 on 64-bit Linux, Windows, and Macs with an Apple chip (macOS 14 or "
        "newer). This is Python {} on {}.".format("%d.%d" % sys.version_info[:2], sys.platform),
    ),
    (
        ("long path support",),
        "a path is longer than Windows allows by default.",
        "Move the project into a folder with a short path, such as C:\\dumpunet, then run the same command again.",
    ),
    (
        ("permission denied", "permissionerror", "winerror 5", "read-only file system", "access is denied"),
        "a file could not be written.",
        "Move the project to a folder of your own, close programs that use its .venv, then run the same command "
        "again.",
    ),
)


class SetupError(Exception):
    """`.venv` could not be set up; the message says what to do."""


def main(argv: list[str]) -> int:
    """Set up `.venv` for the command in `argv`, run it there, and return its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    command, arguments = argv[0], argv[1:]
    own = {"test": "test", "check": "test", "docs": "docs"}.get(command)
    try:
        prepare(["base", own] if own else ["base"])
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The next start continues from here.", file=sys.stderr)
        return 130
    if command == "check":
        return check(arguments)
    if command == "test":
        os.chdir(ROOT)
        whole = arguments in ([], ["--quick"])
        return start(["-m", "pytest", "--verbosity=1", *arguments, *(shared_among_cores() if whole else [])])
    if command == "docs":
        os.chdir(ROOT)
        return start(["-m", "mkdocs", "build", "--strict"])
    return start(["-c", START_MODULE, str(ROOT), *argv])


def shared_among_cores() -> list[str]:
    """Return pytest's arguments for running test files in parallel; memory limits the number of processes.

    There is one more than cores, as tests that wait for a page or a process leave a core idle.
    """
    cores = os.cpu_count() or 1
    if cores == 1:
        return []
    processes = min(cores + 1, MOST_TEST_PROCESSES)
    return ["--numprocesses", str(processes), "--dist", "loadfile", "--no-loadscope-reorder"]


def usage() -> str:
    """Return the text of `--help`."""
    lines = ["usage: python run.py COMMAND [ARGUMENTS]", ""]
    lines += [f"  {name:<8} {text}" for name, text in COMMANDS.items()]
    lines += [
        "",
        "Each command except test, check and docs has --help: `python run.py demo --help`.",
        f"The first start installs the required packages into {VENV.name} here: a few minutes, {SIZE}.",
    ]
    return "\n".join(lines)


# --- running -------------------------------------------------------------------------------------------------------


def start(arguments: list[str]) -> int:
    """Replace this process with `.venv`'s Python, or on Windows run it and wait."""
    command = [str(PYTHON), *arguments]
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, run_environment())
    return wait_for(subprocess.Popen(command, env=run_environment()))


def wait_for(process: "subprocess.Popen[bytes]") -> int:
    """Wait for a process and return its exit code; Ctrl-C also reaches the process, which decides when to end."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def check(names: list[str]) -> int:
    """Run the named checks, or all; return the first nonzero exit code."""
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"There is no check {unknown[0]!r}. Use {', '.join(CHECKS)}.", file=sys.stderr)
        return 2
    codes = []
    for name in names or CHECKS:
        print(f"check {name}", flush=True)
        codes.append(
            wait_for(subprocess.Popen([str(PYTHON), *CHECKS[name]], cwd=ROOT, env=run_environment()))
        )
    return next((code for code in codes if code), 0)


def run_environment() -> dict[str, str]:
    """Copy the environment without PYTHONHOME, which would make `.venv`'s Python use another Python's library."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}


# --- is there anything to do? --------------------------------------------------------------------------------------


def prepare(wanted: list[str]) -> None:
    """Install the `wanted` package sets that `.venv` lacks, usually none."""
    if missing(wanted) == []:
        return
    try:
        VENV.mkdir(exist_ok=True)
        with locked():
            # Another process may have done this while this one waited for the lock.
            if missing(wanted) and not venv_works():
                create_venv()
            for name in missing(wanted):
                install(name)
                write_stamp(name)
    except OSError as error:
        raise SetupError(explain(str(error))) from error


def missing(wanted: list[str]) -> list[str]:
    """Return the package sets that are not recorded in the stamp; all of them after an unfinished installation."""
    there = installed_sets() if python_exists() and not UNFINISHED.exists() else []
    return [name for name in wanted if name not in there]


def installed_sets() -> list[str]:
    """Return the sets that the stamp records for these pins, this Python and this location."""
    stamp = read_stamp()
    if any(stamp.get(key) != value for key, value in identity().items()):
        return []
    sets = stamp.get("sets")
    return [str(name) for name in sets] if isinstance(sets, list) else []


def read_stamp() -> dict[str, object]:
    """Return the stamp's fields; empty if it is missing or damaged."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def identity() -> dict[str, str]:
    """Return what an installation depends on: sources, Python, and location (scripts contain absolute paths)."""
    digest = hashlib.sha256(repr(PACKAGE_SETS).encode())
    for source in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / source).read_bytes())
    return {"digest": digest.hexdigest(), "python": python_version(), "place": str(VENV)}


def python_version() -> str:
    """Return the running Python's implementation and version; Pythons that differ in it cannot share packages."""
    return "{}-{}.{}".format(sys.implementation.name, *sys.version_info[:2])


def python_exists() -> bool:
    """Return whether `.venv`'s Python exists, and on Windows the Python that it points to."""
    if not PYTHON.exists():
        return False
    if os.name != "nt":
        return True
    try:
        lines = (VENV / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False
    homes = [line.partition("=")[2].strip() for line in lines if line.partition("=")[0].strip() == "home"]
    return bool(homes) and Path(homes[0]).is_dir()


def venv_works() -> bool:
    """Return whether packages can be installed into `.venv`, by asking its Python for its version and pip."""
    if UNFINISHED.exists() or not python_exists() or read_stamp().get("place", str(VENV)) != str(VENV):
        return False
    probe = "import pip, sys; print('{}-{}.{}'.format(sys.implementation.name, *sys.version_info[:2]))"
    try:
        answer = subprocess.run(
            [str(PYTHON), "-I", "-c", probe], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return False
    return answer.returncode == 0 and answer.stdout.decode().strip() == python_version()


# --- installing ----------------------------------------------------------------------------------------------------


def create_venv() -> None:
    """Create `.venv`, replacing any contents."""
    print(f"Creating {VENV} for Python {'%d.%d' % sys.version_info[:2]}.", flush=True)
    clear_venv()
    UNFINISHED.touch()
    # Not sys.executable: if .venv's own Python runs run.py, that file has just been removed.
    base = getattr(sys, "_base_executable", None) or sys.executable
    run_logged([base, "-m", "venv", str(VENV)])
    UNFINISHED.unlink()


def clear_venv() -> None:
    """Remove everything in `.venv` except the lock, which this process holds; the stamp first, so it is never stale."""
    STAMP.unlink(missing_ok=True)
    for entry in VENV.iterdir():
        if entry == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def install(name: str) -> None:
    """Install one package set with pip, at the pinned versions."""
    if name == "base":
        print(
            f"Installing the packages of Dump U-Net. This takes a few minutes and {SIZE}.",
            flush=True,
        )
    else:
        print(f"Installing the packages for {name}. This happens only once.", flush=True)
    options = [
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
        "--constraint",
        "constraints.txt",
    ]
    for arguments in PACKAGE_SETS[name]:
        run_logged([str(PYTHON), "-m", "pip", "install", *options, *arguments])
        UNFINISHED.unlink(missing_ok=True)


def write_stamp(name: str) -> None:
    """Add a complete package set to the stamp."""
    stamp = {**identity(), "sets": sorted({*installed_sets(), name})}
    aside = STAMP.with_suffix(".new")
    aside.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    aside.replace(STAMP)


def run_logged(command: list[str]) -> None:
    """Run an installer, writing its output to the log and a short form to the screen.

    Once pip says that it is installing packages, `.venv` counts as unfinished: if that is interrupted, the next start
    creates it again. An earlier failure, such as no network, leaves installed packages usable.
    """
    lines = []
    # close_fds=False: the installer inherits the lock, so that it holds until the installer ends, even if this process
    # is killed. No other file of this process is inheritable.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=install_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        close_fds=False,
    )
    assert process.stdout is not None
    try:
        with process.stdout, LOG.open("a", encoding="utf-8") as log:
            print(f"$ {' '.join(command)}", file=log, flush=True)
            for line in (raw.decode("utf-8", "replace").rstrip() for raw in process.stdout):
                if line.startswith("Installing collected packages"):
                    UNFINISHED.touch()
                lines.append(line)
                print(line, file=log, flush=True)
                show(brief(line))
    except BaseException:
        process.terminate()
        raise
    finally:
        process.wait()
        show(None)
    if process.returncode != 0:
        raise SetupError(explain("\n".join(lines)))


def install_environment() -> dict[str, str]:
    """Copy the environment without variables that would make pip use or install into another place than `.venv`."""
    elsewhere = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
    kept = {name: value for name, value in os.environ.items() if name not in elsewhere}
    return {**kept, "PYTHONIOENCODING": "utf-8", "PIP_USER": "0"}


def brief(line: str) -> "str | None":
    """Shorten a line of pip's output about progress; return None for other lines."""
    words = line.split()
    if not words or ".metadata" in line:
        return None
    if line.startswith("Installing collected packages"):
        return f"writing packages: {line.count(',') + 1}"
    if words[0] in ("Downloading", "Processing") and len(words) > 1:
        return " ".join([words[0].lower(), words[1].replace("\\", "/").rpartition("/")[2], *words[2:]])
    return None


def show(text: "str | None") -> None:
    """Show progress: one changing line in a terminal, otherwise only large downloads; None clears it."""
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - 3
        print("\r  " + (text or "")[:room].ljust(room), end="\r", flush=True)
    elif text is not None and (" MB)" in text or "GB)" in text or text.startswith("writing")):
        print(f"  {text}", flush=True)


def explain(output: str) -> str:
    """Turn the output of a failed installation into what happened, what to do, and where the full output is."""
    small = output.lower()
    what, remedy = "an installer failed.", "Its last lines may say why."
    for fragments, cause, advice in CAUSES:
        if any(fragment in small for fragment in fragments):
            what, remedy = cause, advice
            break
    lines = [f"  {line}" for line in output.splitlines() if line.strip()][-12:]
    lines += ["", f"{VENV} could not be set up: {what}", remedy]
    if LOG.exists():
        lines.append(f"Full output: {LOG}")
    return "\n".join(lines)


# --- one at a time -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Let one process at a time change `.venv`; the system releases the lock when its holder ends, even if killed."""
    with LOCK.open("ab") as file:
        if not try_lock(file):
            print("Another run.py is installing; waiting for it.", flush=True)
            while not try_lock(file):
                time.sleep(0.2)
        yield


if sys.platform == "win32":
    import msvcrt

    def try_lock(file: IO[bytes]) -> bool:
        """Lock the file's first byte; return False if another process has it."""
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def try_lock(file: IO[bytes]) -> bool:
        """Lock the file; return False if another process has it, True on a file system without locks."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        os.set_inheritable(file.fileno(), True)
        return True


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        # A path may contain characters that the console cannot show; that must not be an error.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
