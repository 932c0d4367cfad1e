"""The notebook's context manager."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lib_dumpunet import DumpUNetError, SettingsError, trace
from tests.unets import hook_count

CALL = {"width": 96, "height": 64, "num_inference_steps": 4, "guidance_scale": 3.0}


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
