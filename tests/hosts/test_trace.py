"""The notebook's context manager."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from PIL import Image

from lib_dumpunet import DumpUNetError, SettingsError, steer, trace
from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.hosts.diffusers.loading import load_pipeline
from tests.pipelines import load_sd1, sag_pipeline, sdxl_pipeline
from tests.unets import hook_count

CALL = {"width": 96, "height": 64, "num_inference_steps": 4, "guidance_scale": 3.0}
SIZE = {**CALL, "num_inference_steps": 2}


def make(pipe: Any, **other: Any) -> Any:
    return pipe("a red circle", generator=torch.Generator().manual_seed(1), **{**CALL, **other}).images


def test_tensors_and_pictures_of_a_users_own_call(tiny: Any) -> None:
    plain = make(tiny)
    with trace(tiny, layers="OUT11,M00", steps="1,4") as seen:
        images = make(tiny)
    assert images[0].tobytes() == plain[0].tobytes()
    assert [(t.block, t.step) for t in seen.tensors] == [("M00", 1), ("OUT11", 1), ("M00", 4), ("OUT11", 4)]
    tensor = seen["OUT11", 4]
    assert tensor.shape[1:] == (8, 12)
    assert tensor.dtype == tiny.unet.dtype
    picture = seen.picture("OUT11", 4)
    assert picture.mode == "RGB"
    assert seen.average("OUT11", 4).size == (12, 8)
    assert hook_count(tiny.unet) == 0


def test_several_calls_and_images(tiny: Any) -> None:
    with trace(tiny, layers="M00", steps="2") as seen:
        make(tiny, num_images_per_prompt=2)
        make(tiny)
    assert sorted(tag.image for tag in seen.tensors) == [0, 1, 2]
    assert not torch.equal(seen["M00", 2], seen["M00", 2, 1])
    torch.testing.assert_close(seen["M00", 2], seen["M00", 2, 2], rtol=1e-3, atol=1e-3)


def test_nested_traces_do_not_see_each_other(tiny: Any) -> None:
    with trace(tiny, layers="M00", steps="1") as outer, trace(tiny, layers="IN00", steps="2") as inner:
        make(tiny)
    assert {t.block for t in outer.tensors} == {"M00"}
    assert {t.block for t in inner.tensors} == {"IN00"}


def test_absent_tensor_is_told_with_what_there_is(tiny: Any) -> None:
    with trace(tiny, layers="M00", steps="1") as seen:
        make(tiny)
    with pytest.raises(KeyError, match=r"block OUT11, step 1, image 0; 1 tensors: blocks M00, steps \[1\]"):
        seen["OUT11", 1]


@pytest.mark.parametrize(("layers", "steps", "field"), [("IN99", "", "layers"), ("", "0", "steps")])
def test_mistakes_are_told_at_once(tiny: Any, layers: str, steps: str, field: str) -> None:
    with pytest.raises(SettingsError, match=f"^{field}: "), trace(tiny, layers=layers, steps=steps):
        pass
    assert hook_count(tiny.unet) == 0


def test_nothing_seen_is_explained(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    with trace(tiny, layers="M00", steps="50") as seen:
        make(tiny)
    assert "The last step was 4" in str(seen.problems[0])
    assert "The last step was 4" in caplog.text
    with trace(tiny) as seen:
        pass
    assert "did not run" in str(seen.problems[0])


def test_hooks_are_gone_after_an_error_in_the_users_code(tiny: Any) -> None:
    with pytest.raises(ZeroDivisionError), trace(tiny):
        _ = 1 / 0
    assert hook_count(tiny.unet) == 0


def test_pipeline_without_a_unet_is_refused() -> None:
    class Flux:
        unet = torch.nn.Linear(1, 1)

    with pytest.raises(DumpUNetError, match="Linear"), trace(Flux()):
        pass


def test_pipeline_that_lacks_a_unet_is_refused() -> None:
    with (
        pytest.raises(DumpUNetError, match="StableDiffusion3Pipeline has no U-Net"),
        trace(type("StableDiffusion3Pipeline", (), {})()),
    ):
        pass


def test_foreign_calls_of_the_unet_are_neither_disturbed_nor_taken(tiny: Any) -> None:
    config = tiny.unet.config
    latents, context = torch.zeros(2, 4, 8, 8), torch.zeros(2, 77, config.cross_attention_dim)
    sibling = type(tiny)(**tiny.components, requires_safety_checker=False)
    with torch.no_grad(), trace(sibling, layers="M00") as seen:
        tiny.unet(latents, 123.5, encoder_hidden_states=context)
    assert not seen.tensors
    assert len(seen.problems) == 1


def test_words_are_those_that_the_rows_read_whatever_was_encoded_first(tiny: Any) -> None:
    with trace(tiny, layers="OUT09", steps="1", attention="qk,words") as seen:
        negative = tiny.encode_prompt("blurry square", "cpu", 1, False)[0]
        positive = tiny.encode_prompt("a red circle", "cpu", 1, False)[0]
        tiny(prompt_embeds=positive, negative_prompt_embeds=negative, **SIZE)
    assert seen.tokens()[:5] == ("<start>", "a", "red", "circle", "<end>")
    assert seen.words(negative=True) == ("blurry", "square")
    assert torch.allclose(seen.word("circle"), seen.attention("OUT09", 1).mean(0)[3], atol=1e-5)


def test_words_of_prompts_that_were_encoded_in_one_batch(tiny: Any) -> None:
    with trace(tiny, layers="OUT09", steps="1", attention="words") as seen:
        embeds = tiny.encode_prompt(["a star", "a red circle", "a ring"], "cpu", 1, False)[0]
        tiny(prompt_embeds=embeds[1:], negative_prompt_embeds=embeds[:1].repeat(2, 1, 1), **SIZE)
    assert seen.words(0) == ("a", "red", "circle")
    assert seen.words(1) == ("a", "ring")
    assert seen.words(1, negative=True) == ("a", "star")


def test_words_with_skipped_layers_of_the_text_encoder() -> None:
    pipe = load_pipeline(
        "", device="cpu"
    )  # transformers leaves hooks of its own on an encoder that tells its layers
    with trace(pipe, layers="OUT09", steps="1", attention="words") as seen:
        ids = [
            pipe.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
            for text in ("a red circle", "a ring")
        ]
        with torch.no_grad():
            layers = [pipe.text_encoder(text, output_hidden_states=True).hidden_states[-2] for text in ids]
            positive, negative = (pipe.text_encoder.final_layer_norm(layer) for layer in layers)
        pipe(prompt_embeds=positive, negative_prompt_embeds=negative, **SIZE)
    assert seen.words() == ("a", "red", "circle")
    assert seen.words(negative=True) == ("a", "ring")


def test_blended_texts_have_features_but_no_words(tiny: Any) -> None:
    with trace(tiny, layers="OUT09", steps="1", attention="qk,words") as seen:
        first, second = tiny.encode_prompt(["a red circle", "a blue star"], "cpu", 1, False)[0]
        tiny(prompt_embeds=((first + second) / 2)[None], negative_prompt_embeds=first[None], **SIZE)
    assert seen["OUT09", 1].ndim == 3
    assert seen.tokens() == ()
    with pytest.raises(DumpUNetError, match="no text that was encoded in the with"):
        seen.word("circle")


PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")


def instruct_pix2pix(tiny: Any) -> Any:
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({**tiny.unet.config, "in_channels": 8})
    pipe = StableDiffusionInstructPix2PixPipeline(
        **{**tiny.components, "unet": unet}, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_instruct_pix2pix_is_steered(tiny: Any) -> None:
    pipe = instruct_pix2pix(tiny)

    def run(**inputs: Any) -> Any:
        call = {"image": PICTURE, "guidance_scale": 4, "num_inference_steps": 2, "output_type": "np"}
        return pipe(**{**call, **inputs}, generator=torch.Generator().manual_seed(1)).images

    plain = run(prompt="a red circle", negative_prompt="")
    with steer(pipe, "(~:_:a red circle:~)", steps=2) as inputs:
        assert (run(**inputs) == plain).all()
    with steer(pipe, "(~:M00:a blue star;_:a red circle:~)", steps=2) as inputs:
        assert (run(**inputs) != plain).any()


def test_instruct_pix2pix_has_three_parts(tiny: Any) -> None:
    pipe, picture = instruct_pix2pix(tiny), PICTURE
    outputs: list[torch.Tensor] = []
    handle = pipe.unet.mid_block.register_forward_hook(lambda _m, _a, output: outputs.append(output))
    try:
        with trace(pipe, layers="M00", steps="1", attention="words") as seen:
            images = ["a red circle", "a star"]
            pipe(
                images, [picture] * 2, negative_prompt=["a ring"] * 2, num_inference_steps=1, guidance_scale=4
            )
    finally:
        handle.remove()
    assert [seen.words(0), seen.words(1)] == [("a", "red", "circle"), ("a", "star")]
    assert seen.words(1, negative=True) == ("a", "ring")
    for image in (0, 1):
        torch.testing.assert_close(seen["M00", 1, image], outputs[0][image], rtol=0, atol=0)


def test_rows_of_a_pipeline_that_hides_its_guidance_are_known_by_their_texts(tiny: Any) -> None:
    pipe = sag_pipeline(tiny)
    with trace(pipe, layers="M00", steps="1", attention="words") as seen:
        pipe(["a red circle", "a star"], generator=torch.Generator().manual_seed(1), **SIZE)
    with trace(tiny, layers="M00", steps="1") as expected:
        tiny(["a red circle", "a star"], generator=torch.Generator().manual_seed(1), **SIZE)
    assert not seen.problems
    assert [seen.words(0), seen.words(1)] == [("a", "red", "circle"), ("a", "star")]
    for image in (0, 1):
        torch.testing.assert_close(seen["M00", 1, image], expected["M00", 1, image])
    assert "encode_prompt" not in vars(pipe)


def test_words_of_sdxl_are_the_first_encoders(xl: Any) -> None:
    with trace(xl, layers="OUT01", steps="1", attention="words") as seen:
        xl("a red circle", negative_prompt="a ring", **SIZE)
    assert seen.words() == ("a", "red", "circle")
    assert seen.words(negative=True) == ("a", "ring")


def test_part_of_the_images_at_a_time_is_not_guessed(tiny: Any) -> None:
    pipe = sag_pipeline(tiny)
    with trace(pipe, layers="M00", steps="1") as seen:
        embeds = pipe.encode_prompt(["a star", "a star"], "cpu", 1, True)[0]
        pipe.scheduler.set_timesteps(2)
        with torch.no_grad():
            pipe.unet(torch.zeros(1, 4, 8, 8), pipe.scheduler.timesteps[0], encoder_hidden_states=embeds[1:])
    assert not seen.tensors
    assert "cannot be identified by their text" in str(seen.problems[0])


def modular_pipeline() -> Any:
    """Make SDXL of Modular Diffusers, which evaluates prompts and negative prompts in separate calls."""
    from diffusers import StableDiffusionXLAutoBlocks

    parts = sdxl_pipeline().components
    pipe = StableDiffusionXLAutoBlocks().init_pipeline()
    pipe.update_components(**{name: part for name, part in parts.items() if part is not None})
    return pipe


def test_a_modular_pipeline_is_traced_and_not_steered() -> None:
    pipe = modular_pipeline()

    def run(prompts: list[str]) -> Any:
        chance = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
        size = {"num_inference_steps": 2, "width": 64, "height": 64}
        negative = ["bad"] * len(prompts)
        return pipe(
            prompt=prompts,
            negative_prompt=negative,
            generator=chance,
            output="images",
            output_type="np",
            **size,
        )

    prompts = ["a red circle", "a blue star"]
    plain = run(prompts)
    with trace(pipe, layers="M00", attention="words") as seen:
        assert (run(prompts) == plain).all()
    assert seen.problems == []
    assert sorted((tag.image, tag.step) for tag in seen.tensors) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    for number, word in enumerate(("circle", "star")):
        assert word in seen.words(number)
        assert seen.word(word, image=number).ndim == 2
    for number, prompt in enumerate(prompts):
        with trace(pipe, layers="M00") as alone:
            run([prompt, prompt])
        rows = [seen.tensors[Tag(number, 1, "M00")], alone.tensors[Tag(number, 1, "M00")]]
        torch.testing.assert_close(*rows)
    with pytest.raises(HostError, match="encodes every prompt itself"), steer(pipe, "a (~:M00: b :~)"):
        pass


def test_rows_are_known_by_their_texts_whatever_the_order() -> None:
    """A user's pipeline may put the prompts before the negative prompts."""
    pipe = load_sd1()
    call = {**SIZE, "negative_prompt": ["a blue star"] * 2, "output_type": "latent"}

    def run() -> Any:
        chance = [torch.Generator().manual_seed(seed) for seed in range(2)]
        return pipe(["a red circle", "a green ring"], generator=chance, **call).images

    def swapped(batch: torch.Tensor) -> torch.Tensor:
        return torch.cat(batch.chunk(2)[::-1])

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        texts = swapped(kwargs["encoder_hidden_states"])
        return (swapped(args[0]), *args[1:]), {**kwargs, "encoder_hidden_states": texts}

    with trace(pipe, layers="M00", attention="words") as usual:
        plain = run()
    handles = [
        pipe.unet.register_forward_pre_hook(before, with_kwargs=True),
        pipe.unet.register_forward_hook(lambda _, args, output: (swapped(output[0]),)),
    ]
    with trace(pipe, layers="M00", attention="words") as turned:
        torch.testing.assert_close(run(), plain)
    for handle in handles:
        handle.remove()
    assert usual.tensors.keys() == turned.tensors.keys()
    for tag, tensor in usual.tensors.items():
        torch.testing.assert_close(turned.tensors[tag], tensor)
    torch.testing.assert_close(turned.word("ring", image=1), usual.word("ring", image=1))
