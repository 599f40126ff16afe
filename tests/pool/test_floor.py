"""The capacity floor: how many nodes' jobs may be evicted now. Shutting a node asks nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.pool.floor import Capacity, may_evict

COUNT = st.integers(0, 2000)


@pytest.mark.parametrize(
    ("capacity", "asked", "floor", "may"),
    [
        (Capacity(100, 0, 0), 1, 0.9, 1),
        (Capacity(100, 0, 0), 18, 0.9, 10),
        (Capacity(82, 18, 0), 18, 0.9, 10),  # a rack of eighteen was revoked: ten at once, the others run on
        (Capacity(82, 8, 10), 8, 0.9, 0),  # and when ten are empty, no more
        (Capacity(10, 0, 0), 3, 0.7, 3),  # 0.7 * 10 is a little over 7
        (Capacity(4, 0, 0), 1, 0.9, 0),  # a floor is not rounded away in a small pool
        (Capacity(4, 0, 0), 1, 0.75, 1),
        (Capacity(0, 0, 0), 1, 0.9, 0),
        (Capacity(1, 0, 99), 1, 0.9, 0),
        (Capacity(3, 1, 0), 1, 0.0, 1),
        (Capacity(3, 1, 0), 1, 1.0, 0),
    ],
)
def test_so_many_may_go(capacity: Capacity, asked: int, floor: float, may: int) -> None:
    """Counted against the whole pool, those in repair included."""
    answer = may_evict(capacity, asked, floor)
    assert answer.may == may
    assert bool(answer.reason) is (may < asked)


@given(admitted=COUNT, draining=COUNT, out=COUNT, asked=COUNT, percent=st.integers(0, 100))
def test_the_floor_is_never_crossed(admitted: int, draining: int, out: int, asked: int, percent: int) -> None:
    """Whatever is asked, what is left running is at the floor, or nothing was taken; and no more than was asked."""
    capacity = Capacity(admitted, draining, out)
    may = may_evict(capacity, asked, percent / 100).may
    assert 0 <= may <= asked
    assert may == 0 or 100 * (capacity.running - may) >= percent * capacity.whole
