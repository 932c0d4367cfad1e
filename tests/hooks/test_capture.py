"""Capturing gets the right rows at the right time, changes nothing, and leaves no hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.hooks.capture import capture_blocks
from lib_dumpunet.hooks.reading import copy_rows
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.plan import CaptureRequest
from tests.unets import FakeClock, hook_count, ldm_unet, unet_inputs

LATENTS, TIME, CONTEXT = unet_inputs(4)


@pytest.fixture(scope="module")
def unet() -> Model:
    return describe(ldm_unet("sd1"))


class Watch:
    """Captures of several calls, with a clock set by hand."""

    def __init__(
        self, unet: Model, blocks: tuple[str, ...] = ("M00", "OUT11"), steps: Any = range(1, 100)
    ) -> None:
        self.unet, self.clock = unet, FakeClock()
        self.seen: list[Capture] = []
        self.problems: list[Exception] = []
        self.context = capture_blocks(
            unet, CaptureRequest(blocks, steps), self.clock, self.seen.append, self.problems.append
        )

    def __enter__(self) -> Watch:
        self.context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.context.__exit__(*error)

    def call(
        self, step: int, *rows: tuple[int, str] | tuple[int, str, int], at: slice = slice(None)
    ) -> Tensor:
        self.clock.step, self.clock.rows = step, rows
        with torch.no_grad():
            return self.unet.module(LATENTS[at], TIME[at], context=CONTEXT[at])

    @property
    def tags(self) -> list[Tag]:
        return [c.tag for c in self.seen]


def test_only_the_prompts_rows_are_taken_in_any_order(unet: Model) -> None:
    with Watch(unet, ("OUT11",)) as whole:
        whole.call(1, (0, "cond"), (1, "cond"), (2, "cond"), (3, "cond"))
    rows = [c.tensor for c in whole.seen]
    orders = [
        [(0, "uncond"), (1, "uncond"), (0, "cond"), (1, "cond")],
        [(0, "cond"), (1, "cond"), (0, "uncond"), (1, "uncond")],
        [(0, "uncond"), (1, "cond"), (1, "uncond"), (0, "cond")],
    ]
    for order in orders:
        with Watch(unet, ("OUT11",)) as watch:
            watch.call(1, *order)
        expected = {image: rows[i] for i, (image, branch) in enumerate(order) if branch == "cond"}
        assert {c.tag.image for c in watch.seen} == {0, 1}
        for capture in watch.seen:
            assert torch.equal(capture.tensor, expected[capture.tag.image])


def test_negative_pass_of_its_own_is_not_mistaken(unet: Model) -> None:
    with Watch(unet) as watch:
        watch.call(1, (0, "uncond"), (1, "uncond"), at=slice(2))
        assert not watch.seen
        watch.call(1, (0, "cond"), (1, "cond"), at=slice(2, 4))
    assert sorted(watch.tags) == [Tag(i, 1, b) for i in (0, 1) for b in ("M00", "OUT11")]


def test_of_two_evaluations_in_a_step_the_first_counts(unet: Model) -> None:
    with Watch(unet, ("M00",)) as watch:
        watch.call(1, (0, "cond"), at=slice(0, 1))
        watch.call(1, (0, "cond"), at=slice(1, 2))
        watch.call(2, (0, "cond"), at=slice(2, 3))
    assert watch.tags == [Tag(0, 1, "M00"), Tag(0, 2, "M00")]
    with Watch(unet, ("M00",)) as alone:
        alone.call(1, (0, "cond"), at=slice(0, 1))
    assert torch.equal(watch.seen[0].tensor, alone.seen[0].tensor)


def test_a_hires_pass_of_the_same_step_and_images_is_another_one(unet: Model) -> None:
    rows = [(0, "uncond"), (1, "uncond"), (0, "cond"), (1, "cond")]
    with Watch(unet, ("OUT11",), {2}) as watch:
        watch.clock.rows = rows
        with torch.no_grad():
            for watch.clock.hires, side in ((False, 16), (True, 24)):
                latents, time, context = unet_inputs(4, side, side)
                for watch.clock.step in (1, 2, 2):
                    unet.module(latents, time, context=context)
    assert watch.problems == []
    first, second = ([Tag(i, 2, "OUT11", hires=hires) for i in (0, 1)] for hires in (False, True))
    assert watch.tags == [*first, *second]
    assert [c.tensor.shape[-1] for c in watch.seen] == [16, 16, 24, 24]
    with Watch(unet, ("OUT11",)) as alone:
        alone.clock.rows = rows
        with torch.no_grad():
            unet.module(latents, time, context=context)
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(watch.seen[2:], alone.seen, strict=True))


@pytest.mark.parametrize("hires", [False, True])
def test_the_first_part_of_a_prompt_stands_for_it(unet: Model, hires: bool) -> None:
    with Watch(unet, ("M00",)) as whole:
        whole.call(1, (0, "cond"), (1, "cond"), (2, "cond"), (3, "cond"))
    with Watch(unet, ("M00",)) as watch:
        watch.clock.hires = hires
        watch.call(1, (0, "cond", 1), (0, "cond", 0), (1, "cond", 0), (1, "cond", 1))
    assert watch.tags == [Tag(0, 1, "M00", hires=hires), Tag(1, 1, "M00", hires=hires)]
    assert torch.equal(watch.seen[0].tensor, whole.seen[1].tensor)
    assert torch.equal(watch.seen[1].tensor, whole.seen[2].tensor)


def test_only_wanted_steps_and_none_outside_of_steps(unet: Model) -> None:
    with Watch(unet, ("M00",), {2, 4}) as watch:
        for step in (0, 1, 2, 3, 4, 5):
            watch.call(step, (0, "cond"), at=slice(1))
    assert [t.step for t in watch.tags] == [2, 4]


def test_a_capture_is_safe_from_changes_in_place(unet: Model) -> None:
    def add_in_place(_module: nn.Module, _args: Any, output: Tensor) -> None:
        output += 100

    with Watch(unet, ("M00",)) as before:
        before.call(1, (0, "cond"), at=slice(1))
    with Watch(unet, ("M00",)) as watch:
        handle = unet.blocks[12].output.module.register_forward_hook(add_in_place)
        watch.call(1, (0, "cond"), at=slice(1))
        handle.remove()
    assert torch.equal(watch.seen[0].tensor, before.seen[0].tensor)


def test_output_is_untouched_and_hooks_are_gone(unet: Model) -> None:
    with torch.no_grad():
        plain = unet.module(LATENTS, TIME, context=CONTEXT)
    with Watch(unet, unet.order.names) as watch:
        assert hook_count(unet.module) == 26
        seen = watch.call(1, (0, "cond"), (1, "cond"), (2, "cond"), (3, "cond"))
    assert torch.equal(plain, seen)
    assert hook_count(unet.module) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_hooks_are_gone_after_an_error(unet: Model, error: type[BaseException]) -> None:
    with pytest.raises(error), Watch(unet):
        raise error
    assert hook_count(unet.module) == 0


class ChildLooping(nn.Module):
    """A U-Net whose forward calls the children of its blocks, not the blocks, as in some hosts."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.input_blocks, self.output_blocks = inner.input_blocks, inner.output_blocks
        self.middle_block = inner.middle_block

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        from ldm.modules.attention import SpatialTransformer
        from ldm.modules.diffusionmodules.openaimodel import TimestepBlock
        from ldm.modules.diffusionmodules.util import timestep_embedding

        emb = self.inner.time_embed(timestep_embedding(time, self.inner.model_channels))

        def run(block: nn.Module, h: Tensor) -> Tensor:
            for layer in block:
                if isinstance(layer, TimestepBlock):
                    h = layer(h, emb)
                else:
                    h = layer(h, context) if isinstance(layer, SpatialTransformer) else layer(h)
            return h

        skips = []
        for block in self.input_blocks:
            x = run(block, x)
            skips.append(x)
        x = run(self.middle_block, x)
        for block in self.output_blocks:
            x = run(block, torch.cat([x, skips.pop()], dim=1))
        return self.inner.out(x)


def test_blocks_that_are_never_called_are_captured_through_their_children(unet: Model) -> None:
    rows = tuple((i, "cond") for i in range(4))
    with Watch(unet, unet.order.names) as plain:
        plain.call(1, *rows)
    with Watch(describe(ChildLooping(unet.module)), unet.order.names) as looping:
        looping.call(1, *rows)
    assert not looping.problems
    assert looping.tags == plain.tags
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(plain.seen, looping.seen, strict=True))


class Skipping(ChildLooping):
    """A U-Net that computes some of its blocks without calling them."""

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        self.input_blocks[0](x, None, None)
        return x


def test_a_hook_that_does_not_fire_is_named_and_capturing_stops(unet: Model) -> None:
    with Watch(describe(Skipping(unet.module)), ("IN00", "IN01", "IN02", "OUT11")) as watch:
        watch.call(1, *((i, "cond") for i in range(4)))
        watch.call(2, *((i, "cond") for i in range(4)))
    (problem,) = watch.problems
    assert "IN01-IN02, OUT11" in str(problem)
    assert "IN00" not in str(problem)
    assert {t.step for t in watch.tags} == {1}


def test_a_fault_of_the_reader_never_reaches_the_sampler(unet: Model) -> None:
    problems: list[Exception] = []

    def broken(_: Capture) -> None:
        raise IndexError("out of luck")

    want = CaptureRequest(("M00",), {1})
    with (
        torch.no_grad(),
        capture_blocks(unet, want, FakeClock(1, [(0, "cond")] * 4), broken, problems.append),
    ):
        output = unet.module(LATENTS, TIME, context=CONTEXT)
    assert torch.equal(output, unet.module(LATENTS, TIME, context=CONTEXT))
    assert len(problems) == 1
    assert "M00" in str(problems[0])


def test_rows_that_do_not_fit_the_batch_are_told_and_not_guessed(unet: Model) -> None:
    with Watch(unet, ("M00",)) as watch:
        watch.call(1, (0, "cond"), (1, "cond"))
    assert not watch.seen
    assert "4 rows" in str(watch.problems[0])


@pytest.mark.parametrize("rows", [[0], [1, 2], [0, 3], [3, 1]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_copies_hold_the_rows_in_their_dtype(rows: list[int], dtype: torch.dtype) -> None:
    batch = torch.randn(4, 3, 5, 5).to(dtype)
    copy, ready = copy_rows(batch, rows)
    ready()
    expected = batch[rows].clone()
    batch.zero_()
    assert torch.equal(copy, expected)
    assert copy.dtype == dtype
