"""Adding an option or a format takes one place each, as the map says, and then works everywhere.

Kinds are added in ``test_kinds.py``, families of models in ``models/test_ports.py``.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lib_dumpunet.app.cli import main
from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.settings import FORMATS
from lib_dumpunet.settings.infotext import to_infotext
from lib_dumpunet.settings.json import from_dict
from lib_dumpunet.sinks.dump import DumpSink
from lib_dumpunet.sinks.names import ARRAYS
from lib_dumpunet.sinks.reader import READERS, load_dump
from lib_dumpunet.sinks.request import DumpRequest
from lib_dumpunet.sinks.writers import WRITERS, ArrayWriter


class Npz(ArrayWriter):
    """NumPy's compressed files."""

    ending = "npz"

    def encode(self, array: NDArray[Any]) -> Iterable[bytes]:
        file = io.BytesIO()
        np.savez_compressed(file, array)
        return [file.getvalue()]


@pytest.fixture
def npz(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(FORMATS, "npz", "npz (compressed)")
    monkeypatch.setitem(WRITERS, "npz", Npz)
    monkeypatch.setitem(READERS, ".npz", lambda path: np.load(path)["arr_0"])
    ARRAYS.add("npz")
    yield
    ARRAYS.discard("npz")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_a_format_is_written_listed_and_read_back(npz: None, tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {Tag(0, step, "M00"): torch.randn(3, 4, 5).to(dtype) for step in (1, 2)}
    for _ in range(2):  # the second run overwrites nothing
        sink = DumpSink(tmp_path, "npz", DumpRequest(["a"], [""], [1]))
        for tag, tensor in tensors.items():
            sink.accept(Capture(tag, tensor))
        sink.close()
    names = {path.name for path in tmp_path.glob("*.npz")}
    assert names == {f"000-M00-00{step}{run}.npz" for step in (1, 2) for run in ("", "-2")}
    for source in (tmp_path, sorted(tmp_path.glob("*.npz"))):
        loaded = list(load_dump(source))
        assert [item.run for item in loaded].count(2) == 2
        assert all(torch.equal(item.tensor, tensors[item.tag]) for item in loaded if item.tag)
    (tmp_path / "manifest.json").unlink()
    assert {item.tag for item in load_dump(tmp_path)} == set(tensors)


def test_a_format_is_a_choice_and_its_size_is_known_before(
    npz: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "a star", "--blocks", "M00", "--steps", "2", "--width", "64", "--height", "64"]
    arguments += ["--dump", "npz", "-o", str(tmp_path / "out"), "--json"]
    assert main([*arguments, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["disk"] > 0
    assert main(arguments) == 0
    assert len(list(tmp_path.glob("out/dump/*.npz"))) == 2
    asked = from_dict({"features": {"layers": "M00", "dump": {"format": "NPZ (compressed)"}}})
    assert to_infotext(asked)["Dump U-Net features dump format"] == "npz (compressed)"


OPTION = '    invert: bool = option(False, "Invert colours", "turn light to dark")\n'
EVERYWHERE = """
import json, sys
from lib_dumpunet.app.cli import make_parser
from lib_dumpunet.app.flags import read_settings
from lib_dumpunet.settings import FeatureSettings
from lib_dumpunet.settings.fields import ENTRIES, pack, unpack
from lib_dumpunet.settings.infotext import from_infotext, to_infotext
from lib_dumpunet.settings.json import from_dict
from lib_dumpunet.ui.panel import build
import gradio as gr

args = make_parser().parse_args(["generate", "a", "--invert"])
assert read_settings(args, FeatureSettings).color.invert
(entry,) = [entry for entry in ENTRIES if entry.path == ("features", "color", "invert")]
asked = from_dict({"features": {"color": {"invert": True}}})
assert unpack(pack(asked)) == asked and asked.features.color.invert
told = to_infotext(asked)
assert told["Dump U-Net features color invert"] == "True", told
assert from_infotext(told, entry) is True
info = lambda width, height: []
with gr.Blocks():
    panel = build("txt2img", info)
assert "Invert colours" in [component.label for component in panel.components]
print("everywhere")
"""


def test_an_option_of_one_line_is_a_flag_a_control_json_and_a_parameter(root: Path, tmp_path: Path) -> None:
    shutil.copytree(
        root / "lib_dumpunet",
        tmp_path / "lib_dumpunet",
        ignore=shutil.ignore_patterns("model", "__pycache__"),
    )
    tree = tmp_path / "lib_dumpunet" / "settings" / "tree.py"
    text, count = re.subn(r"(?=    method: str = option\()", OPTION, tree.read_text("utf-8"), count=1)
    assert count == 1
    tree.write_text(text, "utf-8")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{EVERYWHERE}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "everywhere"
