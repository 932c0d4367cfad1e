"""Principal components: the right ones, one basis for a run, waiting on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import HostError
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.components import ComponentsSink
from lib_dumpunet.sinks.queue import Fanout


class Keep(Sink):
    """A sink that keeps its captures."""

    def __init__(self) -> None:
        self.seen: dict[Tag, Tensor] = {}

    def accept(self, capture: Capture) -> None:
        if capture.tag.kind == "pca":
            self.seen[capture.tag] = capture.tensor

    def close(self) -> None:
        pass


def gazes(steps: int = 3, shape: tuple[int, int] = (6, 9), images: int = 1) -> list[Capture]:
    noise = torch.Generator().manual_seed(0)
    return [
        Capture(
            Tag(image, step, "IN07", "pooled_self"),
            torch.randn(*shape, 4, 5, generator=noise)
            .div(0.7 + 0.1 * step)
            .flatten(2)
            .softmax(-1)
            .unflatten(2, (4, 5)),
        )
        for step in range(1, steps + 1)
        for image in range(images)
    ]


def run(captures: list[Capture]) -> dict[Tag, Tensor]:
    keep = Keep()
    with Fanout([ComponentsSink(), keep]) as fanout:
        for capture in captures:
            fanout.put(capture)
    assert fanout.problems == []
    return keep.seen


def test_components_are_those_of_all_maps_together() -> None:
    captures = gazes()
    seen = run(captures)
    places = torch.cat([c.tensor.reshape(-1, 20) for c in captures]).double()
    centred = places - places.mean(0)
    _, values, vectors = torch.linalg.svd(centred, full_matrices=False)
    scores = centred @ vectors[:3].T / (values[:3] / len(places) ** 0.5)
    for number, capture in enumerate(captures):
        tag = Tag(0, capture.tag.step, "IN07", "pca")
        expected = scores[54 * number : 54 * number + 54].T.unflatten(1, (6, 9))
        signs = torch.sign((seen[tag].double() * expected).sum((1, 2), keepdim=True))
        torch.testing.assert_close(seen[tag].double(), expected * signs, rtol=1e-4, atol=1e-4)


def test_one_basis_serves_all_steps_images_and_sizes() -> None:
    (first, *_), others = gazes(1), gazes(4, (3, 4), images=2)
    same = [Capture(Tag(0, step, "IN07", "pooled_self"), first.tensor) for step in (7, 8)]
    seen = run([*others, *same])
    assert torch.equal(seen[Tag(0, 7, "IN07", "pca")], seen[Tag(0, 8, "IN07", "pca")])
    assert seen[Tag(1, 1, "IN07", "pca")].shape == (3, 3, 4)
    everything = torch.cat([maps.flatten(1) for maps in seen.values()], dim=1)
    torch.testing.assert_close(everything.mean(1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(everything.square().mean(1), torch.ones(3), rtol=1e-4, atol=1e-5)


def test_passes_share_the_basis_and_are_told_apart() -> None:
    first, second = gazes(1), gazes(1, (12, 18))
    second = [Capture(replace(c.tag, hires=True), c.tensor) for c in second]
    seen = run([*first, *second])
    shapes = {tag: tuple(maps.shape) for tag, maps in seen.items()}
    assert shapes == {
        Tag(0, 1, "IN07", "pca"): (3, 6, 9),
        Tag(0, 1, "IN07", "pca", hires=True): (3, 12, 18),
    }
    everything = torch.cat([maps.flatten(1) for maps in seen.values()], dim=1)
    torch.testing.assert_close(everything.mean(1), torch.zeros(3), rtol=0, atol=1e-5)


def test_layers_have_bases_of_their_own_and_a_run_gives_the_same_again() -> None:
    captures = gazes(2)
    other = [
        Capture(Tag(0, c.tag.step, "IN07", "pooled_self", 1), c.tensor.roll(1, 3) ** 2) for c in captures
    ]
    both, alone = run([*captures, *other]), run(captures)
    assert len(both) == 4
    for tag, maps in alone.items():
        assert torch.equal(both[tag], maps)


@pytest.mark.parametrize("parts", [(1, 1), (1, 2)])
def test_fewer_parts_than_components_and_no_variance(parts: tuple[int, int]) -> None:
    flat = torch.full((2, 2, *parts), 1 / (parts[0] * parts[1]))
    (maps,) = run([Capture(Tag(0, 1, "M00", "pooled_self"), flat)]).values()
    assert torch.equal(maps, torch.zeros(3, 2, 2))


def test_other_captures_are_not_touched() -> None:
    assert run([Capture(Tag(0, 1, "M00"), torch.ones(2, 3, 3))]) == {}


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"could not be stored in .*nowhere"):
        ComponentsSink(str(tmp_path / "nowhere"))


class Broken(Keep):
    """A sink that ignores its captures."""

    def accept(self, capture: Capture) -> None:
        raise HostError("no room")


def test_a_sink_that_fails_costs_no_other_sink_a_component() -> None:
    first, last, broken = Keep(), Keep(), Broken()
    with Fanout([ComponentsSink(), first, broken, last]) as fanout:
        for capture in gazes():
            fanout.put(capture)
    assert len(first.seen) == len(last.seen) == 3
    (problem,) = fanout.problems
    assert str(problem) == "no room."


def test_sizes_of_different_parts_have_bases_of_their_own() -> None:
    small, large = gazes(1), gazes(1)
    large = [Capture(Tag(1, 1, "IN07", "pooled_self"), c.tensor.repeat(1, 1, 1, 2) / 2) for c in large]
    seen = run([*small, *large])
    assert len(seen) == 2
    assert all(maps.isfinite().all() for maps in seen.values())


def test_maps_without_numbers_end_in_a_sentence_and_the_others_are_drawn() -> None:
    one, two = gazes(steps=2)
    broken = replace(two, tensor=two.tensor.clone().fill_(float("nan")))
    keep = Keep()
    with Fanout([ComponentsSink(), keep], threads=1) as fanout:
        fanout.put(one)
        fanout.put(broken)
    (problem,) = fanout.problems
    assert "self-attention of IN07 contains NaN or infinity at step 2" in str(problem)
    assert "bf16 or fp32" in str(problem)
    assert [tag.step for tag in keep.seen] == [1]
