"""Attention is captured as the layers compute it, from the right rows, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import DumpUNetError, UnsupportedModelError
from lib_dumpunet.hooks import probabilities
from lib_dumpunet.hooks.attention import capture_attention
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.sums import AttentionSums, mean_of
from lib_dumpunet.kinds import KINDS as KIND_ROWS
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.plan import AttentionRequest
from lib_dumpunet.ports import BatchRow
from tests.unets import CONTEXT, FakeClock, diffusers_unet, hook_count, sdxl_unet, twins, unet_inputs

IMAGES = 4
ROWS = [(image, branch) for branch in ("uncond", "cond") for image in range(IMAGES)]
KINDS = frozenset({"k", "qk", "vqk", "self", "pooled_self", "word", "point"})
UNETS = {"sd1": lambda: diffusers_unet("sd1"), "sd2": lambda: diffusers_unet("sd2"), "sdxl": sdxl_unet}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def call(module: nn.Module, batch: int = 2 * IMAGES, height: int = 16, width: int = 24) -> Tensor:
    dtype = next(module.parameters()).dtype
    latents, time, context = unet_inputs(batch, height, width)
    more: dict[str, Any] = {}
    if getattr(module.config, "addition_embed_type", None):
        more["added_cond_kwargs"] = {
            "text_embeds": torch.ones(batch, CONTEXT, dtype=dtype),
            "time_ids": torch.ones(batch, 6, dtype=dtype),
        }
    with torch.no_grad():
        return module(latents.to(dtype), time, context.to(dtype), **more).sample


@dataclass
class Reading:
    """The captures of a ``with`` block."""

    seen: dict[Tag, Tensor] = field(default_factory=dict)
    problems: list[DumpUNetError] = field(default_factory=list)
    sums: AttentionSums = field(default_factory=AttentionSums)


@contextmanager
def reading(
    unet: Model,
    kinds: frozenset[str] = KINDS,
    rows: Sequence[tuple[int, str] | tuple[int, str, int]] = ROWS,
    *,
    blocks: tuple[str, ...] | None = None,
    clock: FakeClock | None = None,
    **want: Any,
) -> Iterator[Reading]:
    result = Reading()

    def keep(capture: Capture) -> None:
        capture.ready()
        assert capture.tag not in result.seen
        assert capture.tensor.ndim == len(KIND_ROWS[capture.tag.kind].axes)
        result.seen[capture.tag] = capture.tensor

    wanted = AttentionRequest(blocks or unet.order.names, {1}, kinds, points=((0.9, 0.1),), **want)
    clock = clock or FakeClock(1, rows)
    with capture_attention(unet, wanted, clock, keep, result.problems.append, result.sums):
        yield result


@dataclass
class Layer:
    """Query, key and value of one attention layer "row head token dim", from its weights and inputs alone."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float

    @property
    def scores(self) -> Tensor:
        """Probabilities "row head query key", computed the plain way in float64."""
        return torch.softmax(self.q.double() @ self.k.double().mT * self.scale, dim=-1)


def layers(unet: Model, attention: str) -> dict[tuple[str, int], Layer]:
    """Run the U-Net once, and compute each layer's query, key and value from the layer's inputs."""
    inputs: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
    modules: dict[tuple[str, int], Any] = {}
    with HookSet() as hooks:
        for block in unet.blocks:
            for layer in block.layers:
                key = (layer.block, layer.number)
                modules[key] = getattr(layer, attention)

                def note(args: tuple[Any, ...], kwargs: dict[str, Any], key: Any = key) -> None:
                    context = kwargs.get("encoder_hidden_states")
                    inputs[key] = (args[0], args[0] if context is None else context)

                hooks.before(modules[key], note)
        call(unet.module)
    found = {}
    for key, (hidden, context) in inputs.items():
        module = modules[key]

        def split(x: Tensor, heads: int = module.heads) -> Tensor:
            return x.unflatten(-1, (heads, -1)).transpose(1, 2)

        with torch.no_grad():
            q, k, v = module.to_q(hidden), module.to_k(context), module.to_v(context)
        found[key] = Layer(split(q), split(k), split(v), (q.shape[-1] // module.heads) ** -0.5)
    return found


@pytest.fixture(scope="module", params=list(UNETS))
def unet(request: pytest.FixtureRequest) -> Model:
    return describe(UNETS[request.param]())


@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_every_layer_equals_a_plain_computation(unet: Model, dtype: torch.dtype, processor: Any) -> None:
    unet.module.to(dtype)
    unet.module.set_attn_processor(processor())
    with reading(unet) as read:
        call(unet.module)
    assert read.problems == []
    reference = layers(unet, "cross_attention")
    assert {(t.block, t.layer) for t in read.seen if t.kind == "qk"} == set(reference)
    for (block, site), layer in reference.items():
        for image in range(IMAGES):
            row = IMAGES + image
            qk = read.seen[Tag(image, 1, block, "qk", site)]
            height, width = qk.shape[2:]
            assert width / height == 1.5
            assert qk.dtype == torch.float32
            expected = layer.scores[row].transpose(1, 2).unflatten(2, (height, width))
            torch.testing.assert_close(qk.double(), expected, rtol=0, atol=1e-6)
            torch.testing.assert_close(qk.sum(1), torch.ones(len(qk), height, width), rtol=0, atol=1e-5)
            key = read.seen[Tag(image, 1, block, "k", site)]
            assert torch.equal(key, layer.k[row])
            assert key.dtype == dtype
            attended = (layer.scores[row] @ layer.v[row].double()).transpose(0, 1).flatten(1)
            vqk = read.seen[Tag(image, 1, block, "vqk", site)]
            assert vqk.dtype == dtype
            tolerance = TOLERANCE[dtype]
            torch.testing.assert_close(
                vqk.double(), attended.T.unflatten(1, (height, width)), rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_self_attention_equals_a_plain_computation(unet: Model, dtype: torch.dtype) -> None:
    unet.module.to(dtype)
    with reading(unet, lattice=2) as read:
        call(unet.module)
    for (block, site), layer in layers(unet, "self_attention").items():
        maps = read.seen[Tag(1, 1, block, "self", site)]
        height, width = maps.shape[3:]
        scores = layer.scores[IMAGES + 1].unflatten(1, (height, width)).unflatten(-1, (height, width))
        rows, columns = ([(2 * i + 1) * length // 4 for i in range(2)] for length in (height, width))
        expected = scores[:, rows][:, :, columns]
        torch.testing.assert_close(maps.double(), expected, rtol=0, atol=1e-6)
        gaze = read.seen[Tag(1, 1, block, "pooled_self", site)]
        assert gaze.shape == (height, width, min(height, 16), min(width, 16))
        torch.testing.assert_close(gaze.sum((2, 3)), torch.ones(height, width), rtol=0, atol=1e-5)
        if width <= 16:
            torch.testing.assert_close(gaze.double(), scores.mean(0), rtol=0, atol=1e-6)


def test_keys_of_a_large_map_are_summed_over_equal_parts() -> None:
    unet = describe(diffusers_unet("sd1"))
    with reading(unet, blocks=("IN01",)) as read:
        call(unet.module, 2 * IMAGES, 32, 40)
    gaze = read.seen[Tag(0, 1, "IN01", "pooled_self")]
    assert gaze.shape == (32, 40, 16, 16)
    with reading(unet, blocks=("IN01",), lattice=1) as read:
        call(unet.module, 2 * IMAGES, 32, 40)
    exact = read.seen[Tag(0, 1, "IN01", "self")].mean(0)[0, 0]  # where the middle looks
    column = [i * 16 // 40 for i in range(40)]
    for y in range(16):
        for x in range(16):
            part = exact[2 * y : 2 * y + 2, [i for i in range(40) if column[i] == x]].sum()
            torch.testing.assert_close(gaze[16, 20, y, x], part, rtol=1e-4, atol=1e-7)


def test_words_and_points_are_means_of_heads_layers_and_steps(unet: Model) -> None:
    unet.module.float()
    clock = FakeClock(1, ROWS)
    with reading(unet, branches=("cond", "uncond"), clock=clock) as read:
        call(unet.module)
    cross = layers(unet, "cross_attention")
    finest = max(round((layer.q.shape[2] / 1.5) ** 0.5) for layer in cross.values())
    size = (finest, finest * 3 // 2)
    for row, index in ((BatchRow(1, "cond"), IMAGES + 1), (BatchRow(0, "uncond"), 0)):
        maps = [
            layer.scores[index].mean(0).T.unflatten(1, _shape(layer.q.shape[2])).float()
            for layer in cross.values()
        ]
        expected = torch.stack(
            [nn.functional.interpolate(m[None], size, mode="bilinear", align_corners=False)[0] for m in maps]
        ).mean(0)
        torch.testing.assert_close(read.sums.mean(row, "word"), expected, rtol=1e-4, atol=1e-6)
    points = read.sums.mean(BatchRow(0, "cond"), "point")
    assert points is not None
    assert points.shape == (1, *size)
    middle = [layer for (block, _), layer in layers(unet, "self_attention").items() if block == "M00"]
    with reading(unet, blocks=("M00",)) as read:
        call(unet.module)
    height, width = _shape(middle[0].q.shape[2])
    query = int(0.1 * height) * width + int(0.9 * width)
    looks = torch.stack([layer.scores[IMAGES][:, query].mean(0) for layer in middle]).mean(0)
    expected = looks.unflatten(0, (height, width)).float()
    torch.testing.assert_close(
        read.sums.mean(BatchRow(0, "cond"), "point"), expected[None], rtol=1e-4, atol=1e-6
    )


def _shape(queries: int) -> tuple[int, int]:
    height = round((queries / 1.5) ** 0.5)
    return height, queries // height


def test_heat_is_kept_for_each_image_until_it_is_forgotten() -> None:
    sums = AttentionSums()
    ones = torch.ones(2, 3, 4)
    for image in (0, 1):
        sums.add(BatchRow(image, "cond"), "word", ones * image)
        sums.add(BatchRow(image, "cond"), "word", 3 * ones)
    assert sums.images == [0, 1]
    assert torch.equal(sums.mean(BatchRow(1, "cond"), "word"), 2 * ones)
    sums.forget(0)
    assert sums.images == [1]
    assert sums.mean(BatchRow(0, "cond"), "word") is None


def test_heat_of_each_text_is_summed_up_apart_and_columns_are_averaged_over_texts() -> None:
    sums, row = AttentionSums(), BatchRow(0, "cond")
    sums.add(row, "word", torch.full((3, 2, 2), 1.0), "red")
    sums.add(row, "word", torch.full((5, 4, 4), 3.0), "red")  # filled up beside a longer text
    sums.add(row, "word", torch.full((5, 4, 4), 10.0), "blue")
    red, blue = sums.sums(row, "word")
    assert (red.text, red.count, red.total.shape) == ("red", 2, (3, 4, 4))
    assert (blue.text, blue.count, blue.total.shape) == ("blue", 1, (5, 4, 4))
    assert torch.equal(red.total, torch.full((3, 4, 4), 4.0))
    mean = mean_of([(red, (0, 2)), (blue, (4,))])
    torch.testing.assert_close(mean, torch.full((4, 4), 14 / 3))  # of three layers


def test_the_other_layout_gives_the_same_maps() -> None:
    original, copy = (describe(module) for module in twins("sd1"))
    with reading(copy) as expected:
        call(copy.module, 2 * IMAGES, 16, 16)
    latents, time, context = unet_inputs(2 * IMAGES, 16, 16)
    with reading(original) as read, torch.inference_mode():
        original.module(latents, time, context=context)
    assert read.problems == []
    assert list(read.seen) == list(expected.seen)
    for tag, tensor in read.seen.items():
        torch.testing.assert_close(tensor, expected.seen[tag], rtol=1e-3, atol=1e-4)


def test_output_is_untouched_and_hooks_are_gone(unet: Model) -> None:
    plain = call(unet.module)
    with reading(unet) as read:
        seen = call(unet.module)
    assert read.seen
    assert torch.equal(plain, seen)
    assert hook_count(unet.module) == 0


def test_sums_outlive_inference_mode_and_autocast_changes_nothing() -> None:
    unet = describe(diffusers_unet("sd1"))
    clock = FakeClock(1, ROWS)
    with reading(unet, frozenset({"qk", "word"}), blocks=("M00",), clock=clock) as plain:
        call(unet.module)
    with reading(unet, frozenset({"qk", "word"}), blocks=("M00",), clock=clock) as read:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            call(unet.module)
        assert read.seen[Tag(0, 1, "M00", "qk")].dtype == torch.float32
        sums = read.seen[Tag(0, 1, "M00", "qk")].sum(1)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
        clock.rows = [(row[0] + IMAGES, row[1]) for row in ROWS]
        call(unet.module)
        for image in (0, IMAGES):
            assert read.sums.mean(BatchRow(image, "cond"), "word") is not None
    assert read.problems == plain.problems == []


def test_of_two_evaluations_in_a_step_the_first_counts() -> None:
    unet = describe(diffusers_unet("sd1"))
    with reading(unet, frozenset({"qk", "word"}), blocks=("M00",)) as read:
        call(unet.module)
        first = read.sums.mean(BatchRow(0, "cond"), "word")
        call(unet.module)
    assert len(read.seen) == IMAGES
    assert torch.equal(read.sums.mean(BatchRow(0, "cond"), "word"), first)


def test_a_hires_pass_is_told_apart_and_words_sum_up_both() -> None:
    unet = describe(diffusers_unet("sd1"))
    blocks, sizes = ("M00",), {False: (16, 24), True: (32, 48)}
    alone: dict[bool, Reading] = {}
    for hires, size in sizes.items():
        with reading(unet, blocks=blocks, clock=FakeClock(1, ROWS, hires)) as alone[hires]:
            call(unet.module, 2 * IMAGES, *size)
    clock = FakeClock(1, ROWS)
    with reading(unet, blocks=blocks, clock=clock) as read:
        for clock.hires, size in sizes.items():
            call(unet.module, 2 * IMAGES, *size)
    assert read.problems == []
    assert {(tag.kind, tag.hires) for tag in read.seen} == {
        (kind, hires) for kind in KINDS - {"word", "point"} for hires in (False, True)
    }
    for tag, tensor in read.seen.items():
        assert torch.equal(tensor, alone[tag.hires].seen[tag])
    for kind, row in (("word", BatchRow(1, "cond")), ("point", BatchRow(2, "cond"))):
        small, large = (alone[hires].sums.mean(row, kind) for hires in (False, True))
        assert small is not None
        assert large is not None
        coarse = nn.functional.interpolate(
            small[None], large.shape[1:], mode="bilinear", align_corners=False
        )[0]
        torch.testing.assert_close(read.sums.mean(row, kind), (coarse + large) / 2)


def test_the_first_part_of_a_prompt_stands_for_it() -> None:
    unet = describe(diffusers_unet("sd1"))
    parts = [(0, "cond", 0), (1, "cond", 0), (0, "cond", 1), (1, "cond", 1)]
    parts += [(0, "uncond", 0), (1, "uncond", 0)]
    with reading(unet, rows=[(image, "cond") for image in range(6)], blocks=("M00",)) as whole:
        call(unet.module, 6)
    with reading(unet, rows=parts, blocks=("M00",)) as read:
        call(unet.module, 6)
    assert read.seen.keys() == {tag for tag in whole.seen if tag.image < 2}
    assert all(torch.equal(tensor, whole.seen[tag]) for tag, tensor in read.seen.items())
    assert read.sums.images == [0, 1]
    row = BatchRow(0, "cond")
    assert torch.equal(read.sums.mean(row, "word"), whole.sums.mean(row, "word"))


def test_a_call_that_broke_off_is_not_paired_with_the_next() -> None:
    unet = describe(diffusers_unet("sd1"))
    attention = unet.block("M00").layers[0].cross_attention
    with reading(unet, frozenset({"qk"}), blocks=("M00",)) as read:

        def fail(*_: Any) -> None:
            raise ZeroDivisionError

        handle = attention.to_q.register_forward_pre_hook(fail)
        attention.to_k(torch.zeros(2 * IMAGES, 7, CONTEXT))  # as an attention that begins with the keys
        with pytest.raises(ZeroDivisionError):
            call(unet.module)
        handle.remove()
        attention.to_k(torch.zeros(2 * IMAGES, 7, CONTEXT))
        call(unet.module)
    with reading(unet, frozenset({"qk"}), blocks=("M00",)) as expected:
        call(unet.module)
    for tag, tensor in read.seen.items():
        assert torch.equal(tensor, expected.seen[tag])
    assert len(read.seen) == IMAGES


def test_fused_projections_are_refused_with_the_call_that_undoes_it() -> None:
    module = diffusers_unet("sd1")
    module.fuse_qkv_projections()
    for kinds in ({"qk"}, {"self"}, {"vqk"}):
        with (
            pytest.raises(UnsupportedModelError, match=r"unfuse_qkv_projections\(\)"),
            reading(describe(module), frozenset(kinds)),
        ):
            pass
    assert hook_count(module) == 0
    module.unfuse_qkv_projections()
    with reading(describe(module), frozenset({"qk"})) as read:
        call(module)
    assert read.seen


def test_merged_tokens_stop_self_attention_alone() -> None:
    module = diffusers_unet("sd1")
    unet = describe(module)
    attention = unet.block("IN01").layers[0].self_attention
    whole = attention.processor

    class Merging:
        """Attend with every second position, and give each result to two."""

        def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return whole(attn, hidden_states[:, ::2], *args, **kwargs).repeat_interleave(2, dim=1)

    attention.set_processor(Merging())
    with reading(unet, frozenset({"qk", "self"}), blocks=("IN01", "M00")) as read:
        call(module)
    (problem,) = read.problems
    assert "192 queries" in str(problem)
    assert "token merging" in str(problem)
    assert {tag.kind for tag in read.seen} == {"qk"}


def test_a_map_that_would_take_too_much_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probabilities, "LARGEST", 1 << 20)
    unet = describe(diffusers_unet("sd1"))
    with reading(unet, frozenset({"self", "word"}), blocks=("IN01",), lattice=16) as read:
        call(unet.module, 2 * IMAGES, 16, 24)
    (problem,) = read.problems
    assert "3 MiB, more than the limit of 1 MiB" in str(problem)
    assert read.sums.images == list(range(IMAGES))


def test_slices_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = describe(diffusers_unet("sd1"))
    with reading(unet, blocks=("IN01",)) as whole:
        call(unet.module)
    monkeypatch.setattr(probabilities, "CPU_SLICE", 10_000)
    with reading(unet, blocks=("IN01",)) as sliced:
        call(unet.module)
    for tag, tensor in whole.seen.items():
        torch.testing.assert_close(sliced.seen[tag], tensor, rtol=1e-5, atol=1e-7)
    row = BatchRow(0, "cond")
    torch.testing.assert_close(
        sliced.sums.mean(row, "word"), whole.sums.mean(row, "word"), rtol=1e-5, atol=1e-7
    )


def test_layers_that_are_never_reached_are_named(unet: Model) -> None:
    class Other(nn.Module):
        def __init__(self, inner: UNet2DConditionModel) -> None:
            super().__init__()
            self.conv_in, self.mid_block = inner.conv_in, inner.mid_block
            self.down_blocks, self.up_blocks = inner.down_blocks, inner.up_blocks

        def forward(self, latents: Tensor) -> Tensor:
            return latents

    other = describe(Other(unet.module))
    block = next(block.name for block in other.blocks if block.layers)
    with reading(other, frozenset({"qk", "self"}), blocks=(block,)) as read:
        other.module(torch.zeros(1))
    assert len(read.problems) == 2
    assert all(f"the attention layers of {block}" in str(problem) for problem in read.problems)


def test_blocks_without_attention_give_nothing() -> None:
    unet = describe(diffusers_unet("sd1"))
    with reading(unet, blocks=("IN00", "OUT00")) as read:
        call(unet.module)
    assert not read.seen
    assert not read.problems


# --- layers that another extension runs in parts ---

HALF = 4  # rows of the prompts, and of the negative prompts


def run_in_parts(attention: nn.Module, parts: Sequence[tuple[slice, slice, Tensor | None]]) -> None:
    """Make a layer of ldm's run in parts: for groups of rows and tokens, some with more tokens at the end."""
    whole = type(attention).forward

    def forward(x: Tensor, context: Tensor, mask: None = None) -> Tensor:
        out = torch.zeros_like(x)
        for rows, tokens, more in parts:
            text = context[rows, tokens]
            if more is not None:
                text = torch.cat([text, more.expand(len(text), -1, -1)], 1)
            out[rows] += whole(attention, x[rows], text)
        return out

    attention.forward = forward  # type: ignore[method-assign]


@pytest.mark.parametrize("kind", ["k", "qk", "vqk"])
def test_a_layer_that_is_run_for_each_prompt_by_itself_is_read(kind: str) -> None:
    """Parts as in NegPiP, which may also take the negative prompts first."""
    unet = describe(twins("sd1")[0])
    with reading(unet, frozenset({kind, "word"}), ROWS_FIRST, blocks=("IN01",)) as usual:
        call_ldm(unet.module)
    tokens = slice(None)
    run_in_parts(layer_of(unet), [(slice(HALF, None), tokens, None), (slice(HALF), tokens, None)])
    with reading(unet, frozenset({kind, "word"}), ROWS_FIRST, blocks=("IN01",)) as split:
        call_ldm(unet.module)
    assert split.problems == []
    assert usual.seen.keys() == split.seen.keys()
    for tag, tensor in usual.seen.items():
        torch.testing.assert_close(split.seen[tag], tensor)
    for image in range(HALF):
        row = BatchRow(image, "cond")
        torch.testing.assert_close(split.sums.mean(row, "word"), usual.sums.mean(row, "word"))


def test_tokens_that_another_extension_adds_take_their_share_and_have_no_column() -> None:
    unet = describe(twins("sd1")[0])
    with reading(unet, frozenset({"qk"}), ROWS_FIRST, blocks=("IN01",)) as usual:
        call_ldm(unet.module)
    more = torch.randn(1, 2, CONTEXT, generator=torch.Generator().manual_seed(3))
    tokens = slice(None)
    run_in_parts(layer_of(unet), [(slice(HALF), tokens, more), (slice(HALF, None), tokens, None)])
    with reading(unet, frozenset({"qk"}), ROWS_FIRST, blocks=("IN01",)) as added:
        call_ldm(unet.module)
    assert added.problems == []
    for tag, maps in usual.seen.items():
        shares = added.seen[tag].sum(1, keepdim=True)
        assert (shares < 1).all()
        torch.testing.assert_close(added.seen[tag] / shares, maps)


def test_regions_that_read_parts_of_the_text_are_put_together() -> None:
    """Parts as in Regional Prompter: each region's softmax is over its own tokens."""
    unet = describe(twins("sd1")[0])
    with reading(unet, frozenset({"qk"}), ROWS_FIRST, blocks=("IN01",)) as usual:
        call_ldm(unet.module)
    ends = ((0, 4), (4, 7))
    parts = [(slice(None), slice(*end), None) for end in ends]
    run_in_parts(layer_of(unet), parts)
    with reading(unet, frozenset({"qk", "vqk"}), ROWS_FIRST, blocks=("IN01",)) as split:
        call_ldm(unet.module)
    assert "each region read only part of the text" in str(split.problems[0])
    with reading(unet, frozenset({"qk"}), ROWS_FIRST, blocks=("IN01",)) as split:
        call_ldm(unet.module)
    assert split.problems == []
    for tag, maps in usual.seen.items():
        for start, end in ends:
            part = maps[:, start:end]
            torch.testing.assert_close(split.seen[tag][:, start:end], part / part.sum(1, keepdim=True))


def test_parts_of_equal_texts_are_refused() -> None:
    unet = describe(twins("sd1")[0])
    tokens = slice(None)
    run_in_parts(layer_of(unet), [(slice(HALF, None), tokens, None), (slice(HALF), tokens, None)])
    with reading(unet, frozenset({"qk"}), ROWS_FIRST, blocks=("IN01",)) as split:
        call_ldm(unet.module, same=True)
    assert split.seen == {}
    assert "have the same text" in str(split.problems[0])


ROWS_FIRST = [(image, branch) for branch in ("cond", "uncond") for image in range(HALF)]


def layer_of(unet: Model) -> nn.Module:
    return unet.block("IN01").layers[0].cross_attention


def call_ldm(module: nn.Module, *, same: bool = False) -> None:
    latents, time, context = unet_inputs(2 * HALF)
    if same:
        context = context[:1].expand(2 * HALF, -1, -1)
    with torch.no_grad():
        module(latents, time, context)
