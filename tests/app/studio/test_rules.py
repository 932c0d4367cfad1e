"""What the studio allows, and how it starts and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib_dumpunet.app.studio.folders import Place, new_folder
from lib_dumpunet.app.studio.models import Choice, Models
from lib_dumpunet.app.studio.page import at_first
from lib_dumpunet.app.studio.render import duration, gallery, status
from lib_dumpunet.app.studio.request import Request
from lib_dumpunet.app.studio.run import Progress, Run
from lib_dumpunet.app.studio.runs import Runs
from lib_dumpunet.blocks import SD1, SDXL, BlockOrder
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.prompt.selection import select_blocks
from lib_dumpunet.settings import (
    AttentionSettings,
    AttentionSwitch,
    DumpSettings,
    FeatureSettings,
    GenerateSettings,
    OutputSettings,
    PanelSettings,
)
from lib_dumpunet.sinks.files import prepare_folder
from tests.app.studio.conftest import ROOT

pytestmark = pytest.mark.slow

QUICK = GenerateSettings(steps=2, width=64, height=64, seed=1)


def request(prompt: str = "a star", **panel: Any) -> Request:
    return Request(Choice(), prompt, QUICK, PanelSettings(**panel))


def dumping(path: str) -> FeatureSettings:
    return FeatureSettings(layers="M00", dump=DumpSettings(True, "npy", path))


@pytest.mark.parametrize(
    "path", [r"\\host\share", "//host/share", "..", "/tmp", "~", "a/../../b", "../studio2"]
)
def test_folders_outside_are_refused_where_others_reach_the_page(tmp_path: Path, path: str) -> None:
    place = Place(tmp_path / "studio", is_open=True)
    with pytest.raises(SettingsError, match="Output path: the studio can be reached from other computers"):
        place.dumps(DumpSettings(True, "npy", path), tmp_path / "studio" / "run")


def test_a_link_does_not_lead_outside(tmp_path: Path) -> None:
    run = tmp_path / "studio" / "run"
    run.mkdir(parents=True)
    (run / "link").symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="not allowed"):
        Place(tmp_path / "studio", is_open=True).dumps(DumpSettings(True, "npy", "link/x"), run)


def test_a_link_to_itself_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "loop").symlink_to("loop")
    dump = DumpSettings(True, "npy", "loop")
    path = Place(tmp_path, is_open=True).dumps(dump, tmp_path / "run").path
    assert path == str(tmp_path / "run" / "loop")
    with pytest.raises(SettingsError, match=r"Output path: .* cannot be used"):
        prepare_folder(path)


@pytest.mark.parametrize("is_open", [True, False])
def test_what_is_no_path_is_told_before_anyone_waits(tmp_path: Path, is_open: bool) -> None:
    with pytest.raises(SettingsError, match="is not a path"):
        Place(tmp_path, is_open).dumps(DumpSettings(True, "npy", "nul\0l"), tmp_path / "run")


def test_folders_inside_and_empty_ones_are_allowed(tmp_path: Path) -> None:
    place = Place(tmp_path, is_open=True)
    own = tmp_path / "run"
    assert place.dumps(DumpSettings(True, "npy", "mine"), own).path == str(own / "mine")
    with pytest.raises(SettingsError, match="not allowed"):
        place.dumps(DumpSettings(True, "npy", "../another-run"), own)
    with pytest.raises(SettingsError, match="not allowed"):
        place.dumps(DumpSettings(True, "npy", str(tmp_path)), own)
    assert place.dumps(DumpSettings(True), tmp_path / "run").path == str(tmp_path / "run" / "dump")
    assert place.dumps(DumpSettings(False, "npy", "/x"), tmp_path).path == "/x"
    assert Place(tmp_path, is_open=False).dumps(DumpSettings(True, "npy", "/x/y"), tmp_path).path == "/x/y"


def test_models_of_others_are_refused_where_others_reach_the_page() -> None:
    mine = Choice("mine.safetensors", "cpu", "fp32", "mine")
    models = Models(mine, [mine, Choice("", "cpu")])
    models.check(mine)
    others = (
        Choice("/etc/passwd"),
        replace(mine, config="somebody/else"),
        replace(mine, config=None),
        replace(mine, device="cuda"),
        replace(mine, dtype="fp16"),
        Choice("", "cpu", "auto", "somebody/else"),
    )
    for other in others:
        with pytest.raises(SettingsError, match="Model: the studio can be reached from other computers"):
            models.load(other)


def test_folders_are_refused_before_anyone_waits(tmp_path: Path) -> None:
    runs = Runs(Models(Choice()), Place(tmp_path, is_open=True))
    with pytest.raises(SettingsError, match="Output path"):
        runs.start("page", request(features=dumping("/elsewhere")))
    with pytest.raises(SettingsError, match="the page is not ready"):
        runs.start("", request())
    assert runs.last("page") is runs.last("") is None
    runs.close()


def test_runs_wait_for_each_other_and_those_that_wait_can_be_stopped(tmp_path: Path) -> None:
    models, gate = Models(Choice()), threading.Event()
    load = models.load
    models.load = lambda choice: (gate.wait(30), load(choice))[1]  # type: ignore[method-assign]
    runs = Runs(models, Place(tmp_path, is_open=False))
    one, two, three = (runs.start(name, request()) for name in ("a", "b", "c"))
    with pytest.raises(SettingsError, match="last run is not over"):
        runs.start("a", request())
    assert [runs.ahead(run) for run in (one, two, three)] == [0, 1, 2]
    assert "Waiting: 2 runs are ahead." in status(three, runs.ahead(three))
    two.stop()
    assert two.state == "stopped"
    gate.set()
    runs._pool.shutdown(wait=True)
    assert [run.state for run in (one, two, three)] == ["done", "stopped", "done"]
    assert two.items == []
    assert runs.find(one.key) is one
    assert runs.find("a") is runs.find("") is None
    assert len({run.key for run in (one, two, three)}) == 3


def test_too_many_runs_may_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib_dumpunet.app.studio.runs.MOST_WAITING", 2)
    models, gate = Models(Choice()), threading.Event()
    monkeypatch.setattr(models, "load", lambda choice: gate.wait(30) and 1 / 0)
    runs = Runs(models, Place(tmp_path, is_open=False))
    for name in ("a", "b", "c"):
        runs.start(name, request())
    with pytest.raises(SettingsError, match="2 runs are waiting already"):
        runs.start("d", request())
    gate.set()
    runs.close()


def test_a_long_prompt_is_refused(tmp_path: Path) -> None:
    runs = Runs(Models(Choice()), Place(tmp_path, is_open=True))
    with pytest.raises(SettingsError, match="Prompt: it has 10001 characters"):
        runs.start("page", request("x" * 10_001))
    runs.close()


def test_a_run_of_others_is_stopped_where_it_writes_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib_dumpunet.app.studio.run.MOST_WRITTEN", 1000)
    monkeypatch.setattr("lib_dumpunet.app.studio.run.BETWEEN_LOOKS", 0.0)
    ran = {}
    for is_open in (True, False):
        run = Run(request(features=dumping("")), Place(tmp_path / str(is_open), is_open=is_open))
        run.work(Models(Choice()))
        ran[is_open] = run
    assert (ran[True].state, ran[False].state) == ("stopped", "done")
    assert any("it may write" in text for text in ran[True].messages)


def test_attention_is_looked_at_where_features_are() -> None:
    features = FeatureSettings(layers="M00", steps="1,2")
    words = {"switch": AttentionSwitch(True), "attention": AttentionSettings(kinds=("words",))}
    like = request(features=features, **words).settings.attention
    assert (like.layers, like.steps) == ("M00", "1,2")
    own = request(
        features=features, **{**words, "attention": AttentionSettings(kinds=("qk",), layers="OUT09")}
    )
    assert (own.settings.attention.layers, own.settings.attention.steps) == ("OUT09", "1,2")
    alone = request(features=FeatureSettings(enabled=False, layers="M00"), **words).settings.attention
    assert (alone.layers, alone.steps) == ("", "")


@pytest.mark.parametrize(("model", "order"), [("", SD1), ("some/sdxl", SDXL)])
def test_what_the_page_begins_with_fits_the_model(model: str, order: BlockOrder) -> None:
    settings = at_first(Models(Choice(model)))
    assert settings.features.layers
    select_blocks(settings.features.layers, order)
    Request(Choice(model), "a star", GenerateSettings(), settings).check()


ODD_VALUES = """
import sys
from pathlib import Path
from lib_dumpunet.app.studio.folders import Place
from lib_dumpunet.app.studio.models import Choice, Models
from lib_dumpunet.app.studio.page import build_page
from lib_dumpunet.app.studio.runs import Runs

odd_ones = [float("nan"), float("inf"), "1e999", "nan", None, [], {}, [1], True, "x", -1, 10**400, "\\ud800"]
runs = Runs(Models(Choice()), Place(Path(sys.argv[1]), is_open=False))
runs.start = lambda name, asked: asked.check()
(begin,) = (f for f in build_page(runs).fns.values() if f.name == "generate")
values = [component.value for component in begin.inputs]
for i in range(1, len(values)):
    for odd in odd_ones:
        answer = begin.fn("page", *values[1:i], odd, *values[i + 1:])
        assert len(answer) == len(begin.outputs), (begin.inputs[i].label, odd)
print(len(values) * len(odd_ones), "tried")
"""


def test_odd_values_of_a_program_are_mistakes_of_their_field(tmp_path: Path) -> None:
    # In a process of its own: Gradio leaves sockets open.
    done = subprocess.run(
        [sys.executable, "-c", ODD_VALUES, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tried" in done.stdout


def test_dumps_go_into_the_folder_of_the_run(tmp_path: Path) -> None:
    run = Run(request(features=dumping("")), Place(tmp_path, is_open=True))
    run.work(Models(Choice()))
    assert (run.state, run.error) == ("done", None)
    assert run.folder is not None
    assert sorted(path.name for path in run.folder.glob("dump/*.npy")) == [
        "000-M00-001.npy",
        "000-M00-002.npy",
    ]


def test_whatever_goes_wrong_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Models(Choice())
    monkeypatch.setattr(models, "load", lambda choice: 1 / 0)
    run = Run(request(), Place(tmp_path, is_open=False))
    run.work(models)
    assert run.state == "failed"
    assert "the run failed (ZeroDivisionError" in status(run, 0)


def test_a_folder_that_vanishes_is_told_and_ends_nothing_else(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    run = Run(request(), Place(blocked / "studio", is_open=False))
    run.work(Models(Choice()))
    assert run.state == "failed"
    assert "cannot be used" in str(run.error)


def test_folders_of_runs_are_their_own(tmp_path: Path) -> None:
    folders = [new_folder(tmp_path, is_kept=True).path for _ in range(3)]
    assert len(set(folders)) == 3
    assert {folder.parent for folder in folders} == {tmp_path}
    passing = new_folder(tmp_path, is_kept=False).path
    assert tmp_path not in passing.parents


def test_texts_of_users_are_not_read_as_html(tmp_path: Path) -> None:
    prompt = "a star <img src=x onerror=alert(1)>"
    run = Run(
        request(prompt, features=dumping(""), output=OutputSettings(save=False)), Place(tmp_path, False)
    )
    run.work(Models(Choice()))
    run.messages.append("<b>")
    assert "<img src=x" not in gallery(run) + status(run, 0)
    assert "&lt;b&gt;" in status(run, 0)


def test_time_left_is_that_of_the_steps_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("lib_dumpunet.app.studio.run.time.monotonic", lambda: now)
    progress = Progress()
    progress.move(1, 11)
    assert progress.left is None
    now += 5
    progress.move(2, 11)
    now += 3
    progress.move(3, 11)
    assert progress.left == pytest.approx(32)
    assert [duration(s) for s in (4.4, 65, 3600, 7325)] == ["4 s", "1 min 5 s", "1 h 0 min", "2 h 2 min"]


def start(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lib_dumpunet", "studio", "--no-browser", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_a_port_that_is_taken_and_wrong_flags_are_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = start("--port", str(port), "-o", str(tmp_path))
    assert result.returncode == 2
    assert f"--port: port {port} is taken. Choose another with --port." in result.stderr
    for flags, said in (
        (("--port", "99999"), "--port: 99999 is not a port"),
        (("--model", "/no/model"), "there is no file or folder /no/model"),
        (("-o", "/dev/null/x"), "Output path: /dev/null/x cannot be used"),
    ):
        result = start("-o", str(tmp_path), *flags)
        assert result.returncode == 2
        assert said in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lib_dumpunet", "studio", "--no-browser", "-o", str(tmp_path)]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if "The studio is at" in line:
            break
    server.send_signal(signal.SIGINT)
    rest = server.stderr.read()
    assert server.wait(30) == 130
    assert "Interrupted." in rest
    assert "Traceback" not in rest
    server.stderr.close()
