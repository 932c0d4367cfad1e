"""The extension in a real webui or successor, through its API; skipped unless a variable names the webui's folder.

    DUMPUNET_WEBUI=/path/to/webui python run.py test tests/hosts/webui/test_real.py

``DUMPUNET_WEBUI_PYTHON`` is the Python that runs it (its ``venv`` by default), ``DUMPUNET_WEBUI_ARGS`` are more of its
options, such as ``--models-dir DIR --use-cpu all --no-half --precision full``. Any SD 1.x checkpoint serves. The webui
is started with a data folder of its own, so that nothing is changed in it.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.explorer.pages import read_page

WEBUI = os.environ.get("DUMPUNET_WEBUI", "")
pytestmark = pytest.mark.skipif(not WEBUI, reason="DUMPUNET_WEBUI names no webui to drive")
SHIPPED = ("install.py", "scripts", "javascript", "style.css", "lib_dumpunet")
PATIENCE = 300.0  # seconds for the webui to start
STARTED = "Startup time:"  # the last that it says of its start


class Webui:
    """A running webui, and the folder of its data."""

    def __init__(self, port: int, data: Path) -> None:
        self.data = data
        self._url = f"http://127.0.0.1:{port}/sdapi/v1/"

    def call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=600) as answer:
            return json.loads(answer.read())

    def images(self, settings: Any = None, **job: Any) -> dict[str, list[Image.Image]]:
        """Generate images; return them by the end of their parameters: "" for generated images, "M00, 2" for maps."""
        usual = {"negative_prompt": "bad", "steps": 4, "sampler_name": "Euler a", "seed": 7, "cfg_scale": 7}
        body = {"prompt": "a cat", "width": 128, "height": 128, **usual, **job}
        if settings is not None:
            body["alwayson_scripts"] = {"Dump U-Net": {"args": [settings]}}
        answer = self.call("txt2img", body)
        found: dict[str, list[Image.Image]] = {}
        for image, text in zip(answer["images"], json.loads(answer["info"])["infotexts"], strict=True):
            caption = text.rpartition("Layer Name: ")[2].replace("Feature Steps: ", "")
            opened = Image.open(io.BytesIO(base64.b64decode(image)))
            found.setdefault(caption if "Layer Name: " in text else "", []).append(opened)
        return found


def pixels(images: dict[str, list[Image.Image]]) -> list[bytes]:
    return [image.tobytes() for image in images[""]]


@pytest.fixture(scope="module")
def webui(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Webui]:
    data = tmp_path_factory.mktemp("webui")
    extension = data / "extensions" / "dumpunet"
    extension.mkdir(parents=True)
    for name in SHIPPED:
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, extension / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = os.environ.get("DUMPUNET_WEBUI_PYTHON", f"{WEBUI}/venv/bin/python")
    options = ["--skip-prepare-environment", "--skip-torch-cuda-test", "--no-download-sd-model", "--api"]
    options += [
        "--data-dir",
        str(data),
        "--port",
        str(port),
        *shlex.split(os.environ.get("DUMPUNET_WEBUI_ARGS", "")),
    ]
    with (data / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [python, "launch.py", *options],
            cwd=WEBUI,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    running = Webui(port, data)
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and process.poll() is None:
            # A request while it starts would be answered by half of it, or end it.
            if STARTED in (data / "log.txt").read_text():
                break
            time.sleep(1)
        else:
            pytest.fail((data / "log.txt").read_text()[-4000:])
        yield running
        assert "Traceback" not in (data / "log.txt").read_text()
    finally:
        process.terminate()
        process.wait(30)


def features(layers: str = "M00,OUT11", steps: str = "") -> dict[str, Any]:
    return {"features": {"layers": layers, "steps": steps}}


def test_capturing_all_blocks_changes_no_image(webui: Webui) -> None:
    job = {"batch_size": 2, "n_iter": 2}
    seen = webui.images(features("", "2"), **job)
    plain = webui.images(**job)
    assert pixels(seen) == pixels(plain)[-4:]  # a grid stands ahead, if the webui makes one
    assert len(seen) - 1 in (25, 19)
    assert {len(images) for caption, images in seen.items() if caption} == {4}


@pytest.mark.parametrize("sampler", ["Euler a", "Heun", "DPM++ SDE", "DDIM"])
def test_steps_are_the_samplers_own(webui: Webui, sampler: str) -> None:
    captions = list(webui.images(features("M00"), sampler_name=sampler, steps=5))
    assert captions[:4] == ["", "M00, 1", "M00, 2", "M00, 3"]
    assert len(captions) in (5, 6)  # some take one step less


LONG = ", ".join(f"a long prompt {n}" for n in range(30))
HIRES = {
    "enable_hr": True,
    "hr_scale": 1.5,
    "hr_upscaler": "Latent",
    "denoising_strength": 0.7,
    "hr_additional_modules": [],  # without it, Forge's API fails
    "hr_cfg": 7,  # its default is none
}


@pytest.mark.parametrize(
    ("prompt", "equal"),
    [
        ("(~:_: a cat:~)", " a cat"),
        (f"(~:_:{LONG}:~)", LONG),
        ("(~: IN00-M00: cat ; _: cat :~) AND dog", " cat  AND dog"),
        ("(~:_:[red:blue:2] car:~)", "[red:blue:2] car"),
    ],
)
@pytest.mark.parametrize(
    "job",
    [{}, {"sampler_name": "Heun"}, HIRES],
)
def test_the_same_text_in_every_block_is_the_plain_prompt(
    webui: Webui, prompt: str, equal: str, job: dict[str, Any]
) -> None:
    steered = webui.images({"layer_prompt": {}}, prompt=prompt, **job)
    assert pixels(steered) == pixels(webui.images(prompt=equal, **job))
    other = webui.images({"layer_prompt": {}}, prompt="(~: OUT06-OUT08: wood ; _: a cat:~)", **job)
    assert pixels(other) != pixels(webui.images(prompt=" a cat", **job))


def test_the_request_of_the_documentation(webui: Webui, root: Path) -> None:
    readme = (root / "docs" / "webui.md").read_text("utf-8")
    body = json.loads(readme.partition("<!-- curl -->")[2].partition("-d '")[2].partition("'\n")[0])
    answer = webui.call("txt2img", {**body, "width": 128, "height": 128})
    assert (
        len(answer["images"]) == 1 + 2 + 2 * 2 * 2
    )  # the image, a word twice, blocks by steps with averages
    assert len(json.loads(answer["info"])["infotexts"]) == len(answer["images"])


def test_a_difference_shows_both_images(webui: Webui) -> None:
    prompt = "a (~: OUT06-OUT08: red :~) cat"
    found = webui.images({"difference": {"layers": "M00", "steps": "2"}}, prompt=prompt, seed=11)
    plain = webui.images(prompt="a  cat", seed=11)
    steered = webui.images({"layer_prompt": {}}, prompt=prompt, seed=11)
    assert pixels(found) == pixels(plain) + pixels(steered)


def test_an_explorer_page_is_written_beside_its_image(webui: Webui) -> None:
    looking = {"attention": {"kinds": ["qk", "words"]}, "layer_prompt": {}, "explorer": {"alone": True}}
    job = {"prompt": "a (~: OUT03-OUT11: red ; _: blue :~) cat", "save_images": True}
    seen = webui.images({**features(), **looking}, **job)
    assert list(seen) == [""]
    (page,) = webui.data.glob("outputs/**/*-dumpunet-explorer.html")
    assert page.with_name(page.name.replace("-dumpunet-explorer.html", ".png")).is_file()
    data = read_page(page.read_bytes()).data
    assert {layer["mode"] for layer in data["layers"]} == {"feature", "attention"}
    assert {block["name"] for block in data["blocks"] if block["steered"]}
    assert data["parameters"]["Sampler"] == "Euler a"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (features("IN99"), "Layers: the model has no block IN99"),
        (features("M00", "99"), "Image saving steps: no step is left"),
        ({"layer_prompt": {}}, "Prompt: this bracket is not closed"),
    ],
)
def test_a_mistake_is_an_answer_of_its_own(webui: Webui, settings: Any, message: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        webui.images(settings, prompt="a (~: M00" if "layer_prompt" in settings else "a")
    assert refused.value.code == 422
    assert message in refused.value.read().decode()
    assert len(webui.images()[""]) == 1
