"""Forge and its successors: whose the rows of their U-Net calls are, and texts of unequal length."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib_dumpunet.models.describe import describe
from tests.hosts.webui import standin
from tests.hosts.webui.conftest import Lab
from tests.hosts.webui.test_jobs import PER_BLOCK, Contexts, captions, features, pixels, text
from tests.unets import CONTEXT

pytestmark = pytest.mark.parametrize("family", ["forge"], indirect=True)

LONG = "eleven letters and more"  # more chunks than the other texts
STEERED = "a (~: IN01: b ; OUT09: c :~)"


def qk(folder: Path) -> dict[str, Any]:
    return {"attention": {"kinds": ["qk"], "layers": "IN01,M00", "steps": "1", "dump": {"path": str(folder)}}}


def tensors(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {file.name: np.load(file) for file in folder.glob("*.npy")}


def repeated(context: Tensor, tokens: int) -> Tensor:
    return context.repeat(tokens // len(context), 1)


def test_texts_of_unequal_length_are_repeated_whole(lab: Lab, unet: Any) -> None:
    """Each block gets what the webui would give it if its texts were the prompts."""
    with Contexts(unet) as contexts:
        lab.run(
            PER_BLOCK,
            prompt=[f"a (~: IN01: {LONG} ; M00: b :~)", "zz (~: M00: y :~)"],
            batch_size=2,
            negative_prompt="eight ch",
            steps=1,
        )
    (call,) = contexts.seen
    negative = text("eight ch")
    prompts = {
        "IN01": (text(f"a  {LONG} "), text("zz ")),
        "M00": (text("a  b "), text("zz  y ")),
        "OUT09": (text("a "), text("zz ")),
    }
    for block, both in prompts.items():
        cond = standin.stack([*both])
        tokens = math.lcm(cond.shape[1], len(negative))
        wanted = torch.stack([repeated(row, tokens) for row in (negative, negative, *cond)])
        assert torch.equal(call[block], wanted), block


@pytest.mark.parametrize("negative", [LONG, "eight ch"])
def test_attention_to_a_token_is_that_to_all_its_copies(lab: Lab, tmp_path: Path, negative: str) -> None:
    lab.run(qk(tmp_path / "short"), prompt="cat", negative_prompt="b", steps=1)
    lab.run(qk(tmp_path / "long"), prompt="cat", negative_prompt=negative, steps=1)
    short, long = tensors(tmp_path / "short"), tensors(tmp_path / "long")
    assert len(short) == 2
    assert all(maps.shape[1] == standin.CHUNK for maps in short.values())
    for name, maps in short.items():
        np.testing.assert_allclose(long[name], maps, rtol=1e-4, atol=1e-6)


def test_words_of_steered_blocks_have_a_column_for_each_token(lab: Lab, tmp_path: Path) -> None:
    settings = {**qk(tmp_path / "d"), **PER_BLOCK}
    lab.run(settings, prompt=f"a(~: IN01: {LONG} :~)", negative_prompt="eight ch", steps=1)
    found = tensors(tmp_path / "d")
    lengths = {name[4:-7]: maps.shape[1] for name, maps in found.items() if name.endswith("-qk.npy")}
    chunk = standin.CHUNK
    assert lengths == {"IN01-001": chunk * -(-len(f"a {LONG} ") // chunk), "M00-001": chunk}


def test_parts_are_told_apart_by_their_texts(lab: Lab, unet: Any) -> None:
    with Contexts(unet) as contexts:
        lab.run(PER_BLOCK, prompt=" a(~:M00:b:~) AND d AND a(~:M00:c:~) ", steps=1)
    (call,) = contexts.seen
    # The first and the last part have the same main text.
    assert torch.equal(call["M00"], torch.stack([text(said) for said in ("", " ac ", " d ", " ab ")]))


def call_by(monkeypatch: pytest.MonkeyPatch, call: Callable[..., Tensor]) -> None:
    """Let an extension call the model, as guidance methods do."""
    whole = standin.KModel.apply_model

    def apply_model(model: Any, x: Tensor, context: Tensor, kinds: list[int]) -> Tensor:
        return call(lambda *given: whole(model, *given), x, context, kinds)

    monkeypatch.setattr(standin.KModel, "apply_model", apply_model)


def before(run: Callable[..., Tensor], x: Tensor, context: Tensor, kinds: list[int]) -> Tensor:
    """Evaluate a reference with the prompt's text first."""
    run(x[:1] + 1, context[-1:], [0])
    return run(x, context, kinds)


def after(run: Callable[..., Tensor], x: Tensor, context: Tensor, kinds: list[int]) -> Tensor:
    """Evaluate a degraded image with the negative prompt's text afterwards, and call that the prompt."""
    out = run(x, context, kinds)
    run(x[:1] * 0.3 + x.mean(), context[:1], [0])
    return out


@pytest.mark.parametrize("call", [before, after])
def test_calls_beside_the_image_are_steered_and_not_captured(
    lab: Lab, unet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Tensor]
) -> None:
    def run(folder: str) -> dict[str, Any]:
        lab.run(features("M00", dump={"path": str(tmp_path / folder)}), prompt="cat", negative_prompt="b")
        return tensors(tmp_path / folder)

    expected = run("alone")
    call_by(monkeypatch, call)
    found = run("beside")
    assert len(expected) == 3
    assert all(np.array_equal(found[name], tensor) for name, tensor in expected.items())
    with Contexts(unet) as contexts:
        lab.run(PER_BLOCK, prompt="a(~: M00: b :~)", negative_prompt="n(~: M00: o :~)", steps=1)
    own, beside = contexts.seen[::-1] if call is before else contexts.seen
    assert torch.equal(own["M00"], torch.stack([text("n o "), text("a b ")]))
    assert torch.equal(beside["M00"][0], text("a b ") if call is before else text("n o "))


def changed(run: Callable[..., Tensor], x: Tensor, context: Tensor, kinds: list[int]) -> Tensor:
    """Give the prompt a text that the webui does not tell of."""
    return run(x, context + 1, kinds)


def unnamed(run: Callable[..., Tensor], x: Tensor, context: Tensor, kinds: list[int]) -> Tensor:
    """Do not say what the chunks are."""
    return run(x, context, [])


@pytest.mark.parametrize("call", [changed, unnamed])
def test_rows_that_cannot_be_known_end_a_job_that_needs_them(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Tensor]
) -> None:
    call_by(monkeypatch, call)
    seen = lab.run(features("M00"), prompt="cat")
    assert captions(seen) == []
    assert "it is not known which images the 2 rows of the U-Net's batch belong to" in seen.comments
    refused = lab.choose(PER_BLOCK, prompt="a(~: M00: b :~)")
    assert refused.images == []
    assert "it is not known which images" in refused.comments


def test_without_guidance_there_is_no_negative_prompt(lab: Lab) -> None:
    lab.shared.opts.skip_uncond_from = 0
    plain = lab.run(prompt="a b")
    seen = lab.run({**features("M00"), **PER_BLOCK}, prompt="(~:_:a b:~)", negative_prompt="n(~: M00: o :~)")
    assert pixels(seen) == pixels(plain)
    assert captions(seen) == ["M00, 1", "M00, 2", "M00, 3"]


def test_clip_skip_is_set_before_texts_are_encoded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[int] = []
    lab.shared.sd_model.set_clip_skip = said.append
    monkeypatch.setattr(lab.shared.opts, "CLIP_stop_at_last_layers", 2, raising=False)
    lab.run(PER_BLOCK, prompt=STEERED, steps=1)
    assert set(said) == {2}


class Flux(nn.Module):
    """A model without a U-Net."""


def test_a_model_without_a_unet_is_refused_before_sampling(lab: Lab) -> None:
    lab.shared.sd_model = standin.forge_model(Flux(), CONTEXT)
    processed = lab.choose(features("M00"), prompt="a")
    assert processed.images == []
    assert "Flux is not a U-Net of Stable Diffusion 1.x, 2.x or XL" in processed.comments


def test_before_the_first_job_the_panel_knows_no_model(lab: Lab) -> None:
    from lib_dumpunet.hosts.webui import compat
    from lib_dumpunet.hosts.webui.blocks import blocks_of_model, sd1_table

    compat.sd_models.model_data.sd_model = SimpleNamespace()
    assert blocks_of_model(64, 64) == sd1_table(64, 64)


def test_all_blocks_have_their_hooks(lab: Lab, unet: Any) -> None:
    blocks = [block.name for block in describe(unet).blocks]
    assert captions(lab.run(features(",".join(blocks), "1"))) == [f"{block}, 1" for block in blocks]
