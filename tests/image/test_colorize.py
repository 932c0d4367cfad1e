"""Every pixel equals the formula evaluated in float32, whichever way it is computed."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_dumpunet.errors import FormulaError
from lib_dumpunet.image import colorize as module
from lib_dumpunet.image.colorize import color_table, colorize, pack, paint, unpack
from lib_dumpunet.settings import METHODS, TRANSFORMS, ColorSettings
from tests.image import reference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
inf, nan = float("inf"), float("nan")


def maps(dtype: torch.dtype) -> torch.Tensor:
    """Seven maps "c h w": ordinary, with NaN, with infinities, two constant, with tiny and huge numbers."""
    noise = torch.randn(7, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.5
    noise[1, 2, 3] = nan
    noise[2, 0, :3] = torch.tensor([inf, -inf, inf])
    noise[3], noise[4] = 0.3, -0.7
    noise[5] *= 1e-4
    noise[6] *= 1e3
    return noise.to(dtype)


def pixels(tensor: torch.Tensor, color: ColorSettings, number: Any, formulas: Any = None) -> np.ndarray:
    """The reference's pixels, in the shape of ``colorize``; numbers are first rounded to float32."""
    rows = [reference.color_map(m.float().flatten().tolist(), color, number, formulas) for m in tensor]
    channels = (3,) if color.method != "white-black" else ()
    return np.array(rows, dtype=np.int16).reshape(*tensor.shape, *channels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("method", METHODS)
def test_pixels_are_the_formula(method: str, transform: str, dtype: torch.dtype) -> None:
    tensor, color = maps(dtype), ColorSettings(method=method, transform=transform)
    got = colorize(tensor, color)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, pixels(tensor, color, np.float32))
    # Numbers as large as 1e3 have a hue of their own in float32: a turn is lost to rounding long before.
    assert np.abs(got[:6] - pixels(tensor[:6], color, float)).max() <= 1


@pytest.mark.parametrize("limits", [(-1.0, 2.0), (0.25, 3.0), (-3.0, -0.1), (0.0, 1.0), (-2.0, 0.0)])
@pytest.mark.parametrize("method", ["white-black", "red-blue"])
def test_linear_limits(method: str, limits: tuple[float, float]) -> None:
    color = ColorSettings(method=method, transform="linear", clamp_min=limits[0], clamp_max=limits[1])
    for dtype in DTYPES:
        tensor = maps(dtype)
        np.testing.assert_array_equal(colorize(tensor, color), pixels(tensor, color, np.float32))


@pytest.mark.parametrize(("gain", "offset"), [(0.1, 0.0), (10.0, -0.5), (2.5, 3.0), (1e4, 1e4)])
def test_sigmoid_gain_and_offset(gain: float, offset: float) -> None:
    color = ColorSettings(transform="sigmoid", gain=gain, offset=offset)
    tensor = maps(torch.float32)
    np.testing.assert_array_equal(colorize(tensor, color), pixels(tensor, color, np.float32))


CUSTOM = [
    ("hsl", ("v", "abs(v)", "0.3+v/3"), lambda v, f: (v, abs(v), f(0.3) + v / f(3))),
    ("hsl", ("v*7", "0.6", "0.7"), lambda v, f: (v * f(7), f(0.6), f(0.7))),
    ("hsl", ("0.4", "v", "v"), lambda v, f: (f(0.4), v, v)),
    ("hsl", ("1/v", "v>0", "0.5"), lambda v, f: (f(1) / v if v else inf, f(v > 0), f(0.5))),
    ("hsl", ("v", "0-0.4", "0.5"), lambda v, f: (v, -f(0.4), f(0.5))),
    ("hsl", ("0.1", "0.2", "0.3"), lambda v, f: (f(0.1), f(0.2), f(0.3))),
    ("rgb", ("v", "-v", "1.0"), lambda v, f: (v, -v, f(1))),
    ("rgb", ("sqrt(v)", "v*v", "where(v<0.5,v,0)"), lambda v, f: (
        f(np.sqrt(v)) if v >= 0 else nan, v * v, v if v < 0.5 else f(0)
    )),
]  # fmt: skip


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("method", "formula", "expected"), CUSTOM)
def test_custom_formulas(method: str, formula: Any, expected: Any, transform: str) -> None:
    color = ColorSettings(method=method, transform=transform, formula=formula)
    for dtype in DTYPES:
        tensor = maps(dtype)
        np.testing.assert_array_equal(colorize(tensor, color), pixels(tensor, color, np.float32, expected))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("transform", ["linear", "sigmoid"])
@pytest.mark.parametrize("method", METHODS)
def test_table_equals_direct_evaluation(method: str, transform: str, dtype: torch.dtype) -> None:
    color = ColorSettings(method=method, transform=transform)
    every = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype).reshape(4, 128, 128)
    np.testing.assert_array_equal(colorize(every, color), colorize(every.float(), color))
    assert not color_table(color, is_bfloat16=dtype is torch.bfloat16).flags.writeable


def test_reference_follows_colorsys() -> None:
    numbers = np.random.default_rng(0).uniform(-0.5, 1.5, (500, 3)).tolist()
    for hue, light, full in [*numbers, [0.2, 0.4, 0.0]]:
        expected = colorsys.hls_to_rgb(hue, light, full)
        assert reference.hsl(hue, full, light, float) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(width=32), min_size=1, max_size=8), st.sampled_from(sorted(TRANSFORMS)))
def test_any_float_gives_its_pixel(values: list[float], transform: str) -> None:
    tensor, color = torch.tensor(values).reshape(1, 1, -1), ColorSettings(transform=transform)
    np.testing.assert_array_equal(colorize(tensor, color), _overflowing(tensor, color))


def _overflowing(tensor: torch.Tensor, color: ColorSettings) -> np.ndarray:
    """The reference, for maps whose range may overflow: they are left unchanged, like constant ones."""
    low, high = tensor.min().numpy(), tensor.max().numpy()
    with np.errstate(all="ignore"):
        overflow = color.transform.startswith("auto") and not np.isfinite(high - low)
    if not overflow:
        return pixels(tensor, color, np.float32)
    return np.concatenate([pixels(one, color, np.float32) for one in tensor.split(1, dim=2)], axis=2)


@pytest.mark.parametrize("method", METHODS)
def test_hue_close_to_its_corners(method: str) -> None:
    corners = np.arange(-12, 13, dtype=np.float32) / np.float32(6)
    near = [corners]
    for _ in range(3):
        near += [np.nextafter(near[-1], np.float32(9)), np.nextafter(near[-1], np.float32(-9))]
    tensor = torch.from_numpy(np.concatenate(near)).reshape(-1, 1, 1)
    for saturation in ("1.0", "0.9"):
        color = ColorSettings(formula=("v", saturation, "0.5"))
        expected = pixels(tensor, color, np.float32, lambda v, f, s=float(saturation): (v, f(s), f(0.5)))
        np.testing.assert_array_equal(colorize(tensor, color), expected)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    tensor = torch.randn(9, 4, 4)
    whole = colorize(tensor, ColorSettings())
    monkeypatch.setattr(module, "CHUNK", chunk)
    np.testing.assert_array_equal(colorize(tensor, ColorSettings()), whole)


def test_not_contiguous_and_not_changed() -> None:
    tensor = torch.randn(6, 4, 8).half()[::2, :, ::2].requires_grad_()
    before = tensor.detach().clone()
    for transform in TRANSFORMS:
        color = ColorSettings(transform=transform)
        np.testing.assert_array_equal(colorize(tensor, color), colorize(before, color))
    assert torch.equal(tensor, before)


def test_nan_is_black_though_the_formula_is_constant() -> None:
    tensor = torch.tensor([[[nan, 1.0]]])
    for method in ("rgb", "hsl"):
        got = colorize(tensor, ColorSettings(method=method, formula=("1.0", "1.0", "1.0")))
        assert got.tolist() == [[[[0, 0, 0], [255, 255, 255]]]]


def test_pack_is_the_inverse_of_unpack() -> None:
    packed = paint(torch.randn(2, 3, 4), ColorSettings())
    assert packed.shape == (2, 3, 4)
    np.testing.assert_array_equal(pack(unpack(packed)), packed)


def test_a_bad_formula_names_its_channel() -> None:
    color = ColorSettings(method="rgb", formula=("v", "v+", "v"))
    with pytest.raises(FormulaError) as caught:
        colorize(torch.zeros(1, 1, 1), color)
    assert caught.value.field == "Color space, G"
    assert caught.value.position == 2
