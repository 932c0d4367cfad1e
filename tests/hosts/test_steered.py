"""Per-block prompts on diffusers: what each block reads, the images, and how often texts are encoded."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    DPMSolverSDEScheduler,
    MotionAdapter,
    StableDiffusionPipeline,
)
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from lib_dumpunet import steer, trace
from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import HostError, PromptSyntaxError, SettingsError, UnsupportedModelError
from lib_dumpunet.hosts.diffusers.generate import ResultHandlers, generate
from lib_dumpunet.hosts.diffusers.job import make_job
from lib_dumpunet.hosts.diffusers.text import encode_prompts
from lib_dumpunet.models.describe import describe
from lib_dumpunet.ports import Picture
from lib_dumpunet.settings import (
    AttentionSettings,
    ColorSettings,
    DifferenceSettings,
    DumpSettings,
    FeatureSettings,
    GenerateSettings,
    Settings,
)
from lib_dumpunet.sinks.reader import load_dump
from tests.pipelines import encoded_by, load_sd1, sag_pipeline
from tests.unets import hook_count

OFF = Settings(FeatureSettings(enabled=False))
QUICK = GenerateSettings(steps=3, width=64, height=64, seed=5, guidance=4)
LONG = "red " * 80


class Results:
    """An outlet that keeps everything, in order."""

    def __init__(self) -> None:
        self.images: dict[int, Image.Image] = {}
        self.plain: dict[int, Image.Image] = {}
        self.order: list[tuple[str, int]] = []
        self.pictures: list[Picture] = []
        self.done: list[tuple[int, int]] = []
        self.outlet = ResultHandlers(
            self._image, self.pictures.append, lambda *p: self.done.append(p), plain=self._plain
        )

    def _image(self, number: int, image: Image.Image) -> None:
        self.images[number] = image
        self.order.append(("steered", number))

    def _plain(self, number: int, image: Image.Image) -> None:
        self.plain[number] = image
        self.order.append(("plain", number))


def run(pipe: Any, prompts: str | Sequence[str], settings: Settings = OFF, **sampling: Any) -> Results:
    results, before = Results(), hook_count(pipe.unet)
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    outcome = generate(pipe, make_job(pipe, texts, replace(QUICK, **sampling)), settings, results.outlet)
    assert outcome.problems == []
    assert hook_count(pipe.unet) == before
    return results


def bits(results: Results) -> list[bytes]:
    return [image.tobytes() for image in results.images.values()]


# -- images


SAME = [
    ("a (~:IN00-OUT11:red:~) star", "a red star"),
    ("a (~:_:red:~) star", "a red star"),
    ("a (~:M00:red; OUT11-IN00: red;_:red:~) star", "a  red star"),
    ("a (~:IN00:red;_:blue:~) star", "a blue star"),  # IN00 has no cross-attention
    ("a star(~: M00*0: blue :~)", "a star"),
    ("a star(~: IN00-OUT11*0@1-2: blue :~)", "a star"),
    ("a star(~: IN03: blue :~)", "a star"),
    ("a (~:_*1@1-3:red:~) star", "a red star"),
    ("((~:_:a:~) star:1.3)", "(a star:1.3)"),
    ("a (~:_:" + LONG + ":~) star", "a " + LONG + " star"),
]


@pytest.mark.parametrize(("steered", "plain"), SAME)
@pytest.mark.parametrize("guidance", [1, 7])
def test_the_same_text_everywhere_is_that_text_bit_for_bit(
    tiny: Any, steered: str, plain: str, guidance: float
) -> None:
    assert bits(run(tiny, steered, guidance=guidance)) == bits(run(tiny, plain, guidance=guidance))


@pytest.mark.parametrize("sampler", ["Heun", "Euler a", "DPM++ SDE"])
def test_the_same_for_negative_prompts_batches_and_samplers(tiny: Any, sampler: str) -> None:
    steered = run(tiny, ["a (~:_:red:~) star", "blue"], negative="a (~:_:ring:~)", sampler=sampler, batch=2)
    plain = run(tiny, ["a red star", "blue"], negative="a ring", sampler=sampler, batch=2)
    assert len(steered.images) == 4
    assert bits(steered) == bits(plain)


PLAIN_SYNTAX = [
    ("a star(~: M00*1, OUT10*1: blue :~)", "a star(~: M00, OUT10: blue :~)"),
    ("a star(~: OUT10@1-3: blue :~)", "a star(~: OUT10: blue :~)"),
    ("a star(~: OUT10*1@1,2-3: blue :~)", "a star(~: OUT10: blue :~)"),
    ("a star(~: OUT10@1: blue ; OUT10@2-3: blue :~)", "a star(~: OUT10: blue :~)"),
]


@pytest.mark.parametrize(("new", "old"), PLAIN_SYNTAX)
def test_full_strength_and_all_steps_are_the_plain_syntax(tiny: Any, new: str, old: str) -> None:
    results = bits(run(tiny, new, sampler="Heun"))
    assert results == bits(run(tiny, old, sampler="Heun"))
    assert results != bits(run(tiny, "a star", sampler="Heun"))


def test_strength_and_steps_lie_between(tiny: Any) -> None:
    """Half the strength and half of the steps change the image, differently from full strength."""
    texts = [
        "a star",
        "a star(~: OUT10: blue :~)",
        "a star(~: OUT10*0.5: blue :~)",
        "a star(~: OUT10@1: blue :~)",
    ]
    assert len({bits(run(tiny, text))[0] for text in texts}) == 4


def test_each_image_of_a_batch_is_steered_as_if_alone(tiny: Any) -> None:
    prompts = ["a (~:OUT10:red;_:blue:~) star", "a ring", "a (~:OUT08:star@2;_:circle:~)"]
    together = run(tiny, prompts, count=2)
    for number in range(6):
        alone = run(tiny, prompts[number % 3], seed=QUICK.seed + number)
        difference = _levels(together.images[number]) - _levels(alone.images[0])
        assert difference.abs().max() <= 2
    assert (_levels(together.images[0]) - _levels(run(tiny, "a blue star").images[0])).abs().mean() > 0


def _levels(image: Image.Image) -> Tensor:
    return torch.tensor(list(image.convert("RGB").tobytes()), dtype=torch.float32)


def test_a_negative_prompt_that_is_not_used_is_told(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    for negative, guidance in (("x(~:M00: y:~)", 1), ("x(~:M00: y:~)", 4), ("x", 1)):
        make_job(tiny, ["a"], replace(QUICK, negative=negative, guidance=guidance))
    assert [r.getMessage() for r in caplog.records] == [
        "Negative prompt: it is not used, because CFG Scale is 1"
    ]


# -- what is read


@contextmanager
def contexts(pipe: Any) -> Iterator[list[tuple[str, Tensor]]]:
    """Record what every cross-attention layer reads, block by block."""
    seen: list[tuple[str, Tensor]] = []
    handles = []
    for block in describe(pipe.unet).blocks:
        for layer in block.layers:
            handles.append(
                layer.cross_attention.to_k.register_forward_pre_hook(
                    lambda _m, args, block=block.name: seen.append((block, args[0]))
                )
            )
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class Texts:
    """Identifies embeddings by the texts that they were encoded from."""

    def __init__(self, pipe: Any, texts: Sequence[str]) -> None:
        self._known = {text: encode_prompts(pipe, [text]).embeds[0] for text in ("", *texts)}

    def name(self, row: Tensor) -> str:
        """Return the text, with " +" for each chunk of padding."""
        for text, context in self._known.items():
            count = (len(row) - len(context)) // 77
            if count >= 0:
                whole = torch.cat([context, *[self._known[""]] * count])
                if torch.allclose(row, whole, rtol=1e-3, atol=1e-4):
                    return text + " +" * count
        return "?"


@pytest.mark.parametrize("guidance", [1, 7])
@pytest.mark.parametrize("sampler", ["", "Heun"])
@pytest.mark.parametrize("name", ["tiny", "xl"])
def test_only_the_named_blocks_read_something_else(
    request: pytest.FixtureRequest, name: str, sampler: str, guidance: float
) -> None:
    pipe = request.getfixturevalue(name)
    prompts = ["a (~:M00@2-3:red;_:blue:~) star", "a ring", f"big (~:OUT05:{LONG};_:heart:~)"]
    negative = "ugly(~:IN04, OUT05: and green:~)"
    texts = Texts(
        pipe,
        ["a red star", "a blue star", "a ring", f"big {LONG}", "big heart", "ugly", "ugly and green"],
    )
    with contexts(pipe) as seen:
        run(pipe, prompts, negative=negative, sampler=sampler, guidance=guidance)
    # Heun evaluates each step but the last twice.
    steps = [1, 1, 2, 2, 3] if sampler == "Heun" else [1, 2, 3]
    by_block: dict[str, list[list[str]]] = {}
    layers = Counter(layer.block for block in describe(pipe.unet).blocks for layer in block.layers)
    for block, context in seen:
        by_block.setdefault(block, []).append([texts.name(row) for row in context])
    assert by_block.keys() == layers.keys()
    for block, rows in by_block.items():
        assert len(rows) == layers[block] * len(steps)
        per_step = [rows[i * layers[block]] for i in range(len(steps))]
        assert rows == [row for row in per_step for _ in range(layers[block])]
        for step, row in zip(steps, per_step, strict=True):
            long = block == "OUT05"
            cond = [
                "a red star" if block == "M00" and step > 1 else "a blue star",
                "a ring",
                f"big {LONG}" if long else "big heart",
            ]
            if long:
                cond[:2] = [f"{text} +" for text in cond[:2]]
            uncond = ["ugly and green" if block in ("IN04", "OUT05") else "ugly"] * 3
            if long:
                uncond = [f"{text} +" for text in uncond]
            assert row == (cond if guidance == 1 else uncond + cond)


def test_texts_are_encoded_once_each(tiny: Any) -> None:
    prompt = "a (~:IN00-IN11:red;M00*0.5@1-2:blue;_:green:~) star"
    settings = replace(OFF, difference=DifferenceSettings(True, layers="M00"))
    with encoded_by(tiny) as encoded:
        run(tiny, [prompt, prompt, "a ring"], settings, negative="big (~:M00:star;_:ring:~)", count=2)
    texts = {"a red star", "a green star", "a blue star", "a  star", "a ring", "big star", "big ring", "big "}
    assert max(Counter(encoded).values()) == 1
    assert len(encoded) == len({encode_prompts(tiny, [t]).tokens for t in (*texts, "")})


def test_pooled_text_follows_the_main_text(xl: Any) -> None:
    pooled: list[Tensor] = []
    handle = xl.unet.register_forward_pre_hook(
        lambda _m, _a, kwargs: pooled.append(kwargs["added_cond_kwargs"]["text_embeds"]), with_kwargs=True
    )
    try:
        run(xl, ["girl (~: IN05: bad :~)", "a (~:IN00-OUT08:cute:~)", "x(~:IN04:y;IN05:z:~)"], guidance=1)
    finally:
        handle.remove()
    expected = [encode_prompts(xl, [text]).pooled for text in ("girl ", "a cute", "x")]
    torch.testing.assert_close(pooled[0], torch.cat([p for p in expected if p is not None]))


# -- difference maps


def difference_settings(folder: Path, **other: Any) -> Settings:
    dump = DumpSettings(True, "npy", str(folder))
    return Settings(FeatureSettings(enabled=False), difference=DifferenceSettings(True, dump=dump, **other))


@pytest.mark.parametrize("sampler", ["", "Heun"])
def test_differences_are_those_of_two_runs(tiny: Any, tmp_path: Path, sampler: str) -> None:
    prompts = ["a (~:OUT10:red;_:blue:~) star", "a ring(~:IN04:s:~)", "a square"]
    options = {"negative": "x(~:M00: y:~)", "sampler": sampler, "count": 2}
    found = run(
        tiny, prompts, difference_settings(tmp_path / "d", layers="IN01,M00,OUT11", steps="1,3"), **options
    )

    def features(name: str, texts: list[str], **changed: Any) -> tuple[dict[Any, Tensor], Results]:
        dump = DumpSettings(True, "npy", str(tmp_path / name))
        settings = Settings(FeatureSettings(layers="IN01,M00,OUT11", steps="1,3", dump=dump))
        results = run(tiny, texts, settings, **{**options, **changed})
        return {item.tag: item.tensor for item in load_dump(tmp_path / name)}, results

    steered, with_ = features("s", prompts)
    plain, without = features("p", ["a  star", "a ring", "a square"], negative="x")
    assert bits(found) == bits(with_)
    assert [i.tobytes() for i in found.plain.values()] == bits(without)
    assert found.order == [
        (kind, image) for batch in ((0, 1, 2), (3, 4, 5)) for kind in ("plain", "steered") for image in batch
    ]
    dumped = {item.tag: item.tensor for item in load_dump(tmp_path / "d")}
    assert len(dumped) == 6 * 3 * 2
    for tag, tensor in dumped.items():
        assert tag is not None
        feature = replace(tag, kind="feature")
        assert tag.kind == "difference"
        assert torch.equal(tensor, steered[feature] - plain[feature])
    assert any(tensor.abs().max() > 0.1 for tensor in dumped.values())
    assert len(found.pictures) == len(dumped)
    assert found.done[-1] == (12, 12)
    assert not list(tmp_path.glob("d/dumpunet*"))


def test_white_and_black_shows_the_absolute_difference(tiny: Any) -> None:
    signed, absolute = (
        run(
            tiny,
            "a (~:OUT10:red;_:blue:~) star",
            Settings(
                FeatureSettings(enabled=False),
                difference=DifferenceSettings(
                    True, layers="OUT11", steps="3", color=ColorSettings(method=method)
                ),
            ),
        ).pictures[0]
        for method in ("red-blue", "white-black")
    )
    assert signed.image.mode == "RGB"
    assert absolute.image.mode == "L"
    assert absolute.stem == "000-OUT11-003-difference"


def test_a_difference_beside_features_and_words(tiny: Any, tmp_path: Path) -> None:
    prompt = "a (~:OUT10:red;_:blue:~) star"
    dump = DumpSettings(True, "safetensors", str(tmp_path))
    settings = Settings(
        FeatureSettings(layers="OUT11", dump=dump),
        AttentionSettings(kinds=("qk", "words"), layers="OUT09,OUT10", dump=dump, heat=dump),
        DifferenceSettings(True, layers="OUT11,M00", steps="2", dump=dump),
    )
    found = run(tiny, prompt, settings)
    assert bits(found) == bits(run(tiny, prompt))
    kinds = Counter(item.tag.kind for item in load_dump(tmp_path) if item.tag)
    assert kinds == {"feature": 3, "qk": 6, "difference": 2, "word": 3}
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        f"000-{step:03}.safetensors" for step in range(4)
    ]
    words = {item.tag.name for item in load_dump(tmp_path) if item.tag and item.tag.kind == "word"}
    assert words == {"red", "blue", "star"}


def test_the_models_own_sampler_makes_the_same_noise_twice(tiny: Any) -> None:
    own = tiny.scheduler
    tiny.scheduler = DPMSolverSDEScheduler.from_config(own.config)
    try:
        prompts = ["a (~: OUT10*0: blue :~) circle", "a ring"]
        found = run(tiny, prompts, replace(OFF, difference=DifferenceSettings(True, layers="M00")))
    finally:
        tiny.scheduler = own
    assert [i.tobytes() for i in found.plain.values()] == bits(found)


def test_no_bracket_no_difference(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no prompt has text per block"):
        run(tiny, "a star", difference_settings(tmp_path))


def test_a_full_disk_costs_the_differences_alone(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lib_dumpunet.sinks.spool.Spool._write", full)
    results = Results()
    prompt = "a (~:OUT10:red;_:blue:~) star"
    settings = Settings(FeatureSettings(layers="M00"), difference=DifferenceSettings(True))
    outcome = generate(tiny, make_job(tiny, [prompt], replace(QUICK, count=2)), settings, results.outlet)
    assert len(outcome.problems) == 1
    assert "features without per-block prompts could not be stored" in str(outcome.problems[0])
    assert len(results.images) == len(results.plain) == 2
    assert {picture.tag.kind for picture in results.pictures} == {"feature"}


@pytest.mark.parametrize("failing", ["plain", "image"])
def test_an_image_that_cannot_be_saved_costs_no_other(tiny: Any, failing: str) -> None:
    results = Results()

    def fail(number: int, image: Image.Image) -> None:
        if number == 0:
            raise HostError("the disk is full")
        getattr(results.outlet, failing)(number, image)

    job = make_job(tiny, ["a (~:OUT10:red;_:blue:~) star", "b"], replace(QUICK, count=2))
    settings = replace(OFF, difference=DifferenceSettings(True, layers="M00"))
    outcome = generate(tiny, job, settings, replace(results.outlet, **{failing: fail}))
    assert [str(problem) for problem in outcome.problems] == ["the disk is full."]
    assert sorted(results.plain) == ([1] if failing == "plain" else [0, 1])
    assert sorted(results.images) == ([1] if failing == "image" else [0, 1])
    assert outcome.images == len(results.images)


def test_what_cannot_be_placed_is_told_and_never_steered_wrongly(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> int:
        raise HostError("timestep 7 is none of its own")

    monkeypatch.setattr("lib_dumpunet.hosts.diffusers.clock.position", lost)
    results = Results()
    steered = generate(tiny, make_job(tiny, ["a (~:M00:b:~)"], QUICK), OFF, results.outlet)
    assert (steered.images, [str(p) for p in steered.problems]) == (0, ["timestep 7 is none of its own."])
    plain = generate(tiny, make_job(tiny, ["a"], QUICK), Settings(), results.outlet)
    assert plain.images == 1
    assert "timestep 7 is none of its own." in map(str, plain.problems)


def test_fused_projections_are_refused_before_sampling(tiny: Any) -> None:
    results = Results()
    attention = AttentionSettings(kinds=("qk",))
    settings = Settings(FeatureSettings(enabled=False), attention, DifferenceSettings(True))
    job = make_job(tiny, ["a (~:OUT10:red;_:blue:~) star"], QUICK)
    tiny.unet.fuse_qkv_projections()
    try:
        with pytest.raises(UnsupportedModelError, match="unfuse_qkv_projections"):
            generate(tiny, job, settings, results.outlet)
    finally:
        tiny.unet.unfuse_qkv_projections()
    assert not results.done


# -- words and attention


def test_words_are_found_where_blocks_read_them(tiny: Any) -> None:
    """Texts of different lengths: each word is averaged over the layers that read it."""
    prompt = "a (~:OUT10:very red and large;_:blue:~) star"
    attention = AttentionSettings(kinds=("words",), layers="OUT09-OUT11", words="red, blue, star")
    found = run(tiny, prompt, replace(OFF, attention=attention))
    names = sorted(picture.tag.name for picture in found.pictures if not picture.title)
    assert names == ["blue", "red", "star"]
    (red,) = (p.image for p in found.pictures if p.tag.name == "red" and not p.title)
    alone = run(
        tiny,
        prompt,
        replace(OFF, attention=AttentionSettings(kinds=("words",), layers="OUT10", words="red")),
    )
    (same,) = (p.image for p in alone.pictures if not p.title)
    assert red.tobytes() == same.tobytes()


def test_a_word_that_no_block_reads(tiny: Any) -> None:
    attention = AttentionSettings(kinds=("words",), words="green")
    with pytest.raises(SettingsError, match=r"'green' is not in the prompt.*blue, star, red"):
        run(tiny, "a (~:OUT10:red;_:blue:~) star", replace(OFF, attention=attention))


def test_a_word_that_only_unwatched_blocks_read_is_told(tiny: Any) -> None:
    for prompt, layers in (
        ("a (~:OUT10:red;_:blue:~) star", "OUT09"),
        ("a(~: OUT10*0.2: red :~) star", "OUT10"),
    ):
        attention = AttentionSettings(kinds=("words",), words="red, star", layers=layers)
        results = Results()
        job = make_job(tiny, [prompt], QUICK)
        outcome = generate(tiny, job, replace(OFF, attention=attention), results.outlet)
        assert {p.tag.name for p in results.pictures} == {"star"}
        (problem,) = outcome.problems
        assert "no captured block mainly uses 'red'" in str(problem)


def test_columns_are_labelled_by_the_blocks_own_text(tiny: Any, tmp_path: Path) -> None:
    dump = DumpSettings(True, "npy", str(tmp_path))
    attention = AttentionSettings(kinds=("qk",), layers="OUT09,OUT10,OUT11", steps="3", dump=dump)
    prompt = f"a (~:OUT10:{LONG};_:blue:~) star"
    run(tiny, prompt, replace(OFF, attention=attention))
    tokens = {item.tag.block: item.tokens for item in load_dump(tmp_path) if item.tag}
    assert tokens["OUT09"][:5] == ("<start>", "a", "blue", "star", "<end>")
    assert tokens["OUT10"][:4] == ("<start>", "a", "red", "red")
    assert {block: len(t) for block, t in tokens.items()} == {"OUT09": 77, "OUT10": 154, "OUT11": 77}


def test_columns_of_a_block_that_reads_nothing_are_labelled(tiny: Any, tmp_path: Path) -> None:
    dump = DumpSettings(True, "npy", str(tmp_path))
    attention = AttentionSettings(kinds=("qk",), layers="OUT09,OUT10", steps="3", dump=dump)
    run(tiny, "(~:M00: cat ; OUT10: dog:~)", replace(OFF, attention=attention))
    tokens = {item.tag.block: item.tokens for item in load_dump(tmp_path) if item.tag}
    assert tokens["OUT09"][:3] == ("<start>", "<end>", "<pad>")
    assert tokens["OUT10"][1] != "<end>"


# -- in a notebook


@pytest.mark.parametrize("name", ["tiny", "xl"])
def test_a_pipeline_of_the_users_own(request: pytest.FixtureRequest, name: str) -> None:
    pipe = request.getfixturevalue(name)
    prompts = ["a (~:M00,OUT05@1:red;_:blue:~) star", "a ring"]

    def make(inputs: dict[str, Any]) -> Image.Image:
        generators = [torch.Generator().manual_seed(QUICK.seed + i) for i in range(4)]
        return pipe(**inputs, guidance_scale=4, width=64, height=64, generator=generators).images

    with steer(pipe, prompts, "x(~:IN04:y:~)", steps=3, images_per_prompt=2) as inputs:
        first, second = make(inputs), make(inputs)
    assert hook_count(pipe.unet) == 0
    expected = run(pipe, prompts, negative="x(~:IN04:y:~)", batch=2)
    assert [i.tobytes() for i in first] == [i.tobytes() for i in second] == bits(expected)
    assert [i.tobytes() for i in make(inputs)] != bits(expected)  # out of the with, nothing is steered


def test_steering_and_tracing_at_once(tiny: Any) -> None:
    sampling = {"guidance_scale": 4, "width": 64, "height": 64}
    images, traces = [], []
    for prompt in ("a (~:OUT10:red;_:blue:~) star", "a blue star"):
        with steer(tiny, prompt, steps=3) as inputs, trace(tiny, "OUT11,IN01", "3") as seen:
            images.append(tiny(**inputs, **sampling, generator=torch.Generator().manual_seed(1)).images[0])
        assert seen.problems == []
        traces.append(seen)
    assert images[0].tobytes() != images[1].tobytes()
    assert (traces[0]["OUT11", 3] - traces[1]["OUT11", 3]).abs().max() > 0.1


def test_words_of_what_each_block_reads_in_a_notebook(tiny: Any) -> None:
    """As in `generate`: each word is the mean over the layers that read it."""
    prompts = [f"a (~:OUT10:red {LONG};_:blue:~) star", "a ring"]
    sampling = {"guidance_scale": 4, "width": 64, "height": 64}
    with (
        steer(tiny, prompts, "bad(~:OUT09: ugly:~)", steps=2) as inputs,
        trace(tiny, "OUT09-OUT11", "2", attention="qk,words", features=False, steered=inputs) as seen,
    ):
        for _ in range(2):
            tiny(**inputs, **sampling, generator=[torch.Generator().manual_seed(i) for i in range(2)])
    assert seen.problems == []
    assert set(seen.words()) == {"a", "red", "blue", "star"}
    assert seen.words(1) == seen.words(3) == ("a", "ring")
    assert set(seen.words(2, negative=True)) == {"bad", "ugly"}
    assert seen.tokens(block="OUT10", step=2)[:4] == ("<start>", "a", "red", "red")
    assert seen.tokens()[:3] == ("<start>", "a", "blue")
    qk = {block: seen.attention(block, 2) for block in ("OUT09", "OUT10", "OUT11")}
    red = qk["OUT10"][:, [i for i, name in enumerate(seen.tokens(block="OUT10")) if name == "red"]]
    torch.testing.assert_close(seen.word("red"), red.mean((0, 1)))
    torch.testing.assert_close(seen.word("blue"), (qk["OUT09"] + qk["OUT11"])[:, 2].mean(0) / 2)
    star = qk["OUT09"][:, 3] + qk["OUT11"][:, 3]
    last = max(i for i, name in enumerate(seen.tokens(block="OUT10")) if name == "star")
    torch.testing.assert_close(seen.word("star"), (star + qk["OUT10"][:, last]).mean(0) / 3)
    torch.testing.assert_close(seen.word("ring", 1), seen.word("ring", 3))
    picture = seen.attention_picture("OUT10", 2)
    assert picture.width > 1.5 * seen.attention_picture("OUT09", 2).width
    with pytest.raises(SettingsError, match="'green' is not in the prompt"):
        seen.word("green")


def test_another_number_of_images_in_a_notebook_is_refused(tiny: Any) -> None:
    prompts = ["a (~:OUT10:red;_:blue:~) star", "a ring"]
    sampling = {"guidance_scale": 4, "width": 64, "height": 64}

    def make(**more: Any) -> list[bytes]:
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        images = tiny(**inputs, **sampling, **more, generator=generators).images
        return [image.tobytes() for image in images]

    with steer(tiny, prompts, steps=3) as inputs:
        first = make()
        with pytest.raises(HostError, match="4 images, but there are prompts for 2"):
            tiny(**inputs, **sampling, num_images_per_prompt=2)
        with pytest.raises(HostError, match="1 images, but there are prompts for 2"):
            tiny("a star", num_inference_steps=1, **sampling)
        assert make() == first


def test_mistakes_in_a_notebook(tiny: Any) -> None:
    with pytest.raises(PromptSyntaxError, match="no block M01"), steer(tiny, "a (~:M01: b:~)"):
        pytest.fail("it must not come here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": []}, "prompt: .* is not texts"),
        ({"prompt": None}, "prompt: None is not texts"),
        ({"prompt": ["a", None]}, "prompt: .* is not texts"),
        ({"negative_prompt": ["x", "y"]}, "negative_prompt: all images share one"),
        ({"negative_prompt": 3}, "negative_prompt: 3 is not a text"),
        ({"images_per_prompt": 0}, "images_per_prompt: 0 is not a number from 1"),
        ({"steps": 0}, "steps: 0 is not a number from 1"),
        ({"steps": 4.0}, "steps: 4.0 is not a number from 1"),
    ],
)
def test_wrong_arguments_in_a_notebook(tiny: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message), steer(tiny, **{"prompt": "a", **arguments}):
        pytest.fail("it must not come here")


def test_pipelines_that_cannot_be_steered() -> None:
    class StableDiffusionPAGPipeline:
        pass

    with pytest.raises(HostError, match="adds its own rows"), steer(StableDiffusionPAGPipeline(), "a"):
        pytest.fail("it must not come here")
    pipe = load_sd1()
    pipe.text_encoder = None
    with pytest.raises(HostError, match="no tokenizer with a text encoder"), steer(pipe, "a"):
        pytest.fail("it must not come here")


def test_other_prompts_inside_steer_are_refused(tiny: Any) -> None:
    sampling = {"num_inference_steps": 1, "guidance_scale": 4, "width": 64, "height": 64}
    with steer(tiny, "a (~:OUT10:red;_:blue:~) star", None) as inputs:
        tiny(**{**inputs, **sampling})
        with pytest.raises(HostError, match="called with other prompts inside steer"):
            tiny("a star", **sampling)


def test_a_pipeline_without_a_tokenizer_is_told(tiny: Any) -> None:
    parts = {**tiny.components, "tokenizer": None, "requires_safety_checker": False}
    pipe = StableDiffusionPipeline(**parts)
    with (
        pytest.raises(HostError, match="StableDiffusionPipeline has no tokenizer"),
        steer(pipe, "a (~: M00: b :~)"),
    ):
        pass


def with_ip_adapter(tiny: Any) -> Any:
    """Make the bundled pipeline with an IP-Adapter of random weights."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=64,
    )
    parts = {**tiny.components, "unet": copy.deepcopy(tiny.unet), "requires_safety_checker": False}
    parts["image_encoder"] = CLIPVisionModelWithProjection(config).eval()
    parts["feature_extractor"] = CLIPImageProcessor(size=32, crop_size=32)
    pipe = StableDiffusionPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    width = pipe.unet.config.cross_attention_dim
    projection = {
        "proj.weight": torch.randn(4 * width, 64) * 0.05,
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    layers = {}
    names = [name for name in pipe.unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(names):
        channels = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for part in "kv":
            layers[f"{2 * number + 1}.to_{part}_ip.weight"] = torch.randn(channels, width) * 0.1
    pipe.unet._load_ip_adapter_weights({"image_proj": projection, "ip_adapter": layers})
    return pipe


def test_blocks_are_steered_beside_an_ip_adapter(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    pipe = with_ip_adapter(tiny)
    look = Image.linear_gradient("L").resize((32, 32)).convert("RGB")

    def make(text: str, shown: Image.Image = look) -> bytes:
        with steer(pipe, text, "", steps=3) as inputs:
            generator = torch.Generator().manual_seed(1)
            image = pipe(
                **inputs, width=96, height=64, guidance_scale=4, ip_adapter_image=shown, generator=generator
            ).images[0]
        return bytes(image.tobytes())

    generator = torch.Generator().manual_seed(1)
    plain = pipe(
        "a  red  circle",
        negative_prompt="",
        num_inference_steps=3,
        width=96,
        height=64,
        guidance_scale=4,
        ip_adapter_image=look,
        generator=generator,
    ).images[0]
    assert make("a (~: _: red :~) circle") == plain.tobytes()
    steered = make("a (~: OUT10: blue ; _: red :~) circle")
    assert steered != plain.tobytes()
    assert make("a (~: OUT10: blue ; _: red :~) circle", look.rotate(90)) != steered
    with trace(pipe, layers="OUT10", attention="vqk"):
        make("a circle")
    assert "it also contains what the IP-Adapter adds from its image" in caplog.text


def test_a_pipeline_that_hides_its_guidance_is_steered_by_its_texts(tiny: Any) -> None:
    pipe = sag_pipeline(tiny)
    size = {"width": 64, "height": 64, "guidance_scale": 4}

    def make(text: str) -> bytes:
        with steer(pipe, [text, "a star"], "", steps=2) as inputs:
            images = pipe(**inputs, **size, generator=torch.Generator().manual_seed(1)).images
        return b"".join(image.tobytes() for image in images)

    plain = pipe(
        ["a  red  circle", "a star"],
        negative_prompt=["", ""],
        num_inference_steps=2,
        **size,
        generator=torch.Generator().manual_seed(1),
    ).images
    together = b"".join(image.tobytes() for image in plain)
    assert make("a (~: _: red :~) circle") == together
    steered = make("a (~: OUT09-OUT11: blue ; _: red :~) circle")
    half = len(together) // 2
    assert steered[:half] != together[:half]
    told = pytest.raises(HostError, match="cannot be identified by their text")
    with steer(pipe, "a (~:OUT10:red;_:blue:~) star", "", steps=1), told:
        pipe("a circle", num_inference_steps=1, **size)


def test_pipelines_of_frames_are_refused_by_name() -> None:
    tiny = load_sd1()
    widths = tiny.unet.config.block_out_channels
    motion = MotionAdapter(block_out_channels=widths, motion_num_attention_heads=1, motion_norm_num_groups=8)
    parts = {k: v for k, v in tiny.components.items() if k != "safety_checker"}
    pipe = AnimateDiffPipeline(**parts, motion_adapter=motion)
    for watch in (steer(pipe, "a circle", steps=3), trace(pipe)):
        with pytest.raises(HostError, match="AnimateDiffPipeline generates several frames at once"), watch:
            pytest.fail("it must not come here")


@pytest.mark.parametrize(
    "name", ["StableDiffusionPAGPipeline", "StableDiffusionPanoramaPipeline", "TextToVideoZeroPipeline"]
)
def test_a_class_that_extends_a_refused_one_is_refused(name: str) -> None:
    mine = type("MyPipeline", (type(name, (), {}),), {})
    with pytest.raises(HostError, match="MyPipeline"), steer(mine(), "a"):
        pytest.fail("it must not come here")


def attend_and_excite(tiny: Any) -> Any:
    from diffusers.pipelines.deprecated.stable_diffusion_attend_and_excite import (
        pipeline_stable_diffusion_attend_and_excite as module,
    )

    parts = {k: v for k, v in tiny.components.items() if k not in ("safety_checker", "image_encoder")}
    pipe = module.StableDiffusionAttendAndExcitePipeline(
        **parts, safety_checker=None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_a_pipeline_that_looks_ahead_for_single_images_is_steered_and_traced() -> None:
    """Attend-and-Excite calls the U-Net for single images, any number of times, before the whole batch."""
    tiny = load_sd1()
    pipe = attend_and_excite(tiny)
    own = pipe.unet.attn_processors

    def run(prompts: list[str] | None, **more: Any) -> np.ndarray[Any, Any]:
        call = {
            "num_inference_steps": 2,
            "max_iter_to_alter": 1,
            "thresholds": {0: 0.5},
            "guidance_scale": 4.0,
        }
        chance = [torch.Generator().manual_seed(seed) for seed in range(2)]
        images: np.ndarray[Any, Any] = pipe(
            prompts,
            token_indices=[[2, 3], [2, 3]],
            generator=chance,
            width=128,
            height=128,
            output_type="np",
            **{**call, **more},
        ).images
        return images

    plain = run(["a red circle", "a blue star"])
    with trace(pipe, layers="M00") as seen:
        assert (run(["a red circle", "a blue star"]) == plain).all()
    assert seen.problems == []
    assert sorted((tag.image, tag.step) for tag in seen.tensors) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    with steer(pipe, ["(~:_:a red circle:~)", "(~:_:a blue star:~)"], steps=2) as inputs:
        assert (run(None, **inputs) == plain).all()
    with steer(pipe, ["(~:M00:a green ring;_:a red circle:~)", "a blue star"], steps=2) as inputs:
        first, second = run(None, **inputs)
    assert (first != plain[0]).any()
    assert (second == plain[1]).all()
    with (
        pytest.raises(HostError, match="its text does not tell which one"),
        steer(pipe, ["(~:M00:a green ring;_:a red circle:~)", "a red circle"], steps=2) as inputs,
    ):
        run(None, **inputs)
    pipe.unet.set_attn_processor(own)


def test_both_runs_of_a_difference_may_give_features_and_attention(tiny: Any, tmp_path: Path) -> None:
    prompts = ["a (~:M00: blue ; _: red :~) circle", "a star"]
    options = {"steps": 2, "width": 96, "height": 64, "seed": 1, "guidance": 3.0}
    look = FeatureSettings(layers="M00,OUT11", steps="1", dump=DumpSettings(True, "npy", str(tmp_path / "d")))
    words = AttentionSettings(
        words="circle", layers="OUT09", heat=DumpSettings(True, "npy", str(tmp_path / "d"))
    )
    both = run(
        tiny, prompts, Settings(look, words, DifferenceSettings(True, layers="M00", runs="both")), **options
    )
    marked = {p.stem: p.image.tobytes() for p in both.pictures if p.is_plain}
    assert all(p.info["Run"] == "plain" for p in both.pictures if p.is_plain)
    alone = Settings(replace(look, dump=DumpSettings()), replace(words, heat=DumpSettings()))
    plain = run(tiny, ["a  circle", "a star"], alone, **options)
    assert marked == {f"{p.stem}-plain": p.image.tobytes() for p in plain.pictures}
    steered = {p.stem: p.image.tobytes() for p in both.pictures if not p.is_plain and p.tag.kind == "feature"}
    assert steered["000-OUT11-001-unet"] != marked["000-OUT11-001-unet-plain"]
    assert steered["001-OUT11-001-unet"] == marked["001-OUT11-001-unet-plain"]
    first, second = ({i.tag: i.tensor for i in load_dump(tmp_path / "d" / inner)} for inner in ("", "plain"))
    assert first.keys() == second.keys()
    assert (first[Tag(0, 1, "M00")] != second[Tag(0, 1, "M00")]).any()
