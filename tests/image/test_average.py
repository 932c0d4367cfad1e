"""The averages equal their definition in float64, also where 16 bits would overflow."""

from __future__ import annotations

import pytest
import torch

from lib_dumpunet.image.average import average

DEFINITIONS = {
    "sum": lambda v: v.sum(0) / len(v),
    "1-norm": lambda v: v.abs().sum(0) / len(v),
    "2-norm": (lambda v: (v * v).sum(0).sqrt() / len(v)),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", DEFINITIONS)
def test_definition(kind: str, dtype: torch.dtype) -> None:
    tensor = (torch.randn(64, 5, 7, generator=torch.Generator().manual_seed(2)) * 20_000).to(dtype)
    result = average(tensor, kind)
    assert result is not None
    assert result.dtype == torch.float32
    assert result.shape == (1, 5, 7)
    torch.testing.assert_close(result[0].double(), DEFINITIONS[kind](tensor.double()), rtol=1e-5, atol=1e-2)


def test_disable() -> None:
    assert average(torch.zeros(2, 3, 3), "disable") is None


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_one_channel_and_nan(kind: str) -> None:
    result = average(torch.tensor([[[-2.0, float("nan")]]]), kind)
    assert result is not None
    assert result[0, 0, 0] == (-2.0 if kind == "sum" else 2.0)
    assert result[0, 0, 1].isnan()
