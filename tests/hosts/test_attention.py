"""Attention while generating: unchanged images, the requested pictures, words on their objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib_dumpunet import trace
from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import HostError, SettingsError, UnsupportedModelError
from lib_dumpunet.hosts.diffusers.generate import generate
from lib_dumpunet.hosts.diffusers.job import make_job
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.settings import (
    AttentionSettings,
    DumpSettings,
    FeatureSettings,
    GenerateSettings,
    Settings,
)
from lib_dumpunet.sinks.reader import load_dump
from tests.hosts.test_generate import OFF, PROMPTS, Results, run
from tests.pipelines import HEADS
from tests.unets import hook_count

QUICK = GenerateSettings(steps=3, width=96, height=64, seed=5, guidance=7)
ALL = ("k", "qk", "vqk", "self", "words")


def watching(folder: Path | None = None, **attention: Any) -> Settings:
    dump = DumpSettings() if folder is None else DumpSettings(True, "npy", str(folder))
    return Settings(FeatureSettings(enabled=False), AttentionSettings(dump=dump, **attention))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "guidance", "batch"), [("Heun", 7, 1), ("Heun", 1, 4), ("Euler a", 1, 1), ("Euler a", 7, 4)]
)
def test_watching_changes_no_bit(
    tiny: Any, tmp_path: Path, sampler: str, guidance: float, batch: int
) -> None:
    """Each pair of a sampler, a guidance and a batch size is tried; all three together would take twice as long."""
    sampling = replace(QUICK, sampler=sampler, guidance=guidance, steps=2)
    plain = run(tiny, sampling, OFF, PROMPTS[:batch])
    everything = watching(tmp_path, kinds=ALL, average="2-norm", points="10,20 95,63")
    watched = run(tiny, sampling, replace(everything, features=FeatureSettings()), PROMPTS[:batch])
    for number, image in plain.images.items():
        assert image.tobytes() == watched.images[number].tobytes()
    kinds = {picture.tag.kind for picture in watched.pictures}
    assert kinds == {"feature", "k", "qk", "vqk", "self", "pca", "word", "point"}
    assert hook_count(tiny.unet) == 0
    assert hook_count(tiny.text_encoder) == 0


def test_each_image_of_a_batch_has_its_own_attention(tiny: Any, tmp_path: Path) -> None:
    sampling = replace(QUICK, negative="a yellow ring")
    settings = {"kinds": ALL, "layers": "IN01,OUT09", "steps": "1,3", "negative_words": "*"}
    run(tiny, sampling, watching(tmp_path / "batch", **settings), PROMPTS)
    together = {item.tag: item.tensor for item in load_dump(tmp_path / "batch")}
    for image, prompt in enumerate(PROMPTS):
        folder = tmp_path / str(image)
        run(tiny, replace(sampling, seed=5 + image), watching(folder, **settings), [prompt])
        alone = {item.tag: item.tensor for item in load_dump(folder)}
        mine = {replace(tag, image=0) for tag in together if tag is not None and tag.image == image}
        assert mine == set(alone)
        for tag, tensor in alone.items():
            assert tag is not None
            if tag.kind != "pca":  # its basis is that of the whole run
                torch.testing.assert_close(together[replace(tag, image=image)], tensor, rtol=5e-3, atol=5e-3)
    words = {tag.name for tag in together if tag is not None and tag.kind == "word" and tag.image == 1}
    assert words == {"large", "blue", "square", "black", "background", "yellow", "ring"}


@pytest.mark.parametrize("guidance", [1, 7])
def test_every_layer_of_a_block_of_sdxl_is_told_apart(xl: Any, tmp_path: Path, guidance: float) -> None:
    sampling = replace(QUICK, guidance=guidance, steps=2, batch=2)
    plain = run(xl, sampling, OFF, ["a red circle, (star:1.3) " * 20])
    settings = watching(tmp_path, kinds=ALL, layers="IN07,M00", steps="2")
    watched = run(xl, sampling, settings, ["a red circle, (star:1.3) " * 20])
    for number, image in plain.images.items():
        assert image.tobytes() == watched.images[number].tobytes()
    stems = {picture.stem for picture in watched.pictures if picture.tag.kind == "qk"}
    layers = ("qk", "qk2", "qk3")
    assert stems == {
        f"00{i}-{block}-002-{kind}" for i in (0, 1) for block in ("IN07", "M00") for kind in layers
    }
    maps = {item.tag: item.tensor for item in load_dump(tmp_path)}
    first, second = (maps[Tag(1, 2, "IN07", "qk", site)] for site in (0, 1))
    assert first.shape == (8, 154, 2, 3)  # two chunks of text
    assert not torch.equal(first, second)
    assert maps[Tag(0, 0, "", "word", 0, "star")].shape == (2, 3)


def test_words_are_pictures_layers_and_raw_maps(tiny: Any, tmp_path: Path) -> None:
    settings = watching(words="red circle, star")
    settings = replace(
        settings, attention=replace(settings.attention, heat=DumpSettings(True, "npy", str(tmp_path)))
    )
    results = run(tiny, QUICK, settings, ["a red circle", "a star"])
    stems = sorted(picture.stem for picture in results.pictures)
    assert stems == [
        "000-word-red_circle",
        "000-word-red_circle-layer",
        "001-word-star",
        "001-word-star-layer",
    ]
    layer = next(p for p in results.pictures if p.stem == "000-word-red_circle-layer")
    assert layer.image.mode == "RGBA"
    assert layer.image.size == (96, 64)
    assert layer.info["Word"] == "red circle"
    assert layer.info["Feature Steps"] == "1-3"
    maps = {item.paths[0].name: item.tensor for item in load_dump(tmp_path)}
    assert set(maps) == {"000-word-red_circle.npy", "001-word-star.npy"}
    assert maps["001-word-star.npy"].shape == (8, 12)
    # The heat of the layer is highest where the map is.
    alpha = np.asarray(layer.image)[..., 3]
    y, x = np.unravel_index(maps["000-word-red_circle.npy"].numpy().argmax(), (8, 12))
    assert alpha[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].max() == alpha.max()


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ({"words": "hat"}, r"^Words: .*hat.*red.*circle"),
        ({"negative_words": "ring, hat"}, r"^Negative words: .*hat.*yellow.*ring"),
        ({"kinds": ("qk",), "layers": "IN00,OUT00-OUT02"}, "IN00, OUT00-OUT02: no attention layer"),
        ({"kinds": ("qk",), "layers": "IN99"}, "^Attention layers: "),
        ({"kinds": ("qk",), "steps": "7"}, "^Attention steps: "),
        ({"points": "96,0"}, "^Points: 96,0 is outside"),
    ],
)
def test_mistakes_are_told_before_sampling(tiny: Any, attention: dict[str, Any], message: str) -> None:
    sampling = replace(QUICK, negative="a yellow ring")
    results = Results()
    with pytest.raises(SettingsError, match=message):
        generate(tiny, make_job(tiny, ["a red circle"], sampling), watching(**attention), results.outlet)
    assert not results.images
    assert hook_count(tiny.unet) == 0


def test_blocks_without_attention_are_skipped_with_one_message(
    tiny: Any, caplog: pytest.LogCaptureFixture
) -> None:
    results = run(tiny, QUICK, watching(kinds=("qk",), layers="IN00-IN03", steps="1"))
    assert {picture.tag.block for picture in results.pictures} == {"IN01", "IN02"}
    (record,) = caplog.records
    assert "no attention layer in IN00, IN03, left out" in record.getMessage()


def test_words_of_a_negative_prompt_that_is_not_used_are_told(tiny: Any) -> None:
    results = Results()
    job = make_job(tiny, ["a red circle"], replace(QUICK, guidance=1, negative="a ring"))
    with pytest.raises(SettingsError, match=r"Negative words: .*CFG Scale"):
        generate(tiny, job, watching(negative_words="ring"), results.outlet)


def test_an_interrupted_run_leaves_the_words_that_were_seen(tiny: Any) -> None:
    results = Results()

    def interrupt(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    outlet = replace(results.outlet, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate(tiny, make_job(tiny, ["a red circle"], QUICK), watching(words="red"), outlet)
    (picture,) = results.pictures
    assert picture.stem == "000-word-red"
    assert hook_count(tiny.unet) == 0


def test_fused_projections_are_refused(tiny: Any) -> None:
    tiny.unet.fuse_qkv_projections()
    try:
        job = make_job(tiny, ["a red circle"], QUICK)
        with pytest.raises(UnsupportedModelError, match=r"unfuse_qkv_projections\(\)"):
            generate(tiny, job, watching(kinds=("qk",)), Results().outlet)
    finally:
        tiny.unet.unfuse_qkv_projections()


def call(pipe: Any, prompt: str | list[str] = "a red circle", **other: Any) -> Any:
    arguments = {"width": 96, "height": 64, "num_inference_steps": 3, "guidance_scale": 3.0, **other}
    return pipe(prompt, generator=torch.Generator().manual_seed(1), **arguments).images


def test_trace_keeps_attention_and_words(tiny: Any) -> None:
    plain = call(tiny)
    with trace(tiny, layers="OUT09", steps="3", attention="qk, words, self") as seen:
        images = call(tiny, negative_prompt="blurry ring")
    assert seen.problems == []
    assert plain[0].size == images[0].size
    maps = seen.attention("OUT09", 3)
    assert maps.shape == (HEADS[0], 77, 8, 12)
    assert seen.attention("OUT09", 3, kind="pca").shape == (3, 8, 12)
    assert seen.tokens()[:5] == ("<start>", "a", "red", "circle", "<end>")
    assert seen.words(negative=True)[-1] == "ring"
    torch.testing.assert_close(seen.word("red circle"), maps[:, 2:4].mean((0, 1)))
    assert seen.word("ring", negative=True).shape == (8, 12)
    assert seen.attention_picture("OUT09", 3).width > 77 * 12
    assert seen.attention_picture("OUT09", 3, kind="pca").mode == "RGB"
    assert seen.word_picture("circle", images[0]).width >= 96
    with pytest.raises(SettingsError, match=r"hat.*red"):
        seen.word("hat")
    assert hook_count(tiny.unet) == hook_count(tiny.text_encoder) == 0


def test_trace_tells_prompts_and_copies_apart(tiny: Any) -> None:
    with trace(tiny, layers="M00", steps="1", attention="words", features=False) as seen:
        call(tiny, ["a red circle", "a star"], num_images_per_prompt=2)
        call(tiny, "a blue ring")
    assert not seen.tensors
    assert [seen.words(image)[-1] for image in range(5)] == ["circle", "circle", "star", "star", "ring"]
    assert set(seen.heat) == {BatchRow(i, branch) for i in range(5) for branch in ("cond", "uncond")}


def test_trace_of_a_prompt_that_was_encoded_elsewhere(tiny: Any) -> None:
    embeds, negative = tiny.encode_prompt("a red circle", "cpu", 1, True)
    with trace(tiny, layers="M00", steps="1", attention="qk,words") as seen:
        call(tiny, None, prompt_embeds=embeds, negative_prompt_embeds=negative)
    assert seen.tokens() == ()
    with pytest.raises(HostError, match="tokens are not known"):
        seen.word("red")
    assert seen.attention_picture("M00", 1).width > 0
    assert Tag(0, 1, "M00", "qk") in seen.tensors


def test_trace_refuses_an_unknown_kind(tiny: Any) -> None:
    with (
        pytest.raises(SettingsError, match=r"^attention: 'heads' is not one"),
        trace(tiny, attention="heads"),
    ):
        pass


def test_trace_goes_on_where_tokens_cannot_be_read(tiny: Any) -> None:
    ids = tiny.tokenizer(["a red circle"], padding="max_length", return_tensors="pt").input_ids
    tokenizer, tiny.tokenizer = tiny.tokenizer, None
    try:
        with trace(tiny, layers="M00", steps="1", attention="words") as seen, torch.no_grad():
            embeds = tiny.text_encoder(ids)[0]
            images = call(tiny, None, prompt_embeds=embeds, negative_prompt_embeds=embeds)
    finally:
        tiny.tokenizer = tokenizer
    assert len(images) == 1
    with pytest.raises(HostError, match="tokens are not known"):
        seen.word("red")


def test_a_fault_of_the_words_costs_no_image(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("lib_dumpunet.hooks.sums.AttentionSums.mean", broken)
    results = Results()
    job = make_job(tiny, ["a red circle"], replace(QUICK, count=2))
    outcome = generate(tiny, job, watching(words="red"), results.outlet)
    assert outcome.images == 2
    assert len(outcome.problems) == 2
    assert "words and points of image 0 could not be drawn (out of memory)" in str(outcome.problems[0])


def test_text_that_is_none_is_refused(tiny: Any) -> None:
    with pytest.raises(SettingsError, match=r"^prompt: it contains bytes that are not text"):
        make_job(tiny, ["caf\udce9"], QUICK)
