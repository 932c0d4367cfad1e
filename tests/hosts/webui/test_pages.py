"""Explorer pages in the webui's stand-in: next to their images, and as links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.explorer.pages import read_page
from tests.hosts.webui.conftest import Lab
from tests.hosts.webui.test_jobs import captions, features, pixels


def asked(**more: Any) -> dict[str, Any]:
    return {**features(steps="1,2"), "explorer": more}


@pytest.fixture(autouse=True)
def _no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    from lib_dumpunet.hosts.webui import pages

    monkeypatch.setattr(pages, "_pages", {})


def test_each_image_gets_a_page_beside_it(lab: Lab) -> None:
    plain = lab.run(batch_size=2, n_iter=2)
    seen = lab.run(asked(alone=True), batch_size=2, n_iter=2, save=True)
    assert pixels(seen) == pixels(plain)
    assert captions(seen) == []
    images = [Path(image.already_saved_as) for image in seen.images]
    for number, image in enumerate(images):
        page = image.with_name(f"{image.stem}-dumpunet-explorer.html")
        data = read_page(page.read_bytes()).data
        assert data["number"] == number
        assert data["parameters"]["Seed"] == str(1 + number)
        assert data["parameters"]["Sampler"] == "Euler"
        assert [frame["step"] for frame in data["frames"]] == [1, 2]
        assert {layer["block"] for layer in data["layers"]} == {"M00", "OUT11"}
        assert f"MB, 2 blocks, 2 steps. It is {page}" in seen.comments
    levels = {block["name"]: block["level"] for block in data["blocks"]}
    assert (levels["IN00"], levels["M00"], levels["OUT11"]) == (0, 4, 0)


def test_pictures_are_there_too_unless_the_page_is_all(lab: Lab) -> None:
    assert captions(lab.run(asked())) == ["M00, 1", "M00, 2", "OUT11, 1", "OUT11, 2"]


def test_texts_of_blocks_and_a_hires_pass_are_told(lab: Lab) -> None:
    settings = {
        **asked(alone=True),
        "layer_prompt": {},
        "attention": {"kinds": ["qk", "words"], "layers": "IN07", "steps": "1,2"},
    }
    seen = lab.run(
        settings,
        prompt="a (~: M00: red ; _: blue :~) cat",
        enable_hr=True,
        hr_second_pass_steps=2,
    )
    (page,) = re.findall(r"It is (\S+\.html)", seen.comments)
    data = read_page(Path(page).read_bytes()).data
    assert [(frame["step"], frame["hires"]) for frame in data["frames"]] == [
        (1, False),
        (2, False),
        (1, True),
        (2, True),
    ]
    blocks = {block["name"]: block for block in data["blocks"]}
    assert {data["texts"][i] for i in blocks["M00"]["reads"]["cond"]} == {"a  red  cat"}
    assert blocks["M00"]["steered"]
    assert data["prompt"][0]["parts"][1] == ["(~: M00: red ; _: blue :~)", True]
    assert {layer["mode"] for layer in data["layers"]} == {"feature", "attention"}


def test_links_lead_to_pages_and_nowhere_else(lab: Lab) -> None:
    from lib_dumpunet.hosts.webui import pages

    assert "No page has been written yet." in pages.links()
    lab.run(asked())
    lab.run(asked(), prompt="a dog")
    addresses = re.findall(r'href="([^"]+)"', pages.links())
    assert len(addresses) == 2
    app = FastAPI()
    pages.add_route(None, app)
    client = TestClient(app)
    newest = client.get(f"/{addresses[0]}")
    assert newest.headers["content-type"].startswith("text/html")
    assert read_page(newest.content).data["parameters"]["Prompt"] == "a dog"
    assert client.get(f"/{pages.ADDRESS}/guess").status_code == 404
    assert client.get(f"/{pages.ADDRESS}/..%2F..%2Fetc%2Fpasswd").status_code == 404


def test_old_links_are_forgotten_and_removed_files_have_none(lab: Lab, tmp_path: Path) -> None:
    from lib_dumpunet.hosts.webui import pages

    files = [tmp_path / f"{number}.html" for number in range(pages.KEPT + 3)]
    for file in files:
        file.write_text("x")
        pages.offer(file)
    assert pages.links().count("<li>") == pages.KEPT
    files[-1].unlink()
    assert pages.links().count("<li>") == pages.KEPT - 1


def test_nothing_to_show_ends_the_job(lab: Lab) -> None:
    from fastapi import HTTPException

    with pytest.raises(HTTPException) as caught:
        lab.run({"layer_prompt": {}, "explorer": {}}, prompt="a (~: M00: red :~) cat", is_api=True)
    assert "Write explorer page: nothing is captured" in caught.value.detail


def test_a_page_that_cannot_be_saved_beside_its_image_stays_in_reach(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lib_dumpunet.errors import HostError
    from lib_dumpunet.hosts.webui.gallery import Gallery

    publish = Gallery.publish_page

    def refuse(self: Gallery, image: int, beside: str | None) -> Any:
        if beside is not None:
            raise HostError("the disk is full")
        return publish(self, image, beside)

    monkeypatch.setattr(Gallery, "publish_page", refuse)
    seen = lab.run(asked(), save=True)
    assert "the disk is full" in seen.comments
    (page,) = re.findall(r"It is (\S+\.html)", seen.comments)
    assert Path(page).is_file()
