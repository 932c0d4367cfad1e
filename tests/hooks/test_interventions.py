"""Texts come first, then edits, and captures show both, in whatever order they were added."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lib_dumpunet.captures import Capture
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.hooks.hookset import HookSet
from lib_dumpunet.hooks.interventions import Intervention, Stage, TextPerBlock
from lib_dumpunet.hooks.reading import Report
from lib_dumpunet.hooks.streams import CallStreams
from lib_dumpunet.models.describe import describe
from lib_dumpunet.models.model import Model
from lib_dumpunet.plan import CaptureRequest, Plan
from lib_dumpunet.ports import Clock
from lib_dumpunet.session import watching
from tests.hooks.test_steer import call, steering
from tests.unets import FakeClock, diffusers_unet, hook_count, ldm_unet

BLOCKS = ("M00", "OUT00")


@dataclass(frozen=True)
class Scale:
    """Multiply a block's output: an edit made by hand."""

    block: str
    factor: float
    stage: Stage = "edit"

    @contextmanager
    def put_on(self, model: Model, clock: Clock, report: Report) -> Iterator[None]:
        with HookSet() as hooks:
            CallStreams(model).change(hooks, model.block(self.block).output, self.edit)
            yield

    def edit(self, image: Tensor) -> Tensor:
        return image * self.factor


@pytest.fixture(scope="module", params=["ldm", "diffusers"])
def unet(request: pytest.FixtureRequest) -> Model:
    return describe(ldm_unet("sd1") if request.param == "ldm" else diffusers_unet("sd1"))


def captured(unet: Model, *interventions: Intervention) -> dict[str, Tensor]:
    """Run the U-Net once, and return the captures of its blocks."""
    seen: dict[str, Tensor] = {}
    problems: list[DumpUNetError] = []

    def keep(capture: Capture) -> None:
        seen[capture.tag.block] = capture.tensor

    plan = Plan(features=CaptureRequest(BLOCKS, {1}))
    clock = FakeClock(1, [(0, "cond")])
    with watching(unet, plan, clock, keep, problems.append, interventions=interventions):
        call(unet, 1)
    assert problems == []
    assert hook_count(unet.module) == 0
    return seen


def test_what_is_captured_is_edited_and_what_is_edited_reads_its_own_text(unet: Model) -> None:
    text = TextPerBlock(steering(unet, ["(~: M00: 3 :~)"], []))
    plain, steered, scaled = captured(unet), captured(unet, text), captured(unet, Scale("M00", 2.0))
    assert not torch.equal(steered["M00"], plain["M00"])
    assert torch.equal(scaled["M00"], 2 * plain["M00"])
    assert not torch.equal(scaled["OUT00"], plain["OUT00"])  # the rest of the U-Net works on the edit

    both = captured(unet, text, Scale("M00", 2.0))
    assert torch.equal(both["M00"], 2 * steered["M00"])
    turned = captured(unet, Scale("M00", 2.0), text)
    assert all(torch.equal(turned[block], both[block]) for block in BLOCKS)
    assert all(torch.equal(tensor, plain[block]) for block, tensor in captured(unet).items())


def test_edits_follow_each_other_as_they_are_given(unet: Model) -> None:
    class Shift(Scale):
        def edit(self, image: Tensor) -> Tensor:
            return image + self.factor

    plain = captured(unet)["M00"]
    assert torch.equal(captured(unet, Scale("M00", 2.0), Shift("M00", 1.0))["M00"], plain * 2 + 1)
    assert torch.equal(captured(unet, Shift("M00", 1.0), Scale("M00", 2.0))["M00"], (plain + 1) * 2)
