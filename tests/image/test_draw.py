"""A tensor becomes a picture and a PNG that Pillow reads back, texts included."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from lib_dumpunet.image.draw import draw_features, png_bytes
from lib_dumpunet.settings import METHODS, ColorSettings

TEXTS = {
    "parameters": "a cat\nSteps: 20, Sampler: Euler a",
    "Layer Name": "OUT11",
    "Accents": "é ß ½",
    "Japanese": "猫, 少女 ✨",
    "Empty": "",
}


@pytest.mark.parametrize("method", METHODS)
def test_png_holds_picture_and_texts(method: str) -> None:
    image = draw_features(torch.randn(6, 4, 5).half(), ColorSettings(method=method), 1.0)
    assert image.mode == ("L" if method == "white-black" else "RGB")
    data = png_bytes(image, TEXTS)
    with Image.open(io.BytesIO(data)) as again:
        again.load()
        assert again.mode == image.mode
        assert again.tobytes() == image.tobytes()
        assert again.text == TEXTS
    assert b"iTXt" in data


def test_half_a_surrogate_pair_loses_no_picture() -> None:
    image = draw_features(torch.randn(1, 2, 2), ColorSettings(), 1.0)
    with Image.open(io.BytesIO(png_bytes(image, {"parameters": "a\ud800b"}))) as again:
        assert again.text == {"parameters": "a?b"}
