"""What each block's cross-attention reads, row by row and step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hooks.steer import Steering, fill_up, steer
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.prompt.plan import plan_prompts
from tests.unets import (
    CONTEXT,
    FakeClock,
    diffusers_unet,
    hook_count,
    ldm_unet,
    sdxl_unet,
    twins,
    unet_inputs,
)

CHUNK = 4
FILLER = torch.full((CHUNK, CONTEXT), -9.0)
FILL = partial(fill_up, filler=FILLER)
PASSED = 0.0
"""What the host passes in all rows; a text is a number, and its context has the number in every place."""

Contexts = dict[str, list[list[float]]]


def context_of(text: str) -> Tensor:
    """Encode "3" as four tokens of 3, "5 5" as eight tokens of 5."""
    words = text.split()
    return torch.full((CHUNK * max(1, len(words)), CONTEXT), float(words[0]) if words else 0.0)


def steering(unet: Model, prompts: Sequence[str], negatives: Sequence[str] = (), steps: int = 10) -> Steering:
    cond, uncond = ([parse_prompt(p, unet.order) for p in texts] for texts in (prompts, negatives))
    attending = unet.attending
    return Steering(plan_prompts(cond, uncond, attending, steps), lambda text, *_: context_of(text), FILL)


@contextmanager
def reading(unet: Model) -> Iterator[Contexts]:
    """Record the input of each block's key layers: by row, the number of each chunk; a block's layers must agree."""
    seen: Contexts = {}
    handles = []

    def see(block: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            chunks = args[0].unflatten(1, (-1, CHUNK))
            assert torch.equal(chunks, chunks[:, :, :1, :1].expand_as(chunks))
            rows = [[round(float(v), 3) for v in row] for row in chunks[:, :, 0, 0]]
            assert seen.setdefault(block, rows) == rows

        return hook

    for block in unet.blocks:
        for layer in block.layers:
            for name in ("to_k", "to_v"):
                module = getattr(layer.cross_attention, name)
                handles.append(module.register_forward_pre_hook(see(block.name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def call(unet: Model, rows: int, tokens: int = CHUNK, dtype: torch.dtype = torch.float32) -> Tensor:
    latents, time, _ = unet_inputs(rows, 8, 8)
    passed = torch.full((rows, tokens, CONTEXT), PASSED, dtype=dtype)
    more: dict[str, Any] = {}
    if getattr(unet.module, "add_embedding", None) is not None:
        more["added_cond_kwargs"] = {
            "text_embeds": torch.zeros(rows, CONTEXT),
            "time_ids": torch.zeros(rows, 6),
        }
    with torch.inference_mode():
        out = unet.module(latents.to(dtype), time, passed, **more)
    return out if isinstance(out, Tensor) else out[0]


@pytest.fixture(scope="module", params=["ldm", "diffusers", "sdxl"])
def unet(request: pytest.FixtureRequest) -> Model:
    make = {"ldm": lambda: ldm_unet("sd1"), "diffusers": lambda: diffusers_unet("sd1"), "sdxl": sdxl_unet}
    return describe(make[request.param]())


def test_each_row_of_each_block_reads_its_own_text(unet: Model) -> None:
    """Three images with different prompts, a bracket in the negative prompt, and texts of different lengths."""
    plan = steering(
        unet,
        ["(~: M00: 3 ; _: 1 :~)", "2", "(~: OUT05: 4 4; IN04: 5; _: 1 :~)"],
        ["(~: OUT05: 6; IN04: 7 7; _: 8 :~)"],
    )
    assert plan.plan.steered == ("IN04", "M00", "OUT05")
    clock = FakeClock(1, [(i, "uncond") for i in range(3)] + [(i, "cond") for i in range(3)])
    problems: list[DumpUNetError] = []
    with steer(unet, plan, clock, problems.append), reading(unet) as seen:
        call(unet, 6)
    p, f = PASSED, -9.0
    # By hand: negative rows first. A row whose block has nothing of its own keeps what the host passed.
    expected = {block: [[p]] * 6 for block in seen}
    expected["M00"] = [[p], [p], [p], [3.0], [p], [p]]
    expected["OUT05"] = [[6.0, f], [6.0, f], [6.0, f], [p, f], [p, f], [4.0, 4.0]]
    expected["IN04"] = [[7.0, 7.0]] * 3 + [[p, f], [p, f], [5.0, f]]
    assert seen == expected
    assert len(seen) == len(unet.attending)
    assert problems == []
    assert hook_count(unet.module) == 0


def test_rows_in_another_order_and_branches_apart(unet: Model) -> None:
    plan = steering(unet, ["(~: M00: 3 :~)"], ["(~: M00: 4 :~)"])
    for rows, expected in (
        ([(0, "cond"), (0, "uncond")], [[3.0], [4.0]]),
        ([(0, "uncond"), (0, "cond")], [[4.0], [3.0]]),
        ([(0, "cond")], [[3.0]]),
        ([(0, "uncond")], [[4.0]]),
    ):
        with steer(unet, plan, FakeClock(1, rows), pytest.fail), reading(unet) as seen:
            call(unet, len(rows))
        assert seen["M00"] == expected


def test_later_images_of_a_request_read_their_own(unet: Model) -> None:
    plan = steering(unet, ["1", "(~: M00: 2; _: 1 :~)", "(~: M00: 3; _: 1 :~)"])
    clock = FakeClock(1, [(0, "cond")])
    read = []
    with steer(unet, plan, clock, pytest.fail):
        for image in range(3):
            clock.rows = [(image, "cond")]
            with reading(unet) as seen:
                call(unet, 1)
            read.append(seen["M00"][0][0])
    assert read == [PASSED, 2.0, 3.0]


def test_steps_and_strengths() -> None:
    unet = describe(diffusers_unet("sd1"))
    text = "(~: M00*0.25@2-3: 4 ; OUT05@1: 7 ; OUT05@2: 8 ; IN04*2: 1 1 :~)"
    plan = steering(unet, [text], steps=4)
    clock = FakeClock(1, [(0, "cond")])
    read: dict[int, Contexts] = {}
    with steer(unet, plan, clock, pytest.fail):
        for clock.step in (0, 1, 2, 3, 4):
            with reading(unet) as seen:
                call(unet, 1)
            read[clock.step] = {block: seen[block] for block in ("M00", "OUT05", "IN04", "OUT06")}
    nothing = {block: [[PASSED]] for block in read[0]}
    # The empty text is 0 everywhere, so 4 at a quarter is 1; a strength of 2 takes the filler away once.
    doubled = [[2.0, 2.0 + 9.0]]
    assert read == {
        0: nothing,  # a call that belongs to no step is someone else's
        1: {**nothing, "OUT05": [[7.0]], "IN04": doubled},
        2: {**nothing, "M00": [[1.0]], "OUT05": [[8.0]], "IN04": doubled},
        3: {**nothing, "M00": [[1.0]], "IN04": doubled},
        4: {**nothing, "IN04": doubled},
    }


def test_a_row_without_a_text_of_its_own_is_left_alone(unet: Model) -> None:
    same = steering(unet, [f"(~: IN00-{unet.order.names[-1]}: 3 :~)", "3"])
    assert same.plan.steered == ()
    with steer(unet, same, FakeClock(1, [(0, "cond"), (1, "cond")]), pytest.fail):
        assert hook_count(unet.module) == 0
    half = steering(unet, ["(~: IN00-M00: 3 ; _: 5 :~)"])
    with steer(unet, half, FakeClock(1, [(0, "cond")]), pytest.fail), reading(unet) as seen:
        call(unet, 1)
    assert {block for block, read in seen.items() if read != [[PASSED]]} == set(half.plan.steered)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_output_is_that_of_a_plain_call_with_that_context(dtype: torch.dtype) -> None:
    module = diffusers_unet("sd1").to(dtype)
    unet = describe(module)
    torch.manual_seed(1)
    own = torch.randn(CHUNK, CONTEXT).to(dtype)
    plan = plan_prompts([parse_prompt("x(~: IN00-M00: y ; _: z :~)")], [], unet.attending, 1)
    latents, time, _ = unet_inputs(1, 8, 8)
    passed = torch.zeros(1, CHUNK, CONTEXT, dtype=dtype)
    steered = Steering(plan, lambda *_: own.float(), FILL)
    with torch.inference_mode():
        plain = module(latents.to(dtype), time, own[None]).sample
        with steer(unet, steered, FakeClock(1, [(0, "cond")]), pytest.fail):
            half = module(latents.to(dtype), time, passed).sample
        everything = Steering(
            plan_prompts([parse_prompt("x(~: _@1: y :~)")], [], plan.attending, 9), steered.at, FILL
        )
        with steer(unet, everything, FakeClock(1, [(0, "cond")]), pytest.fail):
            same = module(latents.to(dtype), time, passed).sample
    assert not torch.equal(half, plain)
    assert torch.equal(same, plain)


def test_both_layouts_are_steered_alike() -> None:
    original, copy = map(describe, twins("sd1"))
    outputs = []
    for unet in (original, copy):
        plan = steering(unet, ["(~: IN04: 3; M00*0.5: 4 ; OUT09: 5 5 :~)"])
        with steer(unet, plan, FakeClock(1, [(0, "cond")]), pytest.fail):
            outputs.append(call(unet, 1))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-4)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(call(copy, 1), outputs[1], rtol=1e-3, atol=1e-4)


def test_a_row_reads_its_own_part_of_the_text() -> None:
    unet = describe(diffusers_unet("sd1"))
    template = parse_prompt("(~: M00: 3 :~)", unet.order)
    plan = plan_prompts([template], [template], unet.attending, 1)
    rows = [(0, "cond"), (0, "cond", 1), (0, "uncond")]
    steering = Steering(plan, lambda text, _, row: context_of("7" if row.part else text), FILL)
    with reading(unet) as seen, steer(unet, steering, FakeClock(1, rows), pytest.fail):
        call(unet, 3)
    assert seen["M00"] == [[3.0], [7.0], [3.0]]


def test_another_batch_than_expected_stops_the_call() -> None:
    unet = describe(diffusers_unet("sd1"))
    plan = steering(unet, ["(~: M00: 3 :~)"])
    with (
        steer(unet, plan, FakeClock(1, [(0, "cond")]), pytest.fail),
        pytest.raises(HostError, match="2 rows, but 1 were expected"),
    ):
        call(unet, 2)
    assert hook_count(unet.module) == 0


def test_a_block_that_is_not_reached_is_told() -> None:
    unet = describe(diffusers_unet("sd1"))
    plan = steering(unet, ["(~: IN04, M00: 3 :~)"])
    original = unet.module.mid_block.forward
    unet.module.mid_block.forward = lambda hidden, *_, **__: hidden  # as an extension does that skips a block
    problems: list[DumpUNetError] = []
    try:
        with steer(unet, plan, FakeClock(1, [(0, "cond")]), problems.append):
            call(unet, 1)
            call(unet, 1)
    finally:
        unet.module.mid_block.forward = original
    assert len(problems) == 1
    assert "the text of M00 was not read" in str(problems[0])


def test_filling_up() -> None:
    own = torch.zeros(3, CONTEXT)
    assert FILL(own, 3) is own
    assert FILL(own, 2) is own
    filled = FILL(own, 12)
    assert filled.shape == (12, CONTEXT)
    assert torch.equal(filled[3:], torch.full((9, CONTEXT), -9.0))
