"""Measure the size and responsiveness of the explorer page of a real run: 25 blocks of SD 1.x, 20 steps, 512x512."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.blocks import SD1
from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.explorer.about import About
from lib_dumpunet.explorer.collect import Collection
from lib_dumpunet.explorer.document import make_page
from lib_dumpunet.settings import ColorSettings, ExplorerSettings

STEPS = 20
SHAPES = (
    *[(320, 64)] * 3, (320, 32), *[(640, 32)] * 2, (640, 16), *[(1280, 16)] * 2, *[(1280, 8)] * 3,
    (1280, 8), *[(1280, 8)] * 2, (1280, 16), *[(1280, 16)] * 2, (1280, 32), *[(640, 32)] * 2, (640, 64),
    *[(320, 64)] * 3,
)  # fmt: skip
"""Channels and side of the blocks' outputs, in forward order."""
FRAMES = 60  # drawn by the browser, each at another step
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu")
DRAG = """async (count) => {
    document.querySelector("[data-block=OUT08]").click();
    await new Promise((done) => setTimeout(done, 1000));
    const step = document.getElementById("step");
    const next = () => new Promise((done) => requestAnimationFrame(done));
    await next();
    const begin = performance.now();
    for (let i = 0; i < count; i++) {
        step.value = i % (Number(step.max) + 1);
        step.dispatchEvent(new Event("input"));
        await next();
    }
    return (performance.now() - begin) / count;
}"""


def measure_explorer() -> list[Row]:
    """Measure a page of features; its speed only if Chromium and Playwright are installed."""
    about = About(
        SD1.names,
        [],
        {},
        {"feature": ColorSettings()},
        "2-norm",
        lambda _: {"Prompt": "a measurement", "Size": "512x512"},
        lambda _: None,
    )
    with closing(Collection(lambda *_: ())) as collection:
        for step in range(1, STEPS + 1):
            for block, (channels, side) in zip(SD1.names, SHAPES, strict=True):
                collection.add(Capture(Tag(0, step, block), _features(channels, side, step)))
        page = make_page(0, Image.new("RGB", (512, 512)), collection, about, ExplorerSettings().limit)
    name = f"page of {len(SD1)} blocks and {STEPS} steps at 512x512"
    rows = [Row(f"{name}: size", len(page.html) / 1e6, " MB", 30, at_least=False)]
    return rows + _speed(name, page.html)


def _features(channels: int, side: int, step: int) -> Tensor:
    """Make partly smooth maps, as a model's are, because pure noise does not compress."""
    generator = torch.Generator().manual_seed(step)
    coarse = torch.randn(1, channels, max(1, side // 4), max(1, side // 4), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")[0]
    return smooth + 0.2 * torch.randn(channels, side, side, generator=generator)


def _speed(name: str, html: bytes) -> list[Row]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return []
    if chromium is None:
        return []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        file = Path(folder) / "page.html"
        file.write_bytes(html)
        browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(file.as_uri())
        milliseconds = page.evaluate(DRAG, FRAMES)
        browser.close()
    return [
        Row(
            f"{name}: a step of the slider, single channels open",
            milliseconds,
            " ms",
            1000 / 30,
            at_least=False,
        )
    ]
