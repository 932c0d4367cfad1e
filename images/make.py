"""Make the pictures of the README again, by the commands that it gives: `.venv/bin/python images/make.py`.

The studio and the explorer page are looked at in Chromium. The pictures of the webui's panel are not made here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from lib_dumpunet.app.cli import main
from lib_dumpunet.image.gallery import draw_gallery

HERE = Path(__file__).resolve().parent
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
    sheet = Image.new(
        "RGB", (sum(image.width + 6 for image in three) - 6, max(i.height for i in three)), "white"
    )
    for i, image in enumerate(three):
        sheet.paste(image, (i * (three[0].width + 6), 0))
    sheet.save(HERE / "difference.png")


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
    server = subprocess.Popen(command, cwd=HERE.parent, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        address = next(line for line in server.stderr if "The studio is at" in line).split()[-1]
        with page_of(address) as page:
            page.locator("#studio-seed input").fill("6")
            page.locator("#studio-generate").click()
            page.get_by_text("Done: 1 image").wait_for()
            page.locator(".studio-gallery").wait_for()
            page.wait_for_function(LOADED)
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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        for make in (make_pictures, make_studio, make_explorer):
            make(Path(made))
