"""The command line as users type it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from lib_dumpunet.app.overview import CELL, GAP, HEAD, MOST_ROWS, SIDE, Overview
from lib_dumpunet.app.results import open_results
from lib_dumpunet.blocks import SD1
from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.ports import Picture
from lib_dumpunet.settings import ColorSettings, DifferenceSettings
from lib_dumpunet.sinks.drawing import Style
from lib_dumpunet.sinks.dump import DumpSink
from lib_dumpunet.sinks.picture import PictureSink
from lib_dumpunet.sinks.reader import load_dump
from lib_dumpunet.sinks.request import DumpRequest
from tests.explorer.pages import read_page


def opened(path: Path | str) -> Image.Image:
    """Load a picture and close its file."""
    with Image.open(path) as image:
        image.load()
    return image


QUICK = ("--steps", 2, "--width", 64, "--height", 64, "--seed", 3)


def test_demo_leaves_image_pictures_averages_and_dump(run: Any, tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path, "--json")
    assert result.code == 0
    assert result.err == ""
    assert [Path(p).name for p in result.data["images"]] == ["000.png"]
    assert opened(tmp_path / "000.png").size == (256, 256)
    pictures = result.data["pictures"]
    assert len(pictures) == 25 * 3 * 2
    assert all(opened(p).size[0] > 1 for p in pictures)
    manifest = json.loads((tmp_path / "dump" / "manifest.json").read_text())
    assert len(manifest["files"]) == 75
    assert len(list(load_dump(tmp_path / "dump"))) == 75


def test_generate_writes_what_the_flags_ask_for(run: Any, tmp_path: Path) -> None:
    result = run(
        "generate", "a red circle", *QUICK, "-o", tmp_path, "--layers", "M00,OUT11", "--save-steps", 2, "--batch", 2,
        "--average", "1-norm", "--method", "rgb", "--formula", "v; 0; 1-v", "--dump", "safetensors", "--sampler",
        "Euler a",
    )  # fmt: skip
    assert result.code == 0
    assert "Results in" in result.out
    names = sorted(p.name for p in (tmp_path / "features").iterdir())
    assert names == sorted(
        f"{i:03}-{block}-002-{kind}.png"
        for i in (0, 1)
        for block in ("M00", "OUT11")
        for kind in ("unet", "unet-average")
    )
    with Image.open(tmp_path / "features" / "001-OUT11-002-unet.png") as picture:
        assert picture.info["parameters"].endswith(
            "Seed: 4, Size: 64x64, Model: bundled model, Layer Name: OUT11, Feature Steps: 2"
        )
        assert not np.asarray(picture)[..., 1].any()
    assert sorted(p.name for p in (tmp_path / "dump").glob("*.safetensors")) == [
        "000-002.safetensors",
        "001-002.safetensors",
    ]


def test_second_run_overwrites_nothing(run: Any, tmp_path: Path) -> None:
    arguments = ("generate", "a star", *QUICK, "--no-features", "-o", tmp_path, "--json")
    first, second = run(*arguments), run(*arguments)
    assert first.data["images"] == [str(tmp_path / "000.png")]
    assert second.data["images"] == [str(tmp_path / "run-2" / "000.png")]
    assert opened(first.data["images"][0]).tobytes() == opened(second.data["images"][0]).tobytes()


def test_quiet_says_only_the_result(run: Any, tmp_path: Path) -> None:
    result = run("generate", "a star", *QUICK, "--no-features", "-o", tmp_path, "-q")
    assert result.err == ""
    assert str(tmp_path) in result.out


def test_japanese_prompt_longer_than_the_tokenizer_takes(run: Any, tmp_path: Path) -> None:
    prompt = "赤い丸と青い四角、" * 12
    result = run("generate", prompt, *QUICK, "--layers", "M00", "-o", tmp_path)
    assert result.code == 0
    with Image.open(tmp_path / "000.png") as image:
        assert image.info["parameters"].startswith(prompt)


def test_view_draws_the_same_picture_again(run: Any, tmp_path: Path) -> None:
    colours = ("--method", "red-blue", "--transform", "linear", "--clamp=-2,3")
    run("generate", "a star", *QUICK, "-o", tmp_path / "a", "--layers", "OUT11", "--dump", "npy", *colours)
    result = run("view", tmp_path / "a" / "dump", "-o", tmp_path / "b", *colours, "--json")
    assert result.code == 0
    for path in map(Path, result.data["pictures"]):
        original = tmp_path / "a" / "features" / f"{path.stem}-unet.png"
        assert opened(path).tobytes() == opened(original).tobytes()
    assert len(result.data["pictures"]) == 2


@pytest.mark.parametrize(
    ("flags", "pixels"),
    [
        (["--method", "white-black", "--transform", "linear", "--clamp=-2,2"], [[0, 128], [255, 255]]),
        (["--method", "white-black", "--transform", "auto01"], [[85, 128], [0, 255]]),
        (["--method", "red-blue", "--transform", "linear", "--clamp=-2,2"],
         [[(0, 0, 0), (128, 0, 0)], [(0, 0, 255), (255, 0, 0)]]),
        (["--method", "rgb", "--transform", "linear", "--clamp=-2,2", "--formula", "v;where(v<0,1,0);0.5"],
         [[(0, 0, 128), (128, 0, 128)], [(0, 255, 128), (255, 0, 128)]]),
        (["--method", "hsl", "--transform", "sigmoid", "--sigmoid=2,0.0", "--formula", "0;1;0.5"],
         [[(255, 0, 0)] * 2] * 2),
    ],
)  # fmt: skip
def test_single_channel_gives_its_bare_map(run: Any, tmp_path: Path, flags: list[str], pixels: Any) -> None:
    values = (
        np.array([[[0, 1], [-2, 4]]], np.float32)
        if "auto01" not in flags
        else np.array([[[0, 1], [-2, 4]]]) * 1.0
    )
    np.save(tmp_path / "map.npy", values)
    assert run("view", tmp_path / "map.npy", "-o", tmp_path, *flags).code == 0
    assert np.asarray(opened(tmp_path / "map.png")).tolist() == np.array(pixels).tolist()


def test_view_reads_bare_arrays_bins_and_half_precision(run: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.eye(5, dtype=np.float16))
    np.arange(6, dtype="<f4").tofile(tmp_path / "000-IN00-001-0000-1.bin")
    assert run("view", tmp_path / "flat.npy", "-o", tmp_path).code == 0
    assert opened(tmp_path / "flat.png").size == (5, 5)
    result = run("view", tmp_path / "000-IN00-001-0000-1.bin", "-o", tmp_path)
    assert result.code == 2
    assert "6 values" in result.err
    assert run("view", tmp_path / "000-IN00-001-0000-1.bin", "-o", tmp_path, "--size", "3x2").code == 0
    assert opened(tmp_path / "000-IN00-001-0000-1.png").size == (3, 2)


def test_blocks_lists_the_models_blocks(run: Any) -> None:
    result = run("blocks", "--width", 512, "--height", 256, "--layers", "IN00-OUT11(+12)")
    assert [line.split() for line in result.out.splitlines()] == [
        ["block", "layers", "input", "output", "heads"],
        ["IN00", "conv", "4,32,64", *result.out.splitlines()[1].split()[3:]],
        ["M00", "res+attn+res", *result.out.splitlines()[2].split()[2:]],
        ["OUT11", "res+attn", *result.out.splitlines()[3].split()[2:]],
    ]
    assert len(run("blocks", "--json").data["blocks"]) == 25


def test_prompt_shows_the_text_of_each_block(run: Any) -> None:
    result = run("prompt", "a (~: IN00-OUT11: cute ; M00: excellent :~) girl")
    assert result.out.splitlines() == [
        "IN00-IN11, OUT00-OUT11  'a  cute  girl'",
        "M00                     'a  excellent  girl'",
        "base prompt             'a  girl'",
    ]
    assert run("prompt", "x", "--json").data["blocks"]["OUT11"] == "x"


def test_prompt_shows_strengths_and_steps(run: Any) -> None:
    result = run("prompt", "a (~: IN00-OUT11: cute ; M00*0.8@1-10, OUT03@5, OUT11@2: fine :~) girl")
    assert result.out.splitlines() == [
        "IN00-IN11, OUT00-OUT02, OUT04-OUT10  'a  cute  girl'",
        "M00, steps 1-10                       80% 'a  fine  girl'",
        "                                      20% 'a  girl'",
        "M00, from step 11                    'a  cute  girl'",
        "OUT03, steps 1-4, from 6             'a  cute  girl'",
        "OUT03, step 5                        'a  fine  girl'",
        "OUT11, steps 1, from 3               'a  cute  girl'",
        "OUT11, step 2                        'a  fine  girl'",
        "base prompt                          'a  girl'",
    ]
    data = run("prompt", "a(~: M00*2@2: b:~)", "--json").data
    assert data["blocks"]["M00"] == data["base"] == "a"
    assert data["shares"]["IN00"] == [{"steps": [[1, None]], "texts": [{"text": "a", "weight": 1}]}]
    assert data["shares"]["M00"] == [
        {"steps": [[1, 1], [3, None]], "texts": [{"text": "a", "weight": 1}]},
        {"steps": [[2, 2]], "texts": [{"text": "a b", "weight": 2}, {"text": "a", "weight": -1}]},
    ]


def test_prompt_joins_steps_with_the_same_text_and_is_quick_with_many(run: Any) -> None:
    result = run("prompt", "(~: M00@1-5: x; M00@6-999999999(+1), IN00: x; _*1: x:~)")
    assert result.out.splitlines() == ["IN00-IN11, M00, OUT00-OUT11  ' x'", "base prompt                  ''"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "a", "--layers", "IN99"], "--blocks: the model has no block IN99"),
        (["generate", "a", "--save-steps", "0"], "--save-steps: there is no step 0"),
        (["generate", "a", "--formula", "v.x;1;1"], "Color space"),
        (["generate", "a", "--formula", "v;1"], "--formula: 'v;1' is not three formulas"),
        (["generate", "a", "--transform", "linear", "--clamp=3,1"], "--clamp: 3 is not below"),
        (["generate", "a", "--sigmoid=1"], "--sigmoid: '1' has 1 part instead of 2"),
        (["generate", "a", "--clamp=a,b"], "--clamp: 'a' is not a number"),
        (["generate", "a", "--width", "100"], "--width: 100 is not a multiple of 8. Use 96 or 104."),
        (["generate", "a", "--steps", "0"], "--steps: 0 is outside 1 to 1000"),
        (["generate", "a", "--model", "/no/such/model.safetensors"], "model: there is no file or folder"),
        (["generate", "a", "--model", "C:\\models\\x.ckpt"], "model: there is no file or folder"),
        (["generate", "a", "--device", "toaster"], "device: 'toaster' is not available here. Use auto"),
        (["generate", "(~: IN00"], "prompt: this bracket is not closed"),
        (["generate", "a", "--difference"], "Difference: no prompt has text per block"),
        (["generate", "a (~: M00@30: b :~)"], "prompt: no step is left, as sampling takes 20"),
        (["sweep", "a girl"], "prompt: there is no {block}, so all images would be the same"),
        (
            ["sweep", "a (~:{block}: b :~)", "--groups", "IN09-IN11"],
            "--groups: IN09-IN11: no attention layer",
        ),
        (["sweep", "a (~:{block}: b :~)", "--groups", "UP"], "--groups: 'UP' is not allowed here"),
        (["sweep", "a (~:{block}: b", "--blocks", "M00"], "prompt: this bracket is not closed"),
        (["generate", "a", "-o", "/dev/null/x"], "Output path: /dev/null/x cannot be used"),
        (["prompt", "a (~: IN00 :~)"], "prompt: ':' and a text are missing"),
        (["prompt", "a (~: IN00*11: b :~)"], "prompt: a strength of 11 is too large. Use 0 to 10."),
        (["view", "/no/such/file.npy", "-o", "/tmp"], "/no/such/file.npy does not exist"),
        (["blocks", "--width", "7"], "--width: 7 is not a multiple of 8"),
        (["blocks", "--model", __file__], "model: test_cli.py is not a checkpoint"),
    ],
)
def test_mistakes_get_a_sentence_and_exit_code_2(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.code == 2
    assert f"dumpunet: {message}" in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    "arguments", [["generate"], ["nonsense"], ["view", "x"], ["generate", "a", "--nothing", "x"], []]
)
def test_wrong_flags_get_a_line_and_exit_code_2(run: Any, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.err.startswith("dumpunet")
    assert result.err.count("\n") == 1
    assert "--help" in result.err


@pytest.mark.parametrize("command", ["generate", "demo", "blocks", "prompt", "view", "bench"])
def test_help_is_complete(run: Any, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert "--quiet" in result.out
    assert command in run("--help").out


def test_help_needs_neither_torch_nor_diffusers(root: Path) -> None:
    code = (
        "import sys; from lib_dumpunet.app.cli import make_parser; make_parser().format_help(); "
        "sys.exit(any(name in sys.modules for name in ('diffusers', 'transformers', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_reader_that_goes_away_is_no_error(root: Path) -> None:
    command = f"{sys.executable} -m lib_dumpunet prompt '{'x' * 100}' --json | head -c 1"
    result = subprocess.run(["bash", "-c", command], cwd=root, capture_output=True, text=True, check=False)
    assert result.stderr == ""


@pytest.fixture(autouse=True)
def _few_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_map_of_one_pixel_is_dumped_in_every_format(run: Any, tmp_path: Path) -> None:
    for name in ("bin", "npy", "safetensors"):
        result = run(
            "generate", "a star", "--steps", 1, "--width", 8, "--height", 8, "--dump", name, "-o", tmp_path / name
        )  # fmt: skip
        assert result.code == 0
        assert len(list(load_dump(tmp_path / name / "dump"))) == 25


def test_empty_output_folder_is_refused(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("generate", "a star", *QUICK, "-o", "")
    assert result.code == 2
    assert "Output path: no folder is given" in result.err
    assert not list(tmp_path.iterdir())


def test_sampler_that_refuses_is_told_in_a_sentence(run: Any, tmp_path: Path) -> None:
    result = run("generate", "a star", "--sampler", "LCM", "--steps", 60, "--no-features", "-o", tmp_path)
    assert result.code == 1
    assert "sampling failed (ValueError" in result.err
    assert "Traceback" not in result.err


def test_view_with_nothing_chosen_is_told(run: Any, tmp_path: Path) -> None:
    run("generate", "a star", *QUICK, "-o", tmp_path, "--layers", "M00", "--dump", "npy")
    result = run("view", tmp_path / "dump", "-o", tmp_path / "view", "--layers", "IN00")
    assert result.code == 2
    assert "no dumped tensor belongs to" in result.err


def test_many_steps_keep_the_overview_small() -> None:
    overview = Overview(SD1)
    for step in range(1, 1001):
        overview.add(Picture(Image.new("RGB", (128, 64)), Tag(0, step, "M00"), "average"))
    sheet = overview.draw()
    assert sheet is not None
    assert sheet.height < 40 * (MOST_ROWS + 1)


def test_view_draws_dumped_differences_as_they_were_drawn(run: Any, tmp_path: Path) -> None:
    tag, tensor = Tag(0, 20, "OUT11", "difference"), torch.randn(3, 4, 5)
    colours = ("--method", "white-black", "--average", "sum")
    settings = DifferenceSettings(average="sum", color=ColorSettings(method="white-black"))
    drawn: list[Picture] = []
    PictureSink("difference", Style(settings, 5 / 4), drawn.append).accept(Capture(tag, tensor))
    for name in ("bin", "npy", "safetensors"):
        sink = DumpSink(tmp_path / name, name, DumpRequest())
        sink.accept(Capture(tag, tensor))
        sink.accept(Capture(Tag(0, 20, "OUT11"), -tensor))
        sink.close()
        result = run("view", tmp_path / name, "-o", tmp_path / f"{name}-view", *colours, "--json")
        assert result.code == 0, result.err
        assert len(result.data["pictures"]) == 4
        for picture in drawn:
            again = opened(tmp_path / f"{name}-view" / f"{picture.stem}.png")
            assert again.tobytes() == picture.image.tobytes()


def test_channels_of_a_difference_are_drawn_under_their_own_names(run: Any, tmp_path: Path) -> None:
    sink = DumpSink(tmp_path, "bin", DumpRequest())
    sink.accept(Capture(Tag(0, 20, "OUT11", "difference"), torch.randn(3, 4, 4)))
    sink.close()
    path = next(tmp_path.glob("*-0001-*.bin"))
    assert run("view", path, "-o", tmp_path / "view").code == 0
    assert [p.name for p in (tmp_path / "view").iterdir()] == [f"{path.stem}.png"]


def test_overview_is_of_one_kind() -> None:
    features, differences = Overview(SD1), Overview(SD1, "difference")
    for overview in (features, differences):
        overview.add(Picture(Image.new("L", (8, 8)), Tag(0, 1, "M00"), "average"))
        overview.add(Picture(Image.new("L", (8, 8), 255), Tag(0, 1, "M00", "difference"), "whole"))
        assert differences.draw() is None
    for step in (1, 2):
        differences.add(Picture(Image.new("L", (8, 8)), Tag(0, step, "M00", "difference"), "average"))
        differences.add(Picture(Image.new("L", (8, 8)), Tag(1, step, "IN00", "difference"), "average"))
    one, two = features.draw(), differences.draw()
    assert one is not None
    assert two is not None
    assert one.width == two.width
    assert two.height - one.height == CELL + GAP


def test_overview_has_rows_of_their_own_for_a_hires_pass() -> None:
    colours = {(False, 1): "red", (False, 2): "green", (True, 1): "blue"}
    overview = Overview(SD1)
    for (hires, step), colour in reversed(colours.items()):
        tag = Tag(0, step, "M00", hires=hires)
        overview.add(Picture(Image.new("RGB", (8, 8), colour), tag, "average"))
    sheet = overview.draw()
    assert sheet is not None
    middles = [HEAD + row * (CELL + GAP) + CELL // 2 for row in range(3)]
    assert [sheet.getpixel((SIDE + CELL // 2, y)) for y in middles] == [
        ImageColor.getrgb(colour) for colour in colours.values()
    ]


def test_view_draws_both_passes_under_their_own_names(run: Any, tmp_path: Path) -> None:
    tensors = {
        Tag(0, 3, "M00", kind, hires=h): torch.randn(2, 4 + 4 * h, 4 + 4 * h)
        for kind in ("feature", "difference")
        for h in (False, True)
    }
    for name in ("bin", "npy", "safetensors"):
        sink = DumpSink(tmp_path / name, name, DumpRequest())
        for tag, tensor in tensors.items():
            sink.accept(Capture(tag, tensor))
        sink.close()
        assert run("view", tmp_path / name, "-o", tmp_path / f"{name}-view").code == 0
        drawn = sorted(path.stem for path in (tmp_path / f"{name}-view").iterdir())
        assert sum("hr003" in stem for stem in drawn) == 2
        assert len(drawn) == 4


def test_pictures_of_differences_have_a_folder(tmp_path: Path) -> None:
    folder = open_results(str(tmp_path))
    folder.save_picture(Picture(Image.new("L", (2, 2)), Tag(0, 3, "M00", "difference"), "average"), {})
    assert folder.by_room() == {
        "difference": [tmp_path / "difference" / "000-M00-003-difference-average.png"]
    }


def test_generate_draws_attention_where_the_features_are_chosen(run: Any, tmp_path: Path) -> None:
    result = run(
        "generate", "a red circle", *QUICK, "-o", tmp_path, "--layers", "IN00,IN01,OUT09", "--save-steps", 2,
        "--average", "sum", "--attention", "k,qk,vqk,self,words", "--points", "10,20", "--dump", "safetensors",
        "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    stems = {f"{Path(p).parent.name}/{Path(p).stem}" for p in result.data["pictures"]}
    layers = {
        f"attention/000-{block}-002-{kind}"
        for block in ("IN01", "OUT09")
        for kind in ("k", "k-average", "qk", "qk-average", "vqk", "vqk-average", "self", "pca")
    }
    assert {stem for stem in stems if stem.startswith("attention")} == layers
    heat = {
        "words/000-word-red",
        "words/000-word-circle",
        f"points/{Tag(0, 0, '', 'point', 0, '10x20').stem}",
    }
    rest = {stem for stem in stems if not stem.startswith(("attention", "features"))}
    assert rest == heat | {f"{stem}-layer" for stem in heat}
    assert opened(result.data["words"]).width > 2 * 256
    loaded = {item.tag: item.tensor for item in load_dump(tmp_path / "dump") if item.tag is not None}
    kinds = {tag.kind for tag in loaded}
    assert kinds == {"feature", "k", "qk", "vqk", "self", "pca", "word", "point"}
    manifest = json.loads((tmp_path / "dump" / "manifest.json").read_text("utf-8"))
    assert manifest["runs"][0]["tokens"]["a red circle"][:4] == ["<start>", "a", "red", "circle"]
    assert manifest["runs"][0]["attention"] == {"blocks": ["IN01", "OUT09"], "steps": [2]}


def test_words_is_the_shortest_way(run: Any, tmp_path: Path) -> None:
    result = run("words", "a red circle and a blue square", *QUICK, "-o", tmp_path)
    assert result.code == 0
    assert f"overview   {tmp_path / 'words.png'}" in result.out
    names = {path.name for path in (tmp_path / "words").iterdir()}
    words = ("red", "circle", "blue", "square")
    assert names == {f"000-word-{word}{end}.png" for word in words for end in ("", "-layer")}
    assert {path.name for path in (tmp_path / "dump").glob("*.npy")} == {
        f"000-word-{word}.npy" for word in words
    }
    assert not (tmp_path / "features").exists()
    with Image.open(tmp_path / "words" / "000-word-red.png") as picture:
        assert "Word: red" in picture.info["parameters"]


def test_view_draws_dumped_attention_as_it_was_drawn(run: Any, tmp_path: Path) -> None:
    made = tmp_path / "made"
    run(
        "generate", "a red circle", *QUICK, "-o", made, "--no-features", "--save-steps", 2, "--layers", "OUT09",
        "--attention", "k,qk,vqk,self,words", "--dump", "npy",
    )  # fmt: skip
    result = run("view", made / "dump", "-o", tmp_path / "again", "--json")
    assert result.code == 0
    for kind in ("k", "qk", "vqk", "self", "pca"):
        name = f"000-OUT09-002-{kind}.png"
        assert opened(tmp_path / "again" / name).tobytes() == opened(made / "attention" / name).tobytes()
    assert (tmp_path / "again" / "000-word-red.png").is_file()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--attention", "heads"], "--attention: 'heads' is not one of its choices"),
        (["--words", "hat"], "--words: "),
        (["--points", "1"], "--points: a point is expected here"),
        (["--attention", "qk", "--attention-steps", "9"], "--attention-steps: no step is left"),
        (["--attention", "qk", "--attention-layers", "IN00"], "IN00: no attention layer"),
    ],
)
def test_mistakes_in_attention(run: Any, tmp_path: Path, flags: list[str], words: str) -> None:
    result = run("generate", "a red circle", *QUICK, "-o", tmp_path / "out", *flags)
    assert result.code == 2
    assert words in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_explore_makes_an_image_and_a_page_of_all_that_happened(run: Any, tmp_path: Path) -> None:
    result = run("explore", "a (~: M00: red ; _: blue :~) circle", "a star", *QUICK, "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    assert [Path(p).name for p in result.data["pages"]] == ["000.html", "001.html"]
    assert result.data["pictures"] == []
    data = read_page((tmp_path / "000.html").read_bytes()).data
    assert {layer["mode"] for layer in data["layers"]} == {"feature", "difference", "attention", "self"}
    assert {word["name"] for word in data["words"]} == {"red", "blue", "circle"}
    assert data["parameters"]["Model"] == "bundled model"
    assert data["parameters"]["CFG scale"] == "7"
    plain = run("explore", "a star", *QUICK, "-o", tmp_path / "plain")
    assert "MB, 25 blocks, 2 steps" in plain.err
    assert f"explorer   {tmp_path / 'plain' / '000.html'}" in plain.out
    modes = {
        layer["mode"] for layer in read_page((tmp_path / "plain" / "000.html").read_bytes()).data["layers"]
    }
    assert modes == {"feature", "attention", "self"}


def test_a_page_beside_pictures_or_in_their_place(run: Any, tmp_path: Path) -> None:
    flags = ("a star", *QUICK, "--layers", "M00", "--json")
    beside = run("generate", *flags, "--html", "-o", tmp_path / "beside")
    alone = run("generate", *flags, "--html-only", "-o", tmp_path / "alone")
    none = run("generate", *flags, "-o", tmp_path / "none")
    assert [(len(r.data["pictures"]), len(r.data["pages"])) for r in (beside, alone, none)] == [
        (2, 1),
        (0, 1),
        (2, 0),
    ]
    words = run("words", "a red circle", *QUICK, "--html-only", "-o", tmp_path / "words", "--json")
    assert [Path(p).name for p in words.data["pages"]] == ["000.html"]
    assert words.data["words"] is None


def test_mistakes_in_pages(run: Any, tmp_path: Path) -> None:
    for flags, said in (
        (("--html-limit", "0.5", "--html"), "--html-limit: 0.5 is outside 1 to 500"),
        (("--html", "--no-features"), "--html: nothing is captured that a page could show"),
    ):
        result = run("generate", "a star", *QUICK, *flags, "-o", tmp_path / "out")
        assert result.code == 2
        assert said in result.err
        assert not (tmp_path / "out").exists()


def test_what_only_the_webui_reads_is_told_and_left_out(run: Any, tmp_path: Path) -> None:
    prompt = "a red circle <lora:foo:1> [blue:green:0.5] [cat|dog]"
    result = run("words", prompt, *QUICK, "--out", tmp_path, "--json")
    assert result.code == 0
    plain = run("words", "a red circle   ", *QUICK, "--out", tmp_path / "plain", "--json")
    assert sorted(Path(p).name for p in result.data["pictures"]) == sorted(
        Path(p).name for p in plain.data["pictures"]
    )
    assert np.array_equal(opened(tmp_path / "000.png"), opened(tmp_path / "plain" / "000.png"))


def test_each_piece_of_webui_syntax_is_told_in_a_line(run: Any, tmp_path: Path) -> None:
    prompt = "a red circle <lora:foo:1> [blue:green:0.5] AND a dog"
    result = run("generate", prompt, *QUICK, "--no-features", "--out", tmp_path)
    told = [line for line in result.err.splitlines() if "only the webui reads it" in line]
    assert [
        piece for piece in ("<lora:foo:1>", "[blue:green:0.5]", "AND") if not any(piece in t for t in told)
    ] == []
    assert len(told) == 3


def test_a_quoted_line_stays_as_it_was_typed(run: Any) -> None:
    result = run("prompt", "a [cat:dog:0.5] \x1b[31m(~: IN99: x :~)")
    line, caret = result.err.splitlines()[1:3]
    assert "[cat:dog:0.5]" in line
    assert "\x1b" not in result.err
    assert line[caret.index("^") :].startswith("IN99")


def test_summary_tells_the_seed(run: Any, tmp_path: Path) -> None:
    result = run("generate", "a star", *QUICK, "--no-features", "--count", 2, "--out", tmp_path)
    assert "seeds      3 to 4" in result.out
