"""The load of a rack grows no faster than its profile allows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.rack.loading import load_profile
from toolkit.rack.power import Begin, begins, ramp_seconds
from toolkit.settings import load

INVENTORY = load({}).inventory
H100 = load_profile("dgx-h100", INVENTORY)


@given(st.integers(1, 40), st.floats(0.5, 500))
def test_in_any_second_no_more_power_is_added_than_the_ramp(nodes, ramp):
    """GPU after GPU over the whole rack: what begins within a second is the ramp and at most one GPU more."""
    profile = replace(H100, power_ramp_kw_per_s=ramp)
    names = [f"node{n}" for n in range(nodes)]
    starts = sorted(
        begin.after_s + gpu * begin.gpu_stagger_s
        for begin in begins(names, profile).values()
        for gpu in range(profile.gpus_per_node)
    )
    assert starts[0] == 0
    assert starts[-1] == pytest.approx(ramp_seconds(nodes, profile))
    for first in range(0, len(starts), 7):
        within = sum(starts[first] <= s < starts[first] + 1 for s in starts)
        assert (within - 1) * 0.7 <= ramp + 1e-6


def test_a_step_and_a_profile_without_a_ramp_begin_at_once():
    """Every GPU at the same time."""
    names = ["node1", "node2"]
    assert begins(names, H100, step=True) == dict.fromkeys(names, Begin())
    assert begins(names, replace(H100, power_ramp_kw_per_s=0)) == dict.fromkeys(names, Begin())
    assert begins([], H100) == {}


@pytest.mark.parametrize(("name", "nodes"), [("dgx-h100", 31), ("gb200-nvl72", 18)])
def test_the_shipped_racks_are_under_full_load_within_half_a_minute(name, nodes):
    """The ramp costs a burn-in of ten minutes little."""
    assert 10 < ramp_seconds(nodes, load_profile(name, INVENTORY)) < 30
