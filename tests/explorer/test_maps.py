"""Quantise maps to levels, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib_dumpunet.explorer.layout import levels_of
from lib_dumpunet.explorer.maps import dequantise, quantise, shrink, size_at

MAPS = arrays(np.float32, (2, 5, 7), elements=st.floats(-1e4, 1e4, width=32))


@given(MAPS)
def test_levels_are_off_by_half_a_step_at_most(values: np.ndarray) -> None:
    maps = quantise(values)
    step = (maps.high - maps.low) / 255
    error = np.abs(dequantise(maps) - values).max((1, 2))
    assert (error <= 0.5 * step * 1.001 + 1e-6 * np.abs(values).max() + 1e-42).all()
    # The ends are exact, since colours are scaled by them.
    assert (dequantise(maps).max((1, 2)) == values.max((1, 2))).all()
    assert (dequantise(maps).min((1, 2)) == values.min((1, 2))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_with_what_is_no_number_has_no_range(bad: float) -> None:
    values = np.ones((2, 3, 3), np.float32)
    values[1, 1, 1] = bad
    maps = quantise(values)
    assert maps.low[0] == maps.high[0] == 1
    assert np.isnan(maps.low[1])
    assert np.isnan(maps.high[1])


def test_a_range_that_overflows_is_none() -> None:
    values = np.array([[[-3e38, 3e38]]], np.float32)
    assert np.isnan(quantise(values).low[0])


def test_smaller_maps_are_means_of_places() -> None:
    values = np.kron(np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 2), np.float32))[None]
    small = shrink(quantise(values), (2, 3))
    assert np.allclose(dequantise(small)[0], np.arange(6).reshape(2, 3), atol=0.02)
    assert size_at((64, 96), 48) == (32, 48)
    assert size_at((8, 8), 64) == (8, 8)
    assert size_at((1, 512), 16) == (1, 16)


def test_blocks_of_one_resolution_are_a_level() -> None:
    down = {f"IN{i:02}": (64 >> i // 3,) * 2 for i in range(12)}
    order = [*down, "M00", *(f"OUT{i:02}" for i in range(12))]
    levels = levels_of(order, down)
    assert [levels[f"IN{i:02}"] for i in range(12)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [levels[f"OUT{i:02}"] for i in range(12)] == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    assert levels["M00"] == 4
    assert levels_of(order, {}) == levels


def test_an_unusual_model_has_levels_of_its_own() -> None:
    levels = levels_of(["IN00", "IN01", "M00", "OUT00", "OUT01", "OUT02"], {"IN00": (8, 8), "IN01": (4, 4)})
    assert levels == {"IN00": 0, "IN01": 1, "M00": 2, "OUT00": 1, "OUT01": 1, "OUT02": 0}
