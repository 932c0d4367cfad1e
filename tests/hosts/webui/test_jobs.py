"""Jobs in the webui's stand-in, from settings to what the page shows."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from fastapi import HTTPException
from PIL import Image

from lib_dumpunet.errors import HostError
from lib_dumpunet.models.describe import describe
from lib_dumpunet.sinks.reader import load_dump
from tests.hosts.webui import standin
from tests.hosts.webui.conftest import Lab, both_families
from tests.unets import CONTEXT, ldm_unet

PER_BLOCK = {"layer_prompt": {}}


def pixels(processed: Any) -> list[bytes]:
    """The generated images, without the pictures after them."""
    return [
        image.tobytes()
        for image, text in zip(processed.images, processed.infotexts, strict=True)
        if "Layer Name" not in text
    ]


def captions(processed: Any) -> list[str]:
    """What each picture shows."""
    return [
        text.rpartition("Layer Name: ")[2].replace("Feature Steps: ", "")
        for text in processed.infotexts
        if "Layer Name" in text
    ]


def seeds(processed: Any) -> list[str]:
    return [text.partition("Seed: ")[2].partition(",")[0] for text in processed.infotexts]


def features(layers: str = "M00,OUT11", steps: str = "", **more: Any) -> dict[str, Any]:
    return {"features": {"layers": layers, "steps": steps, **more}}


def test_capturing_changes_no_image_and_follows_its_image(lab: Lab) -> None:
    plain = lab.run(batch_size=2, n_iter=2)
    seen = lab.run(features(steps="2"), batch_size=2, n_iter=2)
    assert pixels(seen) == pixels(plain)
    assert captions(seen) == ["M00, 2", "OUT11, 2"] * 4
    assert seeds(seen) == [str(seed) for seed in (1, 2, 3, 4) for _ in range(3)]
    assert seen.all_seeds == [seed for seed in (1, 2, 3, 4) for _ in range(3)]
    assert len(seen.all_prompts) == len(seen.images)


def test_nothing_is_done_for_a_job_that_asks_for_nothing(lab: Lab) -> None:
    processed = lab.run()
    assert len(processed.images) == 1
    assert processed.comments == ""
    assert standin.ENCODED == ["", "a"]


@both_families
@pytest.mark.parametrize(
    ("together", "negative", "prompt", "skip_from"),
    [  # each pair of values
        (True, "b", "a cat", None),
        (True, "a long negative prompt", "a cat AND a dog", 1),
        (False, "b", "a cat AND a dog", None),
        (False, "a long negative prompt", "x", None),
        (True, "b", "x", 1),
        (False, "b", "a cat", 1),
        (True, "a long negative prompt", "a cat", None),
    ],
)
def test_dumped_features_are_those_of_the_image_by_itself(
    lab: Lab, tmp_path: Path, together: bool, negative: str, prompt: str, skip_from: int | None
) -> None:
    """In every layout of rows, image 1 of a batch has the same features as when generated alone."""
    lab.shared.opts.batch_cond_uncond, lab.shared.opts.skip_uncond_from = together, skip_from

    def of(folder: str, mark: str, **job: Any) -> dict[str, Any]:
        path = tmp_path / folder
        settings = features("IN04,OUT11", "1,3", dump={"path": str(path)})
        lab.run(settings, prompt=prompt, negative_prompt=negative, **job)
        return {file.name[4:]: np.load(file) for file in path.glob(f"{mark}-*.npy")}

    batch = of("batch", "001", batch_size=2, seed=5)
    alone = of("alone", "000", seed=6)
    assert batch.keys() == alone.keys() == {f"{b}-{s}.npy" for b in ("IN04", "OUT11") for s in ("001", "003")}
    for name, feature in batch.items():
        np.testing.assert_allclose(feature, alone[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("sampler", "each"), [("Euler", (1, 1, 1)), ("Heun", (2, 2, 1)), ("Thrice", (3, 3, 3))]
)
def test_steps_are_the_samplers_own(lab: Lab, unet: Any, sampler: str, each: tuple[int, ...]) -> None:
    job = {"sampler_name": sampler, "prompt": "a (~: M00@2: b :~)"}
    with Contexts(unet) as contexts:
        seen = lab.run({**features("M00"), **PER_BLOCK}, **job)
    assert captions(seen) == ["M00, 1", "M00, 2", "M00, 3"]
    steered = [not torch.equal(call["M00"], call["OUT09"]) for call in contexts.seen]
    assert steered == [step == 1 for step, count in enumerate(each) for _ in range(count)]


@both_families
def test_img2img_counts_the_steps_that_are_run(lab: Lab) -> None:
    p = lab.job(features("M00"), steps=6)
    p.init_images = [Image.new("RGB", (64, 64))]  # type: ignore[attr-defined]
    assert captions(standin.process_images(p)) == ["M00, 1", "M00, 2", "M00, 3"]


@both_families
def test_a_hires_pass_is_marked(lab: Lab, tmp_path: Path) -> None:
    job = {"enable_hr": True, "hr_second_pass_steps": 2}
    plain = lab.run(**job)
    seen = lab.run(features("M00", "2", dump={"path": str(tmp_path / "d")}), **job)
    assert pixels(seen) == pixels(plain)
    assert captions(seen) == ["M00, 2", "M00, hr2"]
    assert {f.name for f in (tmp_path / "d").glob("*.npy")} == {"000-M00-002.npy", "000-M00-hr002.npy"}


TEXTS = [
    ("(~:_: red cat:~)", " red cat"),
    ("x (~: IN00-M00: y ; OUT00-OUT11: y :~)", "x  y "),
    ("(~:_:[a:bb:1] c:~)", "[a:bb:1] c"),
    ("(~:_:cat:~) AND dog", "cat AND dog"),
    ("cat (~:IN00: x :~)", "cat "),
]


@both_families
@pytest.mark.parametrize(("prompt", "equal"), TEXTS)
@pytest.mark.parametrize(
    "job", [{}, {"batch_size": 2, "n_iter": 2}, {"sampler_name": "Heun"}, {"enable_hr": True}]
)
def test_the_same_text_in_every_block_is_the_plain_prompt(
    lab: Lab, prompt: str, equal: str, job: dict[str, Any]
) -> None:
    steered = lab.run(PER_BLOCK, prompt=prompt, negative_prompt=prompt, **job)
    assert pixels(steered) == pixels(lab.run(prompt=equal, negative_prompt=equal, **job))
    assert steered.infotexts[0].startswith(prompt)


class Contexts:
    """Records what each block's cross-attention reads, by U-Net call and row."""

    def __init__(self, unet: Any) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []
        self._handles = [unet.register_forward_pre_hook(lambda *_: self.seen.append({}))]
        for block in describe(unet).blocks:
            for layer in block.layers:
                self._handles.append(
                    layer.cross_attention.to_k.register_forward_pre_hook(self._see(block.name))
                )

    def _see(self, block: str) -> Callable[..., None]:
        return lambda _, args: self.seen[-1].__setitem__(block, args[0].clone())

    def __enter__(self) -> Contexts:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def text(said: str) -> torch.Tensor:
    return standin.encode(said, CONTEXT)


@pytest.mark.parametrize("sampler", ["Euler", "Heun"])
def test_each_block_reads_its_own_text_in_each_evaluation(lab: Lab, unet: Any, sampler: str) -> None:
    with Contexts(unet) as contexts:
        lab.run(
            PER_BLOCK,
            prompt="(~: M00: [ab:cd:2] ; OUT09: e f :~) AND zz (~: OUT09@2: yy :~)",
            negative_prompt="n(~: M00: o :~)",
            batch_size=2,
            sampler_name=sampler,
            steps=3,
        )
    assert len(contexts.seen) == (3 if sampler == "Euler" else 5)
    for evaluation, call in enumerate(contexts.seen):
        step = evaluation // (1 if sampler == "Euler" else 2) + 1
        assert set(call) == {block.name for block in describe(unet).blocks if block.layers}
        middle = text(" ab  " if evaluation <= 2 else " cd  ")
        second = text(" zz  yy " if step == 2 else " zz ")
        expected = {
            "M00": [middle, text(" zz "), text("n o ")],
            "OUT09": [text(" e f  "), second, text("n")],
            "IN01": [text(" "), text(" zz "), text("n")],
        }
        for block, (first, other, negative) in expected.items():
            wanted = standin.stack([first, other, first, other, negative, negative])
            assert torch.equal(call[block][:, : wanted.shape[1]], wanted), (evaluation, block)


def test_texts_are_encoded_once_for_all_steps_and_batches(lab: Lab) -> None:
    lab.run(PER_BLOCK, prompt="a(~: M00: b ; OUT09: c :~)", n_iter=2, steps=3)
    # The webui encodes the main text and the negative prompt in each batch, as it does without the extension.
    assert sorted(standin.ENCODED) == sorted(["", "", "a", "a", "a b ", "a c "])


@both_families
def test_words_are_found_in_what_blocks_read(lab: Lab) -> None:
    settings = {"attention": {"words": "r, b", "layers": "M00"}, "layer_prompt": {}}
    processed = lab.run(settings, prompt="a(~: M00: [r:b:1] :~)", steps=3)
    words = [t.partition("Word: ")[2].partition(",")[0] for t in processed.infotexts if "Word: " in t]
    assert words == ["r", "r", "b", "b"]
    assert processed.comments == ""


def test_attention_has_a_column_for_each_token(lab: Lab) -> None:
    processed = lab.run({"attention": {"kinds": ["qk"], "layers": "M00", "steps": "1"}}, prompt="cat")
    assert captions(processed) == ["M00, 1, Attention: qk"]


@both_families
def test_words_are_those_of_the_text_that_is_encoded(lab: Lab) -> None:
    """NegPiP removes words with a negative weight from the prompts, after all other extensions."""
    words = {"attention": {"words": "a", "layers": "M00", "steps": "1"}}
    expected = lab.run(words, prompt="abc")

    def take_out(p: standin.Processing, **_: Any) -> None:
        p.prompts = [text.replace("d", "") for text in p.prompts]

    lab.scripts.alwayson_scripts.append(SimpleNamespace(args_from=0, args_to=0, process_batch=take_out))
    found = lab.run(words, prompt="dabc")
    assert len(expected.images) == 3
    assert [i.tobytes() for i in found.images] == [i.tobytes() for i in expected.images]


def test_a_refiner_takes_over_in_the_middle(lab: Lab) -> None:
    refiner = standin.model_of(ldm_unet("sd1", 64), CONTEXT)
    job = {"refiner": refiner, "refiner_at": 2, "steps": 4}
    plain = lab.run(prompt=" b c", **job)
    own = lab.shared.sd_model
    seen = lab.run({**features("M00"), **PER_BLOCK}, prompt="(~:_: b c:~)", **job)
    assert lab.shared.sd_model is own
    assert pixels(seen) == pixels(plain)
    assert captions(seen) == [f"M00, {step}" for step in range(1, 5)]
    sizes = [image.size for image, t in zip(seen.images, seen.infotexts, strict=True) if "M00" in t[-30:]]
    assert sizes[0] == sizes[1] != sizes[2] == sizes[3]


# --- differences ---


@pytest.mark.parametrize("seed", [7, -1])
def test_a_difference_is_of_two_runs_of_one_seed(lab: Lab, tmp_path: Path, seed: int) -> None:
    prompt = "a(~: OUT06-OUT11: b :~)"
    settings = {"difference": {"layers": "M00,OUT11", "steps": "2", "dump": {"path": str(tmp_path / "d")}}}
    processed = lab.run(settings, prompt=prompt, seed=seed, batch_size=2, sampler_name="Heun")
    assert (
        captions(processed)
        == [f"{block}, 2, Difference: with - without Layer Prompt" for block in ("M00", "OUT11")] * 2
    )
    used = int(seeds(processed)[0])
    assert used == (7 if seed == 7 else 4711)
    plain = lab.run(features("OUT11", "2", dump={"path": str(tmp_path / "plain")}), prompt="a", seed=used,
                    batch_size=2, sampler_name="Heun")  # fmt: skip
    steered = lab.run({**features("OUT11", "2", dump={"path": str(tmp_path / "steered")}), **PER_BLOCK},
                      prompt=prompt, seed=used, batch_size=2, sampler_name="Heun")  # fmt: skip
    assert pixels(processed) == [
        image for pair in zip(pixels(plain), pixels(steered), strict=True) for image in pair
    ]
    assert processed.infotexts[0].startswith("a\n")
    assert "Dump U-Net" not in processed.infotexts[0]
    assert processed.info == processed.infotexts[0]
    assert processed.infotexts[1].startswith(prompt)
    assert "Dump U-Net difference enabled: True" in processed.infotexts[1]
    for image in ("000", "001"):
        with_text, without = (
            np.load(tmp_path / folder / f"{image}-OUT11-002.npy") for folder in ("steered", "plain")
        )
        difference = np.load(tmp_path / "d" / f"{image}-OUT11-002-difference.npy")
        np.testing.assert_array_equal(difference, with_text - without)


@both_families
@pytest.mark.parametrize("hires", [False, True])
def test_both_runs_may_give_features_and_words(lab: Lab, tmp_path: Path, hires: bool) -> None:
    job = {"prompt": "a(~: M00: b :~)", "enable_hr": hires}
    settings = {
        **features("OUT11", "1", dump={"path": str(tmp_path)}),
        "attention": {"words": "a", "layers": "M00", "dump": {"path": str(tmp_path)}},
        "layer_prompt": {},
        "difference": {"layers": "M00", "steps": "1", "runs": "both"},
    }
    both = lab.run(settings, **job)
    plain = lab.run(
        {**features("OUT11", "1"), "attention": {"words": "a", "layers": "M00"}}, **{**job, "prompt": "a"}
    )
    marked = [i for i, text in zip(both.images, both.infotexts, strict=True) if "Run: plain" in text]
    assert [i.tobytes() for i in marked] == [i.tobytes() for i in plain.images[1:]]
    assert len(marked) == (3 if not hires else 4)
    folders = [{i.tag: i.tensor for i in load_dump(folder)} for folder in (tmp_path, tmp_path / "plain")]
    assert folders[0].keys() == folders[1].keys()
    assert all((folders[0][tag] != tensor).any() for tag, tensor in folders[1].items())


def test_both_runs_have_what_another_extension_has_filled_in(lab: Lab) -> None:
    """Dynamic Prompts writes prompts and seeds in ``process``, different ones each time."""
    fillings = iter("klmnop")

    def fill(p: standin.Processing) -> None:
        p.all_prompts = [f"{next(fillings)}(~: M00: b :~)" for _ in p.all_prompts]
        p.all_seeds = [ord(text[0]) for text in p.all_prompts]

    with standin.other_script(fill) as extension:
        lab.scripts.alwayson_scripts.append(extension)
        processed = lab.run({"difference": {"layers": "M00", "steps": "1"}})
    assert [t.partition("\n")[0] for t in processed.infotexts] == ["k", "k(~: M00: b :~)", "k(~: M00: b :~)"]
    assert set(seeds(processed)) == {str(ord("k"))}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_loop_of_dynamic_prompts_may_write_a_single_negative_prompt(lab: Lab, batch_size: int) -> None:
    def fill(p: standin.Processing) -> None:
        p.all_prompts = [f"a(~: {block} : b :~)" for block in ("IN00", "IN01", "M00")]
        p.all_negative_prompts = [p.negative_prompt]
        p.all_seeds = p.all_subseeds = [5, 5, 5]
        p.n_iter = -(-3 // batch_size)

    with standin.other_script(fill) as extension:
        lab.scripts.alwayson_scripts.append(extension)
        processed = lab.run(PER_BLOCK, negative_prompt="bad", batch_size=batch_size)
    assert [text.partition("\n")[0] for text in processed.infotexts] == [
        "a(~: IN00 : b :~)",
        "a(~: IN01 : b :~)",
        "a(~: M00 : b :~)",
    ]
    assert len(set(pixels(processed))) == 3
    assert processed.comments.count("no cross-attention") == 1


# --- mistakes ---

MISTAKES = [
    ({"features": {"layers": "IN99"}}, "Layers: the model has no block IN99"),
    ({"features": {"steps": "9"}}, "Image saving steps: no step is left"),
    ({"features": {"color": {"formula": ["v.x", "1", "1"]}}}, "Color space, H"),
    ({"features": {"dump": {"path": "/dev/null/x"}}}, "Output path: /dev/null/x cannot be used"),
    ({"features": {"dump": {"path": "nul\0l"}}}, r"Output path: 'nul\x00l' is not a path"),
    ({"attention": {"words": "q"}}, "Words: 'q' is not in the prompt"),
    ({"attention": {}}, "Output features: nothing is selected"),
    ({"layer_prompt": {}}, "Prompt: this bracket is not closed"),
    ({"difference": {}}, "Prompt: this bracket is not closed"),
    ({"nothing": 1}, "settings: there is no 'nothing'"),
    ([1], "args: [1] is not a dictionary"),
    ("no json", "args: args of alwayson_scripts is not JSON"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_a_mistake_ends_the_job_before_it_samples(
    lab: Lab, caplog: pytest.LogCaptureFixture, settings: Any, message: str
) -> None:
    prompt = "a (~: M00" if "Prompt" in message else "a"
    processed = lab.run(settings, prompt=prompt)
    assert processed.images == []
    assert processed.comments.count(f"Dump U-Net: {message}") == 1
    lab.shared.state.interrupted = False
    with pytest.raises(HTTPException) as refused:
        standin.process_images(lab.job(settings, prompt=prompt, is_api=True))
    assert refused.value.status_code == 422
    assert message in refused.value.detail
    assert "failed" not in caplog.text
    assert len(lab.run().images) == 1


def test_the_dropdown_ends_without_an_error_of_its_own(lab: Lab) -> None:
    processed = lab.choose({"features": {"layers": "IN99"}})
    assert processed.images == []
    assert "IN99" in processed.comments
    lab.shared.state.interrupted = False
    processed = lab.choose({})
    assert "nothing is selected" in processed.comments
    assert len(processed.images) == 1


def test_a_prompt_that_only_another_extension_breaks_ends_the_job(lab: Lab) -> None:
    with standin.other_script(lambda p: p.all_prompts.__setitem__(0, "a (~: M00")) as extension:
        lab.scripts.alwayson_scripts.append(extension)
        processed = lab.choose(PER_BLOCK)
    assert processed.images == []


def test_brackets_that_nobody_reads_are_told(lab: Lab) -> None:
    assert "(~:, but Enable Layer Prompt is off" in " ".join(job_comments(lab, ""))
    processed = lab.run(features("M00", "1"), prompt="a(~: M00: b :~)")
    assert pixels(processed) == pixels(lab.run(prompt="a"))


def job_comments(lab: Lab, settings: Any) -> list[str]:
    p = lab.job(settings, prompt="a(~: M00: b :~)")
    standin.process_images(p)
    return list(p.comments)


@both_families
def test_a_fault_while_sampling_is_told_and_leaves_the_image(lab: Lab, unet: Any) -> None:
    plain = lab.run()
    original = unet.output_blocks[5]
    unet.output_blocks[5] = Skipped(original)
    try:
        processed = lab.run(features("OUT05", "1"))
    finally:
        unet.output_blocks[5] = original
    assert pixels(processed) == pixels(plain)
    assert "nothing came from OUT05" in processed.comments


class Skipped(torch.nn.Module):
    """A block whose children are not called as modules, as in an alternative U-Net."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def children(self) -> Any:
        return iter([torch.nn.Identity()])

    def forward(self, *args: Any) -> Any:
        return self.block(*args)


# --- interrupts, and other jobs ---


@both_families
def test_an_interrupt_keeps_what_there_is(lab: Lab) -> None:
    def stop(params: Any) -> None:
        lab.shared.state.interrupted = params.denoiser.step == 1

    lab.shared.callbacks.append(stop)
    processed = lab.run(features("M00"), steps=5, n_iter=2)
    assert captions(processed) == ["M00, 1", "M00, 2"]
    assert processed.comments == ""


def test_an_interrupt_of_the_first_of_two_runs_shows_its_image(lab: Lab) -> None:
    def stop(params: Any) -> None:
        lab.shared.state.interrupted = True

    lab.shared.callbacks.append(stop)
    processed = lab.run({"difference": {"layers": "M00"}}, prompt="a(~: M00: b :~)")
    assert len(pixels(processed)) == 1
    assert processed.infotexts[0].startswith("a\n")
    assert (
        "the job was interrupted while the image without per-block prompts was generated"
        in processed.comments
    )


def test_an_exception_leaves_nothing_behind(lab: Lab, unet: Any) -> None:
    def fail(params: Any) -> None:
        if params.denoiser.step == 1:
            raise RuntimeError("out of memory")

    lab.shared.callbacks.append(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        lab.choose(features("M00"))
    lab.shared.callbacks.pop()
    assert captions(lab.run(features("M00", "1"))) == ["M00, 1"]


def test_a_job_inside_a_job_is_not_looked_at(lab: Lab) -> None:
    """Detailers generate images in ``postprocess_image``, with the same scripts."""
    inner: list[Any] = []

    def detail(p: standin.Processing, pp: Any) -> None:
        if not inner:
            inner.append(None)
            inner.append(standin.process_images(lab.job(features("M00", "1"), prompt="face")))

    lab.scripts.alwayson_scripts.append(SimpleNamespace(args_from=0, args_to=0, postprocess_image=detail))
    outer = lab.run(features("M00", "1"), n_iter=2)
    assert captions(outer) == ["M00, 1", "M00, 1"]
    assert captions(inner[1]) == []


# --- beside other scripts ---


def panel_values(lab: Lab, settings: dict[str, Any]) -> list[Any]:
    from lib_dumpunet.settings.fields import pack
    from lib_dumpunet.settings.json import from_dict

    return [lab.from_panel, *pack(from_dict(settings))]


def beside(lab: Lab, settings: dict[str, Any], **job: Any) -> standin.Processing:
    """Make a job of another script while the panel has settings."""
    p = lab.job("", **job)
    values = panel_values(lab, settings)
    p.script_args = [2, "", *values]
    lab.panel.args_from, lab.panel.args_to = 2, 2 + len(values)
    return p


def test_the_panel_acts_beside_another_script_and_leaves_its_images(lab: Lab, tmp_path: Path) -> None:
    settings = {**features("M00", "1"), **PER_BLOCK}
    p = beside(lab, settings, prompt="(~:_:cat:~)", save=True)
    processed = standin.process_images(p)
    assert pixels(processed) == pixels(lab.run(prompt="cat"))
    assert len(processed.images) == 1
    assert "Dump U-Net: pictures were saved next to" in processed.comments
    assert [f.name for f in tmp_path.glob("*dumpunet*")] == ["00000-1-dumpunet-unet-M00-001.png"]
    lab.shared.opts.dumpunet_other_scripts = False
    try:
        assert "Enable Layer Prompt is off" in " ".join(
            (standin.process_images(q := beside(lab, settings, prompt="(~:_:cat:~)")), list(q.comments))[1]
        )
    finally:
        lab.shared.opts.dumpunet_other_scripts = True


def test_a_plots_cell_shows_a_map(lab: Lab) -> None:
    from lib_dumpunet.hosts.webui import axes

    p = lab.job("")
    axes._change("features.layers")(p, "OUT11", [])
    axes._change("features.steps")(p, "2", [])
    processed = standin.process_images(p)
    assert processed.infotexts[0].endswith("Layer Name: OUT11, Feature Steps: 2")
    axes._show(p, "image", [])
    assert "Layer Name" not in standin.process_images(p).infotexts[0]


def test_words_of_the_negative_prompt_follow_those_of_the_prompt(lab: Lab) -> None:
    attention = {"kinds": ["words"], "negative_words": "*", "layers": "M00", "steps": "1"}
    seen = lab.run({"attention": attention}, prompt="x z", negative_prompt="b y")
    words = [text.partition("Word: ")[2].partition(",")[0] for text in seen.infotexts if "Word: " in text]
    assert list(dict.fromkeys(words)) == ["x", "z", "b", "y"]


@pytest.mark.usefixtures("one_event_loop")
def test_the_webui_finds_values_of_the_panel_by_name_and_in_an_image(lab: Lab) -> None:
    """Its *Send to img2img* goes by names, while it pastes an image by functions."""
    with gr.Blocks():
        lab.panel.ui(False)
    names = [name for _, name in lab.panel.infotext_fields]
    assert "Dump U-Net features layers" in names
    assert [name for name in names if name in lab.panel.paste_field_names] == names
    layers = names[names.index("Dump U-Net features layers")]
    assert layers({"Dump U-Net features layers": "M00"}) == "M00"
    assert layers({"Dump U-Net features enabled": "True"}) == ""
    assert layers({"Steps": "4"}) is None


# --- what is saved ---


def test_pictures_are_saved_beside_their_images_with_parameters(lab: Lab, tmp_path: Path) -> None:
    processed = lab.choose(features("M00", "1", average="sum"), save=True, batch_size=2)
    names = {f.name for f in tmp_path.glob("*.png")}
    assert names == {
        f"{n:05}-{n + 1}{part}.png"
        for n in (0, 1)
        for part in ("", "-dumpunet-unet-M00-001", "-dumpunet-unet-average-M00-001")
    }
    for image, infotext in zip(processed.images, processed.infotexts, strict=True):
        assert Path(image.already_saved_as).parent == tmp_path
        if "Layer Name" in infotext:
            with Image.open(image.already_saved_as) as saved:
                assert saved.info["parameters"] == infotext
                assert saved.tobytes() == image.tobytes()
    assert "Script: Dump U-Net" in processed.infotexts[0]
    lab.choose({**features("M00", "1"), "output": {"save": False}}, save=True, seed=50)
    assert not list(tmp_path.glob("*50-dumpunet*"))


def test_a_manifest_tells_of_the_webuis_job(lab: Lab, tmp_path: Path) -> None:
    lab.run(features("M00", "1", dump={"path": "dumps", "format": "safetensors"}), prompt="a cat")
    folder = Path(sys.modules["modules.paths"].data_path) / "dumps"
    manifest = json.loads((folder / "manifest.json").read_text())
    (run,), (entry,) = manifest["runs"], manifest["files"]
    assert (run["sampler"], run["model"], run["steps"]) == ("Euler", "small", 3)
    assert run["blocks"]["OUT11"]["output"] == [32, 8, 8]
    assert (entry["prompt"], entry["seed"], entry["shape"]) == ("a cat", 1, [128, 1, 1])


@pytest.mark.parametrize("flag", ["hide_ui_dir_config", "webui_is_non_local"])
def test_who_may_not_choose_folders_gets_the_webuis_own(lab: Lab, tmp_path: Path, flag: str) -> None:
    setattr(lab.shared.cmd_opts, flag, True)
    processed = lab.run(features("M00", "1", dump={"path": str(tmp_path / "elsewhere")}))
    assert processed.images == []
    assert "Output path: the webui" in processed.comments
    assert not (tmp_path / "elsewhere").exists()
    lab.shared.state.interrupted = False
    lab.run(features("M00", "1", dump={}))
    assert (tmp_path / "dumpunet" / "manifest.json").exists()


def test_a_full_disk_is_told_and_the_image_comes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from lib_dumpunet.hosts.webui import gallery

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(gallery, "write_whole", full)
    processed = lab.run(features("M00"))
    assert len(processed.images) == 1
    assert processed.comments.count("the disk is full") == 1


def test_an_old_webui_that_fails_without_images_is_ended_too(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    processing = sys.modules["modules.processing"]
    original = processing.process_images

    def old(p: standin.Processing) -> Any:
        processed = original(p)
        return processed if processed.images else [][0]

    monkeypatch.setattr(processing, "process_images", old)
    processed = lab.choose({"features": {"layers": "IN99"}})
    assert processed.images == []
    assert "IN99" in processed.comments


@pytest.mark.parametrize("api", [True, False])
def test_texts_that_cannot_be_encoded_for_the_hires_pass_end_the_job(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, api: bool
) -> None:
    parser = sys.modules["modules.prompt_parser"]
    encode = parser.get_multicond_learned_conditioning

    def fail_later(model: Any, prompts: Any, steps: int, hires: int | None = None, *more: Any) -> Any:
        if hires is not None and "b" in prompts[0]:
            raise RuntimeError("out of memory")
        return encode(model, prompts, steps, hires, *more)

    monkeypatch.setattr(parser, "get_multicond_learned_conditioning", fail_later)
    job = {"prompt": "a(~: M00: b :~)", "enable_hr": True, "is_api": api}
    with pytest.raises(HostError, match="out of memory"):
        standin.process_images(lab.job(PER_BLOCK, **job))
    # What only looks goes on without.
    monkeypatch.setattr(parser, "get_multicond_learned_conditioning", encode)
    assert captions(lab.run(features("M00", "1"), enable_hr=True)) == ["M00, 1", "M00, hr1"]


def test_a_job_that_failed_after_sampling_does_not_hide_the_next(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(latent: Any) -> Any:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(standin, "_decode", full)
        with pytest.raises(OSError, match="full"):
            standin.process_images(lab.job(features("M00", "1")))
    lab.shared.state.job_timestamp = "2"
    assert captions(lab.run(features("M00", "1"))) == ["M00, 1"]
    assert pixels(lab.run(PER_BLOCK, prompt="(~:_:cat:~)")) == pixels(lab.run(prompt="cat"))


def test_prompts_of_other_extensions_stay_where_no_bracket_is(lab: Lab) -> None:
    def write(p: standin.Processing, **_: Any) -> None:
        p.prompts = ["dog" for _ in p.prompts]

    lab.scripts.alwayson_scripts.insert(
        0, SimpleNamespace(args_from=0, args_to=0, before_process_batch=write)
    )
    seen = lab.run(features("M00", "1"))
    assert pixels(seen) == pixels(lab.run())
    lab.scripts.alwayson_scripts.pop(0)
    assert pixels(seen) == pixels(lab.run(prompt="dog"))


def test_the_dropdown_over_the_api_answers_a_mistake_with_an_error(lab: Lab) -> None:
    for wrong in ({"features": 1}, 1, None):
        with pytest.raises(HTTPException):
            lab.choose(wrong, is_api=True)


def test_a_full_disk_beside_the_images_leaves_the_pictures(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from lib_dumpunet.hosts.webui import gallery

    write = gallery.write_whole

    def full(path: Path, chunks: Any) -> None:
        if path.parent == lab.folder:
            raise OSError(28, "full")
        write(path, chunks)

    monkeypatch.setattr(gallery, "write_whole", full)
    processed = lab.run(features("M00,OUT11"), save=True)
    assert len(processed.images) == 7
    assert processed.comments.count("the disk is full") == 1


def test_both_runs_begin_with_the_same_random_state(lab: Lab) -> None:
    """In img2img, the webui's encoding of the image is a random sample."""
    drawn: list[float] = []
    lab.scripts.alwayson_scripts.append(
        SimpleNamespace(args_from=0, args_to=0, process=lambda p: drawn.append(float(torch.rand(1))))
    )
    lab.run({"difference": {"layers": "M00", "steps": "1"}}, prompt="a(~: M00: b :~)")
    assert len(drawn) == 2
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("prompts", [["a(~: M00*0.5: b :~)"] * 2, ["a b (~: M00: c :~)", "a(~: M00: b :~)"]])
def test_nothing_is_encoded_while_sampling(lab: Lab, prompts: list[str]) -> None:
    """Mixtures need the main text too, and a block of one image may read another image's main text."""
    counts: list[int] = []
    lab.shared.callbacks.append(lambda _: counts.append(len(standin.ENCODED)))
    lab.run({**features("M00", "1"), **PER_BLOCK}, prompt=prompts, batch_size=2, steps=3)
    assert counts == [counts[0]] * 3


@pytest.mark.parametrize("hires", [False, True])
def test_another_sampler_may_make_the_hires_pass(lab: Lab, hires: bool) -> None:
    job = {
        "enable_hr": True,
        "hr_sampler_name": "Heun" if hires else None,
        "sampler_name": "Euler",
        "steps": 2,
    }
    seen = lab.run({**features("M00"), **PER_BLOCK}, prompt="(~:_:[a:bb:2]:~)", **job)
    assert captions(seen) == ["M00, 1", "M00, 2", "M00, hr1", "M00, hr2"]
    assert pixels(seen) == pixels(lab.run(prompt="[a:bb:2]", **job))


def test_the_settings_page_says_how_many_threads_draw(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from lib_dumpunet.hosts.webui.gallery import Gallery

    threads: set[int] = set()
    show = Gallery.show

    def slow(self: Any, picture: Any) -> None:
        threads.add(threading.get_ident())
        time.sleep(0.02)
        show(self, picture)

    monkeypatch.setattr(Gallery, "show", slow)
    for count in (1, 3):
        threads.clear()
        lab.shared.opts.dumpunet_threads = count
        try:
            lab.run(features(""), steps=1)
        finally:
            lab.shared.opts.dumpunet_threads = 0
        assert len(threads) == count
