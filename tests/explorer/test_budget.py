"""What fits in a page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dumpunet.explorer.budget import ENOUGH, Need, Share, cost, fit_all, fit_some

# The blocks of SD 1.x at 512x512: channels and size.
SD1 = [
    *[(320, 64)] * 3, (320, 32), *[(640, 32)] * 2, (640, 16), *[(1280, 16)] * 2, *[(1280, 8)] * 6,
    (1280, 16), *[(1280, 16)] * 2, (1280, 32), *[(640, 32)] * 2, (640, 64), *[(320, 64)] * 3,
]  # fmt: skip
NEEDS = st.lists(
    st.builds(
        Need,
        maps=st.integers(1, 1280),
        frames=st.integers(1, 50),
        size=st.tuples(st.integers(1, 128), st.integers(1, 128)),
        ratio=st.floats(0.05, 1.0),
    ),
    max_size=8,
)


def total(needs: list[Need], shares: list[Share]) -> float:
    return sum(cost(need, share) for need, share in zip(needs, shares, strict=True))


@given(NEEDS, st.floats(0, 1e7))
def test_single_maps_never_take_more_than_the_room(needs: list[Need], room: float) -> None:
    shares = fit_some(needs, room)
    assert total(needs, shares) <= room * (1 + 1e-9)
    assert all(0 <= share.maps <= need.maps for need, share in zip(needs, shares, strict=True))


@given(NEEDS, st.floats(0, 1e7))
def test_summaries_take_no_more_than_the_room_or_one_step_of_small_maps(
    needs: list[Need], room: float
) -> None:
    shares = fit_all(needs, room)
    assert [share.maps for share in shares] == [need.maps for need in needs]
    longest = max((need.frames for need in needs), default=1)
    least = [Share(share.maps, share.size, longest) for share in shares]
    assert total(needs, shares) <= max(room, total(needs, least))


def test_all_is_left_as_it_is_where_there_is_room() -> None:
    needs = [Need(320, 20, (64, 64)), Need(1280, 20, (8, 8))]
    assert fit_some(needs, 1e9) == [Share(320, (64, 64)), Share(1280, (8, 8))]
    assert fit_all(needs, 1e9) == [Share(320, (64, 64)), Share(1280, (8, 8))]


def test_a_real_model_keeps_enough_channels_of_each_block() -> None:
    needs = [Need(channels, 20, (side, side)) for channels, side in SD1]
    room = 17e6
    shares = fit_some(needs, room)
    assert all(share.maps >= ENOUGH for share in shares)
    assert total(needs, shares) > 0.9 * room
    # Small maps need little, and large ones are made smaller rather than few.
    assert shares[0].size == (32, 32)
    assert shares[9].size == (8, 8)
    assert shares[9].maps > 5 * shares[0].maps


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (1, 64)])
def test_maps_keep_their_shape_when_they_get_smaller(size: tuple[int, int]) -> None:
    (share,) = fit_all([Need(10, 10, size)], 10 * 10 * size[0] * size[1] / 3)
    assert max(share.size) < max(size)
    assert share.size[1] / share.size[0] == pytest.approx(size[1] / size[0], rel=0.05) or 1 in size


def test_steps_are_left_out_where_small_maps_are_still_too_many() -> None:
    (share,) = fit_all([Need(10, 100, (64, 64))], 10 * 10 * 300)
    assert share.size == (16, 16)
    assert share.every == 10
