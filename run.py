"""Start Dump U-Net: make `.venv` beside this file, install the pinned packages into it, run a command in it.

Only the standard library is used, and this file still parses on Python 3.6, so that an old Python gets a sentence
instead of a syntax error. The second start costs no more than reading one small file: a stamp in `.venv` says what
was installed for which Python, at which place. What breaks a `.venv` (an install that was cut off, a moved folder,
a Python that is gone) is noticed by the stamp or by a marker, and mended by the next start.
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
MOST_TEST_PROCESSES = 4  # each holds torch and a browser: 2 GB

# What `pip install` is called with, in this order. setuptools comes first because the build of this project takes
# it from .venv: no second copy is downloaded, and it is the pinned one. stable-diffusion-sdkit carries the U-Net of
# the original layout for the tests; what it asks for is old and large, and none of it is needed for that.
PACKAGE_SETS = {
    "base": (("setuptools",), ("--no-build-isolation", "--editable", ".[all]")),
    "test": (("--no-build-isolation", "--editable", ".[test]"), ("--no-deps", "stable-diffusion-sdkit")),
    "docs": (("--no-build-isolation", "--editable", ".[docs]"),),
}

# What `check` runs in .venv's Python; tests/test_repository_rules.py runs the same.
CHECKS = {
    "lint": ("-m", "ruff", "check", "."),
    "format": ("-m", "ruff", "format", "--check", "."),
    "types": ("-m", "mypy"),
    "imports": ("-c", "from importlinter.cli import lint_imports_command as main; main()"),
    "javascript": ("-m", "tests.javascript"),
}

# `python -m` would put the current folder first on the path, where a file of the user's, say random.py, or another
# copy of this project would be imported. Here this project's folder stands in its place.
START_MODULE = (
    "import runpy, sys; sys.path[0] = sys.argv.pop(1); "
    "runpy.run_module('lib_dumpunet', run_name='__main__', alter_sys=True)"
)

COMMANDS = {
    "demo": "draw the features of the small bundled model: a first look, needs no network",
    "studio": "open a page in the browser that does all of it",
    "explore": "make an image, and a page to look around in all that happened",
    "generate": "make images, with pictures of what the blocks and attention layers do",
    "words": "make an image, and show where each word of the prompt lands",
    "sweep": "try a text in each block, and rank the blocks by what it changes",
    "blocks": "list a model's blocks with their shapes and attention layers",
    "prompt": "show the text that each block gets from a per-block prompt",
    "view": "draw dumped tensors again, in other colours",
    "bench": "measure what capturing costs",
    "test": "run all tests, all but slow ones (--quick), or what follows, as pytest takes it",
    "docs": "build the documentation as a site, into the folder site",
    "check": "run the code checks: all, or those named ({})".format(", ".join(CHECKS)),
}

if sys.platform == "linux":
    SIZE = "up to 3 GB of downloads and 7 GB on disk (NVIDIA's libraries are most of it)"
else:
    SIZE = "about 0.4 GB of downloads and 1.7 GB on disk"

# (fragments of pip's or venv's output in small letters, what happened, what to do); the first that fits is told.
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
        "A wrong clock of this computer has the same effect. Then run the same command again.",
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
        "whole files that were downloaded are kept.",
    ),
    (
        ("no matching distribution found", "requires a different python", "resolutionimpossible"),
        "pip found no version of a package that fits.",
        "Either the package registry did not answer (check the network), or there is none for this computer: "
        "PyTorch supports Python 3.10 to 3.13 on 64-bit Linux, Windows, and Macs with an Apple chip (macOS 14 or "
        "newer). This is Python {} on {}.".format("%d.%d" % sys.version_info[:2], sys.platform),
    ),
    (
        ("long path support",),
        "a path became longer than Windows allows by default.",
        "Move the project into a folder with a short path, such as C:\\dumpunet, then run the same command again.",
    ),
    (
        ("permission denied", "permissionerror", "winerror 5", "read-only file system", "access is denied"),
        "a file could not be written.",
        "Put the project into a folder of your own, close programs that use its .venv, then run the same command "
        "again.",
    ),
)


class SetupError(Exception):
    """Say that `.venv` could not be made ready, and what to do about it."""


def main(argv: list[str]) -> int:
    """Make `.venv` ready for the command in `argv`, run it there, and return its exit code."""
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
        print("\nInterrupted. The next start goes on from here.", file=sys.stderr)
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
    """Return pytest's arguments that share all tests among the cores, file by file; memory bounds the processes."""
    processes = min(os.cpu_count() or 1, MOST_TEST_PROCESSES)
    return ["--numprocesses", str(processes), "--dist", "loadfile"] if processes > 1 else []


def usage() -> str:
    """Write what `--help` shows."""
    lines = ["usage: python run.py COMMAND [ARGUMENTS]", ""]
    lines += [f"  {name:<8} {text}" for name, text in COMMANDS.items()]
    lines += [
        "",
        "Each but test, check and docs has --help: `python run.py demo --help`.",
        f"The first start installs what is needed into {VENV.name} here: a few minutes, {SIZE}.",
    ]
    return "\n".join(lines)


# --- running -------------------------------------------------------------------------------------------------------


def start(arguments: list[str]) -> int:
    """Become `.venv`'s Python with `arguments`, or wait for it where a process cannot be replaced (Windows)."""
    command = [str(PYTHON), *arguments]
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, run_environment())
    return wait_for(subprocess.Popen(command, env=run_environment()))


def wait_for(process: "subprocess.Popen[bytes]") -> int:
    """Return the exit code; a Ctrl-C reaches the process by itself, which then decides when to end."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def check(names: list[str]) -> int:
    """Run the named checks, or all; return the first exit code that is not 0."""
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"No check is called {unknown[0]!r}. There are: {', '.join(CHECKS)}.", file=sys.stderr)
        return 2
    codes = []
    for name in names or CHECKS:
        print(f"check {name}", flush=True)
        codes.append(
            wait_for(subprocess.Popen([str(PYTHON), *CHECKS[name]], cwd=ROOT, env=run_environment()))
        )
    return next((code for code in codes if code), 0)


def run_environment() -> dict[str, str]:
    """Copy the environment without PYTHONHOME, which would send `.venv`'s Python to another's library."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}


# --- is there anything to do? --------------------------------------------------------------------------------------


def prepare(wanted: list[str]) -> None:
    """Install those of the `wanted` package sets that `.venv` lacks; usually none, and nothing is started."""
    if missing(wanted) == []:
        return
    try:
        VENV.mkdir(exist_ok=True)
        with locked():
            # Another start may have done the work while this one waited.
            if missing(wanted) and not venv_works():
                create_venv()
            for name in missing(wanted):
                install(name)
                write_stamp(name)
    except OSError as error:
        raise SetupError(explain(str(error))) from error


def missing(wanted: list[str]) -> list[str]:
    """Name the package sets that the stamp does not vouch for; all while, or since, an install is unfinished."""
    there = installed_sets() if python_exists() and not UNFINISHED.exists() else []
    return [name for name in wanted if name not in there]


def installed_sets() -> list[str]:
    """Read the stamp: the sets installed from just these pins, for this Python, at this place."""
    stamp = read_stamp()
    if any(stamp.get(key) != value for key, value in identity().items()):
        return []
    sets = stamp.get("sets")
    return [str(name) for name in sets] if isinstance(sets, list) else []


def read_stamp() -> dict[str, object]:
    """Return the stamp's fields, none if it is missing or damaged."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def identity() -> dict[str, str]:
    """Say what an installation depends on: its sources, the Python, and its place (scripts hold absolute paths)."""
    digest = hashlib.sha256(repr(PACKAGE_SETS).encode())
    for source in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / source).read_bytes())
    return {"digest": digest.hexdigest(), "python": python_version(), "place": str(VENV)}


def python_version() -> str:
    """Name the running Python; two that differ here cannot share installed packages."""
    return "{}-{}.{}".format(sys.implementation.name, *sys.version_info[:2])


def python_exists() -> bool:
    """Return whether `.venv`'s Python, and on Windows the one that it only points to, are still there."""
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
    """Return whether packages can be installed into `.venv` as it is, by asking its Python for its version and pip."""
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
    """Make `.venv` anew, whatever is in it."""
    print(f"Making {VENV} for Python {'%d.%d' % sys.version_info[:2]}.", flush=True)
    clear_venv()
    UNFINISHED.touch()
    # Not sys.executable: where run.py was started by .venv's own Python, that file has just been removed.
    base = getattr(sys, "_base_executable", None) or sys.executable
    run_logged([base, "-m", "venv", str(VENV)])
    UNFINISHED.unlink()


def clear_venv() -> None:
    """Remove all in `.venv` but the lock, which this process holds; the stamp first, so that none outlives its work."""
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
            f"Installing the packages of Dump U-Net. The first time takes a few minutes and {SIZE}.",
            flush=True,
        )
    else:
        print(f"Installing the packages for {name}, once.", flush=True)
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
    """Record that a package set is complete, with those that were so before."""
    stamp = {**identity(), "sets": sorted({*installed_sets(), name})}
    aside = STAMP.with_suffix(".new")
    aside.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    aside.replace(STAMP)


def run_logged(command: list[str]) -> None:
    """Run an installing program; its output goes to the log, and in few words to the screen.

    From the line on in which pip says that it now writes packages, `.venv` counts as unfinished: where that is cut
    off, the next start makes it anew. A failure before it (no network) leaves what is installed usable.
    """
    lines = []
    # close_fds=False: the program inherits the lock, which so holds until it too has ended, should this process be
    # killed. No other file of this process is inheritable.
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
    """Copy the environment without what would make pip look at, or install into, another place than `.venv`."""
    elsewhere = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
    kept = {name: value for name, value in os.environ.items() if name not in elsewhere}
    return {**kept, "PYTHONIOENCODING": "utf-8", "PIP_USER": "0"}


def brief(line: str) -> "str | None":
    """Shorten a line of pip's that tells how far it is; None for the others."""
    words = line.split()
    if not words or ".metadata" in line:
        return None
    if line.startswith("Installing collected packages"):
        return f"writing packages: {line.count(',') + 1}"
    if words[0] in ("Downloading", "Processing") and len(words) > 1:
        return " ".join([words[0].lower(), words[1].replace("\\", "/").rpartition("/")[2], *words[2:]])
    return None


def show(text: "str | None") -> None:
    """Show progress: one line that changes in a terminal, else only the large downloads; None clears it."""
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - 3
        print("\r  " + (text or "")[:room].ljust(room), end="\r", flush=True)
    elif text is not None and (" MB)" in text or "GB)" in text or text.startswith("writing")):
        print(f"  {text}", flush=True)


def explain(output: str) -> str:
    """Turn the output of a failed install into what happened, what to do, and where the rest can be read."""
    small = output.lower()
    what, remedy = "an installing program failed.", "Its last lines may tell why."
    for fragments, cause, advice in CAUSES:
        if any(fragment in small for fragment in fragments):
            what, remedy = cause, advice
            break
    lines = [f"  {line}" for line in output.splitlines() if line.strip()][-12:]
    lines += ["", f"{VENV} could not be made ready: {what}", remedy]
    if LOG.exists():
        lines.append(f"Everything that was said: {LOG}")
    return "\n".join(lines)


# --- one at a time -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Let one process at a time change `.venv`; the system gives the lock back when its holder ends, however."""
    with LOCK.open("ab") as file:
        if not try_lock(file):
            print("Another start of run.py is installing; waiting for it.", flush=True)
            while not try_lock(file):
                time.sleep(0.2)
        yield


if sys.platform == "win32":
    import msvcrt

    def try_lock(file: IO[bytes]) -> bool:
        """Lock the file's first byte, or return False where another process has it."""
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def try_lock(file: IO[bytes]) -> bool:
        """Lock the file, or return False where another process has it; a file system without locks gives it."""
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
        # A path may hold letters that the console cannot show; that must not stop the start.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
