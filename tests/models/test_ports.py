"""Ports support what no U-Net has: separate and joined streams, text outputs, maps that are rows of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import DumpUNetError, UnsupportedModelError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.interventions import Intervention, Stage
from lib_dumpunet.hooks.reading import Report
from lib_dumpunet.hooks.shapes import measure_blocks
from lib_dumpunet.hooks.steer import Steering, steer
from lib_dumpunet.hooks.streams import CallStreams
from lib_dumpunet.models.describe import ADAPTERS, describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.models.ports import OutputPort, Streams, Tokens
from lib_dumpunet.plan import AttentionRequest, CaptureRequest, Plan
from lib_dumpunet.ports import BatchRow, Clock
from lib_dumpunet.prompt.template import Share
from lib_dumpunet.session import watching
from tests.models.two_stream import ADAPTER, CHANNELS, HEADS, WIDTH, TwoStream
from tests.unets import FakeClock, hook_count

HEIGHT, LENGTH, TOKENS = 3, 5, 4
NAMES = ("D00", "D01", "S00", "S01")


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib_dumpunet.models.describe.ADAPTERS", [*ADAPTERS, ADAPTER])


@pytest.fixture
def model() -> Model:
    return describe(TwoStream())


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, CHANNELS, 2 * HEIGHT, 2 * LENGTH, generator=generator)
    return latents, torch.randn(2, TOKENS, WIDTH, generator=generator)


def as_map(tokens: Tensor) -> Tensor:
    """Lay out "token c" row by row, as "c h w"."""
    return torch.stack([tokens[row * LENGTH : (row + 1) * LENGTH] for row in range(HEIGHT)]).permute(2, 0, 1)


@dataclass
class Seen:
    """The inputs and outputs of one call of each block."""

    text: dict[str, Tensor]
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    after_text: dict[str, Tensor]
    attended: dict[str, Tensor]


def run(model: Model, plan: Plan | None = None, *changes: Intervention) -> tuple[dict[Tag, Tensor], Seen]:
    """Call the model once, with the project's hooks and, after them, plain ones that know this model."""
    captured: dict[Tag, Tensor] = {}
    problems: list[DumpUNetError] = []
    seen = Seen({}, {}, {}, {}, {})

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            text, image = (kwargs["text"], kwargs["image"]) if kwargs else args[0].split([TOKENS, 15], 1)
            new_text, new = output if kwargs else output.split([TOKENS, 15], 1)
            seen.text[name], seen.before[name] = text, image
            seen.after_text[name], seen.after[name] = new_text, new

        return hook

    def keep(capture: Capture) -> None:
        capture.ready()
        captured[capture.tag] = capture.tensor

    def attend(name: str) -> Any:
        return lambda _module, args: seen.attended.__setitem__(name, args[0][:, TOKENS:])

    with torch.no_grad(), watching(model, plan or Plan(), FakeClock(), keep, problems.append, None, changes):
        blocks = dict(zip(NAMES, (*model.module.apart, *model.module.together), strict=True))
        handles = [b.register_forward_hook(note(n), with_kwargs=True) for n, b in blocks.items()]
        handles += [b.attention.to_out[0].register_forward_pre_hook(attend(n)) for n, b in blocks.items()]
        model.module(*inputs())
        for handle in handles:
            handle.remove()
    assert problems == []
    assert hook_count(model.module) == 0
    return captured, seen


def test_blocks_are_named_measured_and_take_their_text(model: Model) -> None:
    assert model.order.names == NAMES
    assert model.attending == NAMES
    with torch.no_grad():
        rows = measure_blocks(model, lambda: model.module(*inputs()))
    shape = (WIDTH, HEIGHT, LENGTH)
    assert [(r.block, r.kind, r.input, r.output, r.heads) for r in rows] == [
        (name, "attn", shape, shape, (HEADS,)) for name in NAMES
    ]


def test_features_are_the_image_and_never_the_text(model: Model) -> None:
    captured, seen = run(model, Plan(features=CaptureRequest(NAMES, {1})))
    assert len(captured) == 2 * len(NAMES)
    for tag, tensor in captured.items():
        assert torch.equal(tensor, as_map(seen.after[tag.block][tag.image]))


def test_updates_are_what_a_block_adds_to_the_image(model: Model) -> None:
    captured, seen = run(model, Plan(attention=AttentionRequest(NAMES, {1}, frozenset({"update"}))))
    assert len(captured) == 2 * len(NAMES)
    for tag, tensor in captured.items():
        added = seen.after[tag.block] - seen.before[tag.block]
        torch.testing.assert_close(tensor, as_map(added[tag.image]), rtol=0, atol=1e-6)


def probabilities(model: Model, seen: Seen, name: str, image: int) -> Tensor:
    """Compute joint attention by its formula: "head query key"."""
    attention = model.block(name).layers[0].cross_attention
    joined = torch.cat([seen.text[name], seen.before[name]], 1)[image]
    with torch.no_grad():
        q, k = (
            layer(joined).unflatten(-1, (HEADS, -1)).transpose(0, 1)
            for layer in (attention.to_q, attention.to_k)
        )
    return (q @ k.mT / (WIDTH // HEADS) ** 0.5).softmax(-1)


def test_joint_attention_is_shared_between_text_and_image(model: Model) -> None:
    kinds = frozenset({"qk", "k", "vqk", "self"})
    request = AttentionRequest(NAMES, {1}, kinds, lattice=1)
    captured, seen = run(model, Plan(attention=request))
    assert len(captured) == 2 * len(NAMES) * len(kinds)
    for name in NAMES:
        for image in (0, 1):
            expected = probabilities(model, seen, name, image)[:, TOKENS:]
            qk, keys, vqk, lattice = (
                captured[Tag(image, 1, name, kind)] for kind in ("qk", "k", "vqk", "self")
            )
            to_text = expected[:, :, :TOKENS].transpose(1, 2)
            torch.testing.assert_close(qk.flatten(2), to_text, rtol=0, atol=1e-6)
            assert keys.shape == (HEADS, TOKENS, WIDTH // HEADS)
            torch.testing.assert_close(vqk, as_map(seen.attended[name][image]), rtol=0, atol=0)
            middle = (HEIGHT // 2) * LENGTH + LENGTH // 2
            looks = lattice[:, 0, 0].flatten(1)
            torch.testing.assert_close(looks, expected[:, middle, TOKENS:], rtol=0, atol=1e-6)
            total = looks.sum(-1) + qk.flatten(2)[:, :, middle].sum(-1)
            torch.testing.assert_close(total, torch.ones(HEADS))


def test_words_and_points_are_read_of_joint_attention(model: Model) -> None:
    request = AttentionRequest(
        NAMES, {1}, frozenset({"word", "point"}), branches=("cond",), points=((0.5, 0.5),)
    )
    problems: list[DumpUNetError] = []
    with (
        torch.no_grad(),
        watching(model, Plan(attention=request), FakeClock(), lambda _: None, problems.append) as sums,
    ):
        model.module(*inputs())
    assert problems == []
    _, seen = run(model)
    row = FakeClock().now().rows[1]
    expected = torch.stack([probabilities(model, seen, name, 1)[:, TOKENS:].mean(0) for name in NAMES]).mean(
        0
    )
    (words,) = sums.sums(row, "word")
    torch.testing.assert_close((words.total / words.count).flatten(1), expected[:, :TOKENS].T)
    middle = (HEIGHT // 2) * LENGTH + LENGTH // 2
    points = sums.mean(row, "point")
    assert points is not None
    torch.testing.assert_close(points[0].flatten(), expected[middle, TOKENS:])


@dataclass(frozen=True)
class Scale:
    """Multiply a block's image output."""

    block: str
    stage: Stage = "edit"

    @contextmanager
    def put_on(self, model: Model, clock: Clock, report: Report) -> Iterator[None]:
        streams = CallStreams(model)
        with HookSet() as hooks:
            streams.install(hooks)
            streams.change(hooks, model.block(self.block).output, lambda image: 2 * image)
            yield


@pytest.mark.parametrize("name", ["D00", "S00"])
def test_an_edit_changes_the_image_and_leaves_the_text(model: Model, name: str) -> None:
    _, plain = run(model)
    captured, edited = run(model, Plan(features=CaptureRequest((name,), {1})), Scale(name))
    assert torch.equal(captured[Tag(1, 1, name)], as_map(2 * plain.after[name][1]))
    assert torch.equal(edited.after_text[name], plain.after_text[name])
    after = NAMES[NAMES.index(name) + 1]
    assert not torch.equal(edited.after[after], plain.after[after])


class FirstImagesText:
    """Give D01 its own text in the first image; prompts can name only blocks of U-Nets."""

    steered = frozenset({"D01"})

    def own(self, row: BatchRow, block: str, step: int) -> tuple[Share, ...] | None:
        return None if row.image else (Share("own", 1.0),)


def test_a_block_is_given_a_text_of_its_own(model: Model) -> None:
    own = torch.full((TOKENS, WIDTH), 0.5)
    steering = Steering(FirstImagesText(), lambda *_: own, lambda context, _tokens: context)
    problems: list[DumpUNetError] = []
    read: list[Tensor] = []
    with torch.no_grad(), steer(model, steering, FakeClock(), problems.append), HookSet() as hooks:
        hooks.before(model.block("D01").texts[0].module, lambda args, kwargs: read.append(kwargs["text"]))
        model.module(*inputs())
    assert problems == []
    assert torch.equal(read[0][0], own)
    assert not torch.equal(read[0][1], own)


@pytest.mark.parametrize("layout", [Tokens(), Tokens(index=0), Tokens(index=7)])
def test_an_adapter_that_is_wrong_is_found_out(model: Model, layout: Tokens) -> None:
    block = model.block("D01")
    wrong = replace(block, output=OutputPort(block.output.module, layout))
    blocks = tuple(wrong if each is block else each for each in model.blocks)
    with (
        torch.no_grad(),
        pytest.raises(UnsupportedModelError, match="output of block D01 of this TwoStream"),
    ):
        measure_blocks(replace(model, blocks=blocks), lambda: model.module(*inputs()))


def test_a_port_that_is_never_reached_is_found_out(model: Model) -> None:
    block = model.block("S01")
    blocks = (*model.blocks[:-1], replace(block, output=OutputPort(nn.Identity(), block.output.layout)))
    with torch.no_grad(), pytest.raises(UnsupportedModelError, match="output of block S01"):
        measure_blocks(replace(model, blocks=blocks), lambda: model.module(*inputs()))


@pytest.mark.parametrize("first", ["text", "image"])
@pytest.mark.parametrize("index", [None, 0, 1])
@pytest.mark.parametrize("joined", [False, True])
def test_what_is_written_is_read_back_and_the_rest_stays(first: Any, index: int | None, joined: bool) -> None:
    streams = Streams(HEIGHT, LENGTH, TOKENS, first)
    count = HEIGHT * LENGTH + TOKENS * joined
    values: Sequence[Tensor] = [torch.randn(2, count, WIDTH) for _ in range(2)]
    value = values[0] if index is None else tuple(values)
    layout, image = Tokens(index, joined), torch.randn(2, WIDTH, HEIGHT, LENGTH)
    written = layout.write(value, image, streams)
    assert torch.equal(layout.read(written, streams), image)
    if joined:
        old, new = ((x if index is None else x[index])[:, streams.text_tokens] for x in (value, written))
        assert torch.equal(old, new)
    if index is not None:
        assert written[1 - index] is value[1 - index]
