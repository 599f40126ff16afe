"""From GB/s of tests to a part: what healthy means is taken from the tests' peers, never guessed."""

import math
import random
from pathlib import Path

import pytest

from toolkit.judge.locate import (
    Bounds,
    Evidence,
    Fabric,
    Measured,
    Outcome,
    Part,
    PartKind,
    Plane,
    Seat,
    Test,
    controls,
    fabric_of,
    healthy_rates,
    next_round,
    observe,
    weigh,
)
from toolkit.judge.locate.suspects import in_words
from toolkit.rack.loading import load_rack
from toolkit.virtual.fault_model import FaultyFabric, PartFault, Trouble

INVENTORY = Path(__file__).parents[2] / "inventory"
# A floor as in the profiles, and the closed form: NVLink all_reduce of 8 H100, and one NDR rail.
BOUNDS = {Plane.NVLINK: Bounds(440, 700), Plane.RAIL: Bounds(45, 50)}
HEALTHY_GB_PER_S = {Plane.NVLINK: 478.0, Plane.RAIL: 47.5}


def fabric(rack: str) -> Fabric:
    """Of a rack of the inventory."""
    return fabric_of(load_rack(rack, INVENTORY))


def rail(*members: int, gb_per_s: float | None, outcome: Outcome = Outcome.COMPLETED) -> Measured:
    """A test over a rail."""
    return Measured(Test(Plane.RAIL, members), outcome, gb_per_s)


def test_a_test_is_set_against_the_median_of_its_peers():
    """Six pairs, one at half: it is half, the others are whole."""
    tests = [rail(n, n + 10, gb_per_s=g) for n, g in enumerate((47, 48, 47.5, 23.7, 47.2, 47.9))]
    healthy = healthy_rates(tests, BOUNDS)
    assert healthy == {(Plane.RAIL, 2): pytest.approx(47.35)}
    ratios = [o.ratio for o in observe(tests, healthy, BOUNDS)]
    assert ratios[3] == pytest.approx(0.5, abs=0.01)
    assert min(r for n, r in enumerate(ratios) if r is not None and n != 3) > 0.99


def test_where_all_are_slow_together_the_floor_tells():
    """A leaf at half its rate: its median would be called healthy."""
    tests = [rail(n, n + 10, gb_per_s=25.0) for n in range(6)]
    healthy = healthy_rates(tests, BOUNDS)
    assert healthy[Plane.RAIL, 2] == 45
    assert [o.ratio for o in observe(tests, healthy, BOUNDS)] == pytest.approx([25 / 45] * 6)


def test_too_few_peers_say_nothing_of_bandwidth():
    """Four pairs have no median worth the name; that they ended still counts."""
    tests = [rail(n, n + 10, gb_per_s=47.0) for n in range(4)]
    assert healthy_rates(tests, BOUNDS) == {}
    assert {o.ratio for o in observe(tests, {}, BOUNDS)} == {None}


@pytest.mark.parametrize("wild", [math.nan, math.inf, 480.0, -1.0])
def test_what_physics_does_not_allow_is_no_ratio(wild):
    """A rail that carries ten times its rate was not what was measured."""
    tests = [rail(n, n + 10, gb_per_s=47.0) for n in range(5)] + [rail(5, 15, gb_per_s=wild)]
    healthy = healthy_rates(tests, BOUNDS)
    assert healthy == {(Plane.RAIL, 2): 47.0}
    assert observe(tests, healthy, BOUNDS)[-1].ratio is None


def test_a_test_that_hung_keeps_its_outcome_and_sets_no_measure():
    """Whatever number its output held."""
    tests = [rail(n, n + 10, gb_per_s=47.0) for n in range(5)] + [rail(5, 15, gb_per_s=3.0, outcome=Outcome.HANG)]
    hung = observe(tests, healthy_rates(tests, BOUNDS), BOUNDS)[-1]
    assert (hung.outcome, hung.ratio) == (Outcome.HANG, None)


@pytest.mark.parametrize(("floor", "ceiling"), [(0, 50), (51, 50), (math.nan, 50), (45, math.inf)])
def test_bounds_that_bound_nothing_are_refused(floor, ceiling):
    """A floor of 0 would pass anything."""
    with pytest.raises(ValueError, match="floor"):
        Bounds(floor, ceiling)


def test_seats_are_what_a_launcher_needs():
    """Node, GPU and HCA of each rank, on a rack whose HCAs are numbered with gaps too."""
    where = fabric("demo")
    assert where.seats(Test(Plane.RAIL, (3, 11))) == (Seat("node1", 3, "mlx5_3"), Seat("node2", 3, "mlx5_3"))
    assert fabric("gb200-nvl72").seats(Test(Plane.NVLINK, (0,)))[0].index == 0


def test_controls_are_idle_disjoint_and_of_the_size_that_is_missing():
    """Two pairs of suspects get three more pairs beside them, and none where enough is known."""
    where = fabric("demo")
    belief = weigh(Evidence(where))
    tests = [Test(Plane.RAIL, (0, 8)), Test(Plane.RAIL, (1, 9))]
    added = controls(belief, tests, {})
    assert [len(t.members) for t in added] == [2, 2, 2]
    members = [e for t in (*tests, *added) for e in t.members]
    assert len(members) == len(set(members))
    assert all(len({m % 8 for m in t.members}) == 1 for t in added), "a rail's test stays on its rail"
    assert controls(belief, tests, {(Plane.RAIL, 2): 47.0}) == ()


@pytest.mark.parametrize("seed", range(4))
def test_a_half_rate_rail_measured_in_gb_per_s_ends_with_its_cable_and_both_ends(seed):
    """The loop of a bringup on the demo rack: rounds, controls, GB/s in, a cable out."""
    where = fabric("demo")
    cable = Part(PartKind.CABLE, "node4:mlx5_3 - leaf4:4")
    world = FaultyFabric(where, Trouble((PartFault(cable, 0.5),)), random.Random(seed))
    evidence, healthy = Evidence(where), {}
    for _ in range(16):
        belief = weigh(evidence)
        tests = next_round(belief).tests
        if not tests:
            break
        ran = [
            Measured(
                o.test,
                o.outcome,
                o.ratio * HEALTHY_GB_PER_S[o.test.plane] if o.ratio else None,
                o.counters,
                o.counters_read,
            )
            for o in world.run((*tests, *controls(belief, tests, healthy)))
        ]
        healthy = healthy_rates(ran, BOUNDS) | healthy
        evidence.add(observe(ran, healthy, BOUNDS))
    assert not next_round(weigh(evidence)).tests
    (suspect,) = in_words(weigh(evidence)).convicted
    assert suspect.part == cable
    assert {p.name for p, _ in suspect.parts} == {cable.name, "node4:mlx5_3", "leaf4:4"}
