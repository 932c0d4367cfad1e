"""Make the pictures of the documentation again, by its own commands: `.venv/bin/python -m images.make`.

Names behind it make some of them only, such as `manual panel`. Pages are looked at in Chromium; the webui's panel is
served with the Gradio that the webui brings, which the tests install.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

from lib_dumpunet.app.cli import main
from lib_dumpunet.image.gallery import draw_gallery
from lib_dumpunet.image.labels import text_image
from lib_dumpunet.image.transform import transform
from lib_dumpunet.settings import METHODS, ColorSettings
from tests.ui.conftest import old_python
from tests.ui.test_page import ID, box, choose, open_tab, unfold
from tests.waiting import rest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAIR = "a red circle and a blue square"
COLOR, SHAPE = "OUT07", "OUT03-OUT05"  # the blocks that decide about them in the bundled model
PER_BLOCK = (
    "a red circle",
    f"a (~: {COLOR}: blue ; _: red :~) circle",
    f"a red (~: {SHAPE}: star ; _: circle :~)",
    f"a (~: {COLOR}: blue ; _: red :~) (~: {SHAPE}: star ; _: circle :~)",
)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu")
LOADED = "() => [...document.images].every((image) => image.complete || image.loading == 'lazy')"
WIDTH = 960  # pixels of pictures of pages


def run(folder: Path, *arguments: str) -> Path:
    """Run a command into a folder of its own; returns the folder."""
    out = folder / str(len(list(folder.iterdir())))
    if main([*arguments, "-q", "-o", str(out)]):
        sys.exit(f"{' '.join(arguments)} failed")
    return out


def keep(out: Path, **names: str) -> None:
    """Copy pictures of a run beside this file, by their names without endings."""
    for name, file in names.items():
        shutil.copy(out / file, HERE / f"{name.replace('_', '-')}.png")


def make_pictures(folder: Path) -> None:
    """Make what needs no browser."""
    out = run(folder, "demo")
    keep(out, demo="000.png", overview="overview.png")
    keep(out, **{block: f"features/000-{block}-020-unet.png" for block in ("IN02", "M00", "OUT08")})
    pair = (PAIR, "--guidance", "4", "--seed", "6")
    keep(run(folder, "words", *pair), words="words.png")
    out = run(folder, "words", *pair, "--points", "200,128", "--attention-blocks", "OUT09-OUT11")
    keep(out, point="points/000-point-200x128.png")
    look = ("--attention", "qk,self", "--blocks", "IN04,OUT09", "--save-steps", "1,10,20", "--no-features")
    out = run(folder, "generate", *pair, *look)
    keep(out, IN04_qk="attention/000-IN04-020-qk.png", OUT09_self="attention/000-OUT09-010-self.png")
    keep(
        out, **{f"OUT09_pca_{step}": f"attention/000-OUT09-{step}-pca.png" for step in ("001", "010", "020")}
    )
    one = ("--guidance", "4", "--seed", "7")
    images = [run(folder, "generate", prompt, *one, "--no-features") / "000.png" for prompt in PER_BLOCK]
    texts = ("plain", COLOR, SHAPE, "both")
    cells = [(Image.open(image).resize((160, 160)), text) for image, text in zip(images, texts, strict=True)]
    draw_gallery(cells, len(cells)).save(HERE / "per-block.png")
    sweep = "a (~:{block}: blue ; _: red :~) circle"
    keep(run(folder, "sweep", sweep, *one), sweep="sweep.png")
    difference = (
        "--no-features", "--difference", "--save-steps", "1,10,20", "--average", "2-norm", "--method", "white-black"
    )  # fmt: skip
    out = run(folder, "generate", f"a (~: {COLOR}: blue :~) circle", *one, *difference)
    keep(out, differences="differences.png")
    three = [Image.open(out / f"000{name}.png") for name in ("-plain", "", "-difference")]
    beside(three).save(HERE / "difference.png")


def beside(images: Sequence[Image.Image]) -> Image.Image:
    """Lay images out from left to right."""
    gap = 6
    sheet = Image.new(
        "RGB", (sum(i.width + gap for i in images) - gap, max(i.height for i in images)), "white"
    )
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + gap
    return sheet


def make_manual(folder: Path) -> None:
    """Make the pictures of the manual, in its order."""
    sampling = ("a red circle and a pink heart", "--sampler", "DPM++ 2M Karras", "--seed", "1")
    blocks = ("IN00", "IN05", "M00", "OUT06", "OUT11")
    steps = ("001", "005", "010")
    features = (
        "--blocks",
        ",".join(blocks),
        "--save-steps",
        "1,5,10,20",
        "--transform",
        "sigmoid",
        "--dump",
        "npy",
    )
    out = run(folder, "generate", *sampling, *features)
    keep(out, manual_image="000.png")
    chosen = (str(out / "dump"), "--blocks", "OUT11", "--save-steps", "20", "--transform", "sigmoid")
    for name, method in (("grey", "white-black"), ("coloured", "hsl")):
        (picture,) = run(folder, "view", *chosen, "--method", method).glob("*.png")
        shutil.copy(picture, HERE / f"manual-{name}.png")
    for block in blocks:
        three = [Image.open(out / f"features/000-{block}-{step}-unet.png") for step in steps]
        large = max(1, 240 // three[0].width)
        beside([i.resize((i.width * large, i.height * large), Image.Resampling.NEAREST) for i in three]).save(
            HERE / f"manual-{block}.png"
        )
    draw_curves("linear", [ColorSettings(transform="linear", clamp_min=low, clamp_max=5) for low in (-5, -2)])
    draw_curves("sigmoid", [ColorSettings(transform="sigmoid", gain=gain) for gain in (1, 3)])
    attention = (
        "--no-features",
        "--attention",
        "qk",
        "--attention-blocks",
        "IN01,M00,OUT10",
        "--attention-steps",
        "20",
    )
    out = run(folder, "generate", *sampling, *attention)
    for block in ("IN01", "M00", "OUT10"):
        shutil.copy(out / f"attention/000-{block}-020-qk.png", HERE / f"manual-{block}-qk.png")
    euler = ("--sampler", "Euler a", "--seed", "3")
    prompts = {"plain": "a pink heart"} | {
        block: f"a (~: IN00-OUT11: pink; {block}: blue :~) heart"
        for block in ("IN00", "IN05", "M00", "OUT07")
    }
    cells = [
        (
            Image.open(run(folder, "generate", prompt, *euler, "--no-features") / "000.png").resize(
                (160, 160)
            ),
            name,
        )
        for name, prompt in prompts.items()
    ]
    draw_gallery(cells, len(cells)).save(HERE / "manual-per-block.png")
    out = run(folder, "sweep", "a pink heart (~:{block}:and a blue star:~)", *euler)
    keep(out, manual_loop="sweep.png")


def draw_curves(name: str, settings: Sequence[ColorSettings]) -> None:
    """Plot transforms over values from -8 to 8: on the left for White/Black, on the right for the other methods."""
    side, margin, fine = 300, 24, 3
    plots = []
    for method in ("white-black", "red-blue"):
        image = Image.new("RGB", ((side + 2 * margin) * fine,) * 2, "white")
        pen = ImageDraw.Draw(image)
        values = np.linspace(-8, 8, 801, dtype=np.float32)
        low, high = margin * fine, (margin + side) * fine

        def place(x: float, y: float, low: int = low, high: int = high) -> tuple[float, float]:
            """Find the pixel of a point."""
            return low + (x + 8) / 16 * (high - low), high - (y + 1) / 2 * (high - low)

        for line in (
            (-8, -1, 8, -1),
            (-8, 0, 8, 0),
            (-8, 1, 8, 1),
            (-5, -1, -5, 1),
            (0, -1, 0, 1),
            (5, -1, 5, 1),
        ):
            pen.line([place(*line[:2]), place(*line[2:])], fill="silver", width=fine)
        for color, ink in zip(settings, ("navy", "crimson"), strict=True):
            results = transform(values[None], replace(color, method=method))[0]
            pen.line([place(x, y) for x, y in zip(values, results, strict=True)], fill=ink, width=2 * fine)
        small = image.resize((side + 2 * margin,) * 2, Image.Resampling.LANCZOS)
        for text, x, y in (("-5", -5, -1), ("0", 0, -1), ("5", 5, -1)):
            label = text_image(text, 12, longest=margin)
            left, _ = place(x, y)
            small.paste(label, (int(left / fine) - label.width // 2, side + margin + 4))
        for number in (-1, 0, 1):
            label = text_image(str(number), 12, longest=margin)
            _, top = place(-8, number)
            small.paste(label, (margin - label.width - 4, int(top / fine) - label.height // 2))
        label = text_image(
            METHODS[method] if method == "white-black" else "Red/Blue, Custom", 13, longest=side
        )
        small.paste(label, (margin, 2))
        plots.append(small)
    beside(plots).save(HERE / f"manual-{name}.png")


@contextmanager
def page_of(address: str) -> Iterator[Any]:
    """Open a page in Chromium."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 1010})
        page.goto(address)
        yield page
        browser.close()


def shot(page: Any) -> Image.Image:
    """Take a picture of what is in view."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        page.screenshot(path=file.name)
        image = Image.open(file.name).convert("RGB")
    return image.resize((WIDTH, WIDTH * image.height // image.width), Image.Resampling.LANCZOS)


def make_studio(folder: Path) -> None:
    """Take a picture of the studio after one click."""
    command = [sys.executable, "-m", "lib_dumpunet", "studio", "--no-browser", "-o", str(folder / "studio")]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        address = next(line for line in server.stderr if "The studio is at" in line).split()[-1]
        with page_of(address) as page:
            page.locator("#studio-seed input").fill("6")
            page.locator("#studio-generate").click()
            page.get_by_text("Done: 1 image").wait_for()
            page.locator(".studio-gallery").wait_for()
            page.wait_for_function(LOADED)
            rest(page, 2000)  # a picture that comes late stands where another has been until then
            shot(page).quantize(256).save(HERE / "studio.png", optimize=True)
    finally:
        server.terminate()
        server.wait()


def make_explorer(folder: Path) -> None:
    """Record the explorer page: the steps, then words, then attention to a word."""
    out = run(folder, "explore", PAIR, "--guidance", "4", "--seed", "6")
    frames: list[tuple[Image.Image, int]] = []
    with page_of((out / "000.html").as_uri()) as page:
        page.locator("[data-block=OUT11]").wait_for()
        page.locator("#step").focus()
        page.keyboard.press("Home")
        for _ in range(20):
            frames.append((shot(page), 150))
            page.keyboard.press("ArrowRight")
        for word in ("circle", "square", "red", "blue"):
            page.locator("#word-list button", has_text=word).first.hover()
            frames.append((shot(page), 900))
    first, *others = (frame for frame, _ in frames)
    times = [milliseconds for _, milliseconds in frames]
    first.save(
        HERE / "explorer.webp", save_all=True, append_images=others, duration=times, loop=0, quality=60
    )


def make_panel(folder: Path) -> None:
    """Take pictures of the panel's tabs, as the webui shows them."""
    said = io.StringIO()
    with redirect_stdout(said):
        main(["blocks", "--json", "--width", "512", "--height", "512"])
    table = json.dumps(json.loads(said.getvalue())["blocks"])
    command = [old_python(), "-m", "images.panel_page"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        print(table, file=server.stdin, flush=True)
        address = next(line.strip() for line in server.stdout if line.startswith("http"))
        with page_of(address) as page:
            page.set_viewport_size({"width": 600, "height": 1600})
            page.locator(f"#{ID}-features-checkbox input").check()
            box(page, "features-layer").fill("IN00-OUT11(+6)")
            box(page, "features-steps").fill("1,10-20(+5)")
            unfold(page, "features-colorization")
            choose(page, "features-color-transform", "Linear")
            tab(page, "features-colorization", "panel-colours")
            choose(page, "features-color-transform", "Sigmoid")
            unfold(page, "features-info")
            page.locator(f"#{ID}-features-info-table td", has_text="OUT11").wait_for()
            tab(page, "tabs", "panel-features")
            open_tab(page, "Attention")
            page.locator(f"#{ID}-attention-checkbox input").check()
            choose(page, "attention-output", "words")
            tab(page, "tabs", "panel-attention")
            open_tab(page, "Layer Prompt")
            page.locator(f"#{ID}-layerprompt-checkbox input").check()
            page.locator(f"#{ID}-layerprompt-diff-checkbox input").check()
            tab(page, "tabs", "panel-layerprompt")
            open_tab(page, "Settings")
            tab(page, "tabs", "panel-settings")
        server.stdin.close()


def tab(page: Any, part: str, name: str) -> None:
    """Take a picture of a part of the panel, once it has come to rest."""
    rest(page, 1000)
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        page.locator(f"#{ID}-{part}").first.screenshot(path=file.name)
        Image.open(file.name).convert("RGB").quantize(256).save(HERE / f"{name}.png", optimize=True)


MAKERS = {
    "pictures": make_pictures,
    "manual": make_manual,
    "panel": make_panel,
    "studio": make_studio,
    "explorer": make_explorer,
}

if __name__ == "__main__":
    for asked in sys.argv[1:] or MAKERS:
        with tempfile.TemporaryDirectory() as made:
            MAKERS[asked](Path(made))
