"""Racks in which no part is bad: another transport than was meant, and cables that are not where the plan has them."""

from __future__ import annotations

import random

import pytest
from locating import fabric, located

from toolkit.judge.locate import Evidence, Fabric, Observation, Outcome, Plane, Test, believe, localise, next_round
from toolkit.virtual.fabric_faults import FaultClass, draw
from toolkit.virtual.fault_model import Detour, FaultyFabric, Trouble


def off_path(*members: int) -> Observation:
    """An NVLink test that NCCL ran over the network, at a tenth of the rate."""
    return Observation(Test(Plane.NVLINK, members), Outcome.OFF_PATH, 0.1)


def attached(where: Fabric, node: str) -> list[int]:
    """The node's endpoints."""
    return [e for e, name in enumerate(where.endpoints) if name.startswith(f"{node}/")]


def test_a_test_over_another_transport_says_nothing_of_parts() -> None:
    """However slow it was and however often: everything stays open, nobody is a suspect."""
    where = fabric("gb200-nvl72")
    said = localise(where, [off_path(*range(8)), off_path(0, 9)] * 4)
    assert said.suspects == ()
    assert set(said.open) == set(where.segments)


def test_one_node_over_another_transport_is_named_with_its_partners_cleared() -> None:
    """Its row went astray with it; the tray beside it is measured in the next round, it never is."""
    where = fabric("gb200-nvl72")
    said = located(where, Trouble(detours=(Detour(Plane.NVLINK, "tray07", 0.1),)), seed=1)
    (unmeasured,) = said.unmeasured
    assert (unmeasured.node, unmeasured.alone, len(unmeasured.endpoints)) == ("tray07", True, 4)
    assert "no part is to blame" in unmeasured.settled_by
    assert said.suspects == ()
    assert {s.name.partition(":")[0] for s in said.open} == {"tray07"}


def test_the_node_is_known_after_the_round_that_sets_it_beside_partners_that_are_right() -> None:
    """A row astray, the next row measured: each of the first is set beside one of the second."""
    where = fabric("gb200-nvl72")
    seen = [off_path(*range(8)), Observation(Test(Plane.NVLINK, tuple(range(8, 72))), Outcome.COMPLETED, 1.0)]
    tests = [t for t in next_round(believe(where, seen)).tests if min(t.members) < 8]
    assert [len(t.members) for t in tests] == [2] * 8
    assert all(max(t.members) >= 8 for t in tests)


def test_a_run_whose_configuration_is_wrong_everywhere_ends_soon_and_blames_nobody() -> None:
    """Three tests off the way, and no more of that plane: nobody is there to tell one from the other."""
    where = fabric("gb200-nvl72")
    nodes = [s.name for s in where.segments if s.kind == "node"]
    world = FaultyFabric(where, Trouble(detours=tuple(Detour(Plane.NVLINK, n, 0.1) for n in nodes)), random.Random(3))
    evidence = Evidence(where)
    rounds = 0
    while tests := next_round(believe(where, evidence.observations)).tests:
        evidence.add(world.run(tests))
        rounds += 1
    said = localise(where, evidence.observations)
    assert rounds <= 4
    assert said.suspects == ()
    assert {u.node for u in said.unmeasured} == set(nodes)
    assert not any(u.alone for u in said.unmeasured)


def test_a_node_whose_rails_are_not_measured_is_still_measured_inside() -> None:
    """The two planes have configurations of their own."""
    where = fabric("demo")
    said = located(where, Trouble(detours=(Detour(Plane.RAIL, "node3", 0.1),)), seed=2)
    assert [(u.plane, u.node) for u in said.unmeasured] == [(Plane.RAIL, "node3")]
    still = {s.name for s in said.open}
    assert still == {where.segments[where.attachment[e]].name for e in attached(where, "node3")}


@pytest.mark.parametrize("seed", range(3))
def test_cables_of_two_rails_that_do_not_meet_are_one_group_with_what_settles_it(seed: int) -> None:
    """Both rails of the node reach nobody: two dead cables look the same, so neither is pulled before the plan is
    held against the neighbours."""
    where = fabric("demo")
    one, other = attached(where, "node4")[2:4]
    said = located(where, Trouble(exchanged=((one, other),)), seed)
    names = {where.segments[where.attachment[e]].name for e in (one, other)}
    assert {s.segment.name for s in said.convicted} == names
    (exchange,) = said.exchanges
    assert set(exchange.rails) == names
    assert "ibnetdiscover" in exchange.settled_by


def test_one_dead_rail_is_no_exchange() -> None:
    """It takes two."""
    where = fabric("demo")
    segment = where.attachment[attached(where, "node4")[2]]
    dead = where.attachment.index(segment)
    hung = [Observation(Test(Plane.RAIL, (e, dead)), Outcome.HANG) for e in (2, 10, 18)]
    fine = [Observation(Test(Plane.RAIL, (2, 10, 18, 34, 42)), Outcome.COMPLETED, 1.0)] * 2
    fine += [Observation(Test(Plane.NVLINK, tuple(attached(where, "node4"))), Outcome.COMPLETED, 1.0)] * 3
    said = localise(where, [*hung, *fine])
    assert [s.segment.name for s in said.convicted] == [where.segments[segment].name]
    assert said.exchanges == ()


@pytest.mark.parametrize(
    ("rack", "kind"),
    [
        ("demo", FaultClass.SWAPPED_PORTS),
        ("dgx-h100-su", FaultClass.SWAPPED_PORTS),
        ("dgx-h100-su", FaultClass.SWAPPED_RAILS),
    ],
)
def test_an_exchange_that_costs_nothing_is_not_seen_and_blames_nobody(rack: str, kind: FaultClass) -> None:
    """On one leaf, or with spines between the leaves, tests measure the same: only the neighbours' list can tell."""
    where = fabric(rack)
    trouble = draw(kind, where, random.Random(5))
    assert trouble is not None
    assert trouble.exchanged
    said = located(where, trouble, seed=6)
    assert (said.convicted, said.exchanges) == ((), ())
    assert {s.name for s in said.open} <= {"spines"}, "which no test of rails on one leaf crosses"


def test_an_nvlink_domain_has_no_rails_to_exchange() -> None:
    """A class a place cannot have is said to be none of it, and not drawn as something else."""
    where = fabric("gb200-nvl72")
    assert draw(FaultClass.SWAPPED_RAILS, where, random.Random(1)) is None
