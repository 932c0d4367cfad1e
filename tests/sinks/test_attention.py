"""Attention and heatmaps become the right pictures, from captures made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.image.average import average
from lib_dumpunet.image.draw import draw_features
from lib_dumpunet.image.sheet import draw_lattice, draw_sheet
from lib_dumpunet.kinds import Kind
from lib_dumpunet.ports import Picture
from lib_dumpunet.prompt.points import parse_points
from lib_dumpunet.settings import AttentionSettings
from lib_dumpunet.sinks.drawing import Style
from lib_dumpunet.sinks.heatmap import HeatmapSink
from lib_dumpunet.sinks.picture import PictureSink
from lib_dumpunet.sinks.queue import Fanout

SETTINGS = AttentionSettings(average="1-norm")
WORDS = ("<start>", "red", "<end>")


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and a.tobytes() == b.tobytes()


def draw(
    kind: Kind,
    tensor: torch.Tensor,
    labels: tuple[str, ...] = WORDS,
    layer: int = 0,
    *,
    hires: bool = False,
) -> list[Picture]:
    pictures: list[Picture] = []
    style = Style(SETTINGS, 2.0, lambda tag, _: labels if tag.image == 3 else ())
    sink = PictureSink("attention", style, pictures.append)
    sink.accept(Capture(Tag(3, 5, "IN07", kind, layer, hires=hires), tensor))
    return pictures


def test_maps_have_a_column_for_each_token_and_a_row_for_each_head() -> None:
    maps = torch.rand(2, 3, 16, 16)
    mean, whole = draw("qk", maps)
    assert [mean.stem, whole.stem] == ["003-IN07-005-qk-average", "003-IN07-005-qk"]
    assert same(whole.image, draw_sheet(maps, SETTINGS.color, WORDS, ["head 1", "head 2"]))
    norm = average(maps, "1-norm")
    assert norm is not None
    assert same(mean.image, draw_sheet(norm, SETTINGS.color, WORDS, ["average"]))
    assert whole.info == {"Layer Name": "IN07", "Feature Steps": "5", "Attention": "qk"}


@pytest.mark.parametrize("labels", [(), ("too", "few")])
def test_tokens_that_are_not_known_are_numbered(labels: tuple[str, ...]) -> None:
    maps = torch.rand(1, 3, 16, 16)
    *_, whole = draw("qk", maps, labels)
    assert same(whole.image, draw_sheet(maps, SETTINGS.color, ["0", "1", "2"], ["head 1"]))


def test_layers_of_a_block_are_told_apart() -> None:
    *_, second = draw("qk", torch.rand(1, 3, 4, 4), layer=1)
    assert second.stem == "003-IN07-005-qk2"
    assert second.info["Attention Layer"] == "2"


def test_a_hires_pass_is_marked_in_names_and_captions() -> None:
    *_, second = draw("qk", torch.rand(1, 3, 4, 4), layer=1, hires=True)
    assert second.stem == "003-IN07-hr005-qk2"
    assert second.info["Feature Steps"] == "hr5"


def test_what_a_layer_gets_out_of_the_text_is_drawn_as_features() -> None:
    channels = torch.rand(6, 4, 8)
    _, whole = draw("vqk", channels)
    assert same(whole.image, draw_features(channels, SETTINGS.color, 2.0))


def test_keys_are_one_map_for_each_head() -> None:
    _, whole = draw("k", torch.rand(2, 3, 5))
    assert whole.image.height >= 3 * 4
    assert whole.image.width >= 2 * 5 * 4


def test_a_lattice_is_that_of_the_mean_over_heads() -> None:
    maps = torch.rand(2, 3, 3, 8, 8)
    (picture,) = draw("self", maps)
    norm = average(maps, "1-norm")
    assert norm is not None
    assert same(picture.image, draw_lattice(norm[0], SETTINGS.color))


def test_components_span_two_deviations_to_either_side() -> None:
    maps = torch.tensor([-2.0, 0.0, 2.0]).view(3, 1, 1).expand(3, 2, 2)
    (picture,) = draw("pca", maps)
    assert picture.image.getpixel((0, 0)) == (0, 128, 255)


def test_other_kinds_are_left_alone() -> None:
    assert draw("feature", torch.rand(1, 2, 2)) == []
    assert draw("pooled_self", torch.rand(1, 2, 2, 2)) == []


def heat(*captures: Capture, image: Image.Image | None) -> list[Picture]:
    pictures: list[Picture] = []
    sink = HeatmapSink({"Layer Name": "M00"}, pictures.append, parse_points("90,60", (96, 64)))
    with Fanout([sink]) as fanout:
        fanout.see_image(0, image)
        for capture in captures:
            fanout.put(capture)
        fanout.finish_image(0)
    assert fanout.problems == []
    assert not sink._images  # the image is let go with its last word
    return sorted(pictures, key=lambda picture: picture.stem)


def test_words_are_laid_over_their_image() -> None:
    image = Image.new("RGB", (96, 64), "green")
    corner = torch.zeros(8, 12)
    corner[0, 0] = 1
    captures = [
        Capture(Tag(0, 0, "", "word", 0, "red circle"), corner),
        Capture(Tag(0, 0, "", "word", 0, "blurry", "uncond"), corner),
        Capture(Tag(0, 0, "", "point", 0, "90x60"), corner),
    ]
    pictures = heat(*captures, image=image)
    stems = ["000-negative-blurry", "000-point-90x60", "000-word-red_circle"]
    assert [picture.stem for picture in pictures] == [s for stem in stems for s in (stem, f"{stem}-layer")]
    assert [next(iter(p.info.items())) for p in pictures[::2]] == [
        ("Negative Word", "blurry"),
        ("Point", "90x60"),
        ("Word", "red circle"),
    ]
    for layer in pictures[1::2]:
        alpha = np.asarray(layer.image)[..., 3]
        assert alpha.shape == (64, 96)
        assert alpha[:8, :8].max() == alpha.max() > 200
        assert alpha[32:, 48:].max() < 10


def test_words_without_an_image_are_drawn_alone() -> None:
    (picture,) = heat(Capture(Tag(0, 0, "", "word", 0, "red"), torch.rand(4, 4)), image=None)
    assert picture.stem == "000-word-red"


def test_an_image_without_words_is_not_kept() -> None:
    assert heat(image=Image.new("RGB", (8, 8))) == []
