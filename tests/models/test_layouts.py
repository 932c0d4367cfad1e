"""Blocks are found in every layout, with the same tensors in all of them."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from lib_dumpunet.blocks import SD1, SDXL
from lib_dumpunet.captures import Capture
from lib_dumpunet.errors import UnsupportedModelError
from lib_dumpunet.hooks.capture import capture_blocks
from lib_dumpunet.hooks.shapes import measure_blocks
from lib_dumpunet.hosts.diffusers.loading import block_table
from lib_dumpunet.models.describe import describe
from lib_dumpunet.plan import CaptureRequest
from tests.unets import FakeClock, diffusers_unet, ldm_unet, sdxl_unet, twins, unet_inputs

SD15_AT_512 = """
IN00 conv 4,64,64 320,64,64
IN01 res+attn 320,64,64 320,64,64
IN02 res+attn 320,64,64 320,64,64
IN03 down 320,64,64 320,32,32
IN04 res+attn 320,32,32 640,32,32
IN05 res+attn 640,32,32 640,32,32
IN06 down 640,32,32 640,16,16
IN07 res+attn 640,16,16 1280,16,16
IN08 res+attn 1280,16,16 1280,16,16
IN09 down 1280,16,16 1280,8,8
IN10 res 1280,8,8 1280,8,8
IN11 res 1280,8,8 1280,8,8
M00 res+attn+res 1280,8,8 1280,8,8
OUT00 res 2560,8,8 1280,8,8
OUT01 res 2560,8,8 1280,8,8
OUT02 res+up 2560,8,8 1280,16,16
OUT03 res+attn 2560,16,16 1280,16,16
OUT04 res+attn 2560,16,16 1280,16,16
OUT05 res+attn+up 1920,16,16 1280,32,32
OUT06 res+attn 1920,32,32 640,32,32
OUT07 res+attn 1280,32,32 640,32,32
OUT08 res+attn+up 960,32,32 640,64,64
OUT09 res+attn 960,64,64 320,64,64
OUT10 res+attn 640,64,64 320,64,64
OUT11 res+attn 640,64,64 320,64,64
"""


def captured(unet: nn.Module, *args: object, **kwargs: object) -> dict[tuple[int, str], torch.Tensor]:
    """Run a U-Net once and collect its blocks' outputs."""
    seen: list[Capture] = []
    problems: list[Exception] = []
    described = describe(unet)
    want = CaptureRequest(described.order.names, {1})
    with torch.no_grad(), capture_blocks(described, want, FakeClock(), seen.append, problems.append):
        unet(*args, **kwargs)
    assert not problems
    return {(c.tag.image, c.tag.block): c.tensor for c in seen}


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_same_weights_give_same_tensors_in_both_layouts(family: str) -> None:
    original, copy = twins(family)
    latents, time, context = unet_inputs()
    a = captured(original, latents, time, context=context)
    b = captured(copy, latents, time, encoder_hidden_states=context)
    assert list(a) == list(b)
    assert {block for _, block in a} == set(SD1)
    for key, tensor in a.items():
        torch.testing.assert_close(tensor, b[key], rtol=1e-4, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}")
        assert tensor.std() > 1e-3


def test_a_block_is_the_tensor_that_its_successor_gets() -> None:
    unet = ldm_unet("sd1")
    latents, time, context = unet_inputs()
    seen = {}
    for number, block in enumerate(unet.input_blocks):
        block.register_forward_hook(lambda _m, _i, output, n=number: seen.__setitem__(n, output))
    tensors = captured(unet, latents, time, context=context)
    for number, output in seen.items():
        assert torch.equal(tensors[1, f"IN{number:02}"], output[1])


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_layouts_agree_on_kinds_and_attention(family: str) -> None:
    a, b = (describe(unet) for unet in twins(family))
    assert [(s.name, s.kind, len(s.layers)) for s in a.blocks] == [
        (s.name, s.kind, len(s.layers)) for s in b.blocks
    ]
    assert sum(len(s.layers) for s in a.blocks) == 16


def test_sdxl_has_19_blocks_and_several_layers_in_one() -> None:
    unet = describe(sdxl_unet())
    assert unet.order == SDXL
    layers = {s.name: len(s.layers) for s in unet.blocks if s.layers}
    assert layers == {
        "IN04": 2, "IN05": 2, "IN07": 3, "IN08": 3, "M00": 3,
        "OUT00": 3, "OUT01": 3, "OUT02": 3, "OUT03": 2, "OUT04": 2, "OUT05": 2,
    }  # fmt: skip


def test_sdxl_blocks_are_captured() -> None:
    unet = sdxl_unet()
    latents, time, context = unet_inputs()
    more = {"text_embeds": torch.zeros(2, CONTEXT_SIZE), "time_ids": torch.zeros(2, 6)}
    tensors = captured(unet, latents, time, encoder_hidden_states=context, added_cond_kwargs=more)
    assert {block for _, block in tensors} == set(SDXL)
    assert tensors[0, "OUT08"].shape == (32, 16, 16)


CONTEXT_SIZE = 16


def test_table_of_sd15_is_the_documented_one() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    shapes = ["{} {} {} {}".format(r.block, r.kind, *(",".join(map(str, s)) for s in (r.input, r.output)))
              for r in block_table(unet.config, 512, 512)]  # fmt: skip
    assert shapes == SD15_AT_512.split("\n")[1:-1]


def test_table_follows_size_and_model() -> None:
    rows = {r.block: r for r in block_table(sdxl_unet().config, 192, 320)}
    assert rows["IN00"].output == (32, 40, 24)
    assert rows["M00"].output == (64, 10, 6)
    assert rows["IN08"].heads == (8, 8, 8)


def test_measuring_leaves_no_hooks_and_works_on_ldm() -> None:
    unet = ldm_unet("sd1")
    latents, time, context = unet_inputs()
    with torch.no_grad():
        rows = measure_blocks(describe(unet), lambda: unet(latents, time, context=context))
    assert [r.block for r in rows] == list(SD1)
    assert rows[13].input == (256, 2, 2)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())


def test_missing_middle_block_is_no_block() -> None:
    unet = diffusers_unet("sd1", mid_block_type=None)
    assert "M00" not in describe(unet).order


@pytest.mark.parametrize("module", [nn.Linear(1, 1), nn.Sequential()])
def test_other_models_are_refused_by_name(module: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match=type(module).__name__):
        describe(module)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch warns of its own code here
def test_compiled_unet_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"torch\.compile"):
        describe(torch.compile(diffusers_unet("sd1")))
