"""Rounds against a faulty fabric: the loop an operator's bringup would run, over the racks of the inventory."""

from __future__ import annotations

import random

import pytest
from locating import MOST_ROUNDS, fabric, located

from toolkit.judge.locate import (
    Evidence,
    Part,
    PartKind,
    Plane,
    Test,
    believe,
    next_round,
    weigh,
)
from toolkit.virtual.fabric_faults import FaultClass, draw
from toolkit.virtual.fault_model import FaultyFabric, Noise, PartFault, Trouble

# Named whatever the draw: a flapping link may not show in the few tests it gets, several faults may hide each other.
CERTAIN = (
    FaultClass.SLOW_GPU,
    FaultClass.NVLINK_LANE_DOWN,
    FaultClass.DEAD_LINK,
    FaultClass.SLOW_SWITCH_ASIC,
    FaultClass.HOT_TRAY,
    FaultClass.BAD_NODE,
    FaultClass.HANG,
    FaultClass.DATA_CORRUPTION,
    FaultClass.TWO_FAULTS,
)


@pytest.mark.parametrize("kind", CERTAIN)
def test_a_drawn_fault_in_an_nvl72_domain_is_named_in_eight_rounds_and_nothing_else(kind: FaultClass) -> None:
    """Every class the domain can have, with its noise."""
    where = fabric("gb200-nvl72")
    trouble = draw(kind, where, random.Random(f"{kind}"))
    assert trouble is not None
    said = located(where, trouble, seed=11, most=8)
    truth = {s.name for s in where.segments for f in trouble.faults if f.part in s.parts}
    assert {s.segment.name for s in said.convicted} == truth


def test_a_clean_nvl72_domain_ends_without_a_suspect() -> None:
    """Twenty of them."""
    where = fabric("gb200-nvl72")
    for seed in range(20):
        said = located(where, Trouble(), seed)
        assert said.suspects == (), f"seed {seed}"


def test_a_half_rate_rail_of_the_demo_rack_ends_with_its_cable_named() -> None:
    """The demo's fault: both ends of the cable are in its name, and HCA and leaf port beside it."""
    where = fabric("demo")
    cable = next(
        p for s in where.segments for p in s.parts if p.kind is PartKind.CABLE and p.name.startswith("node4:mlx5_3 ")
    )
    said = located(where, Trouble((PartFault(cable, 0.5),)), seed=3)
    (suspect,) = said.convicted
    assert cable.name == "node4:mlx5_3 - leaf4:4"
    assert suspect.part == cable
    assert {p for p, _ in suspect.parts} == {
        cable,
        Part(PartKind.HCA, "node4:mlx5_3"),
        Part(PartKind.LEAF_PORT, "leaf4:4"),
    }
    assert suspect.why
    assert "swap the cable" in suspect.settled_by


def test_a_bad_node_is_told_from_its_nvswitches() -> None:
    """Slow inside alone would be the board; slow on its rails too is the node."""
    where = fabric("dgx-h100-su")
    said = located(where, Trouble((PartFault(Part(PartKind.NODE, "dgx07"), 0.6),)), seed=5)
    assert [s.segment.name for s in said.convicted] == ["dgx07"]
    assert said.convicted[0].part == Part(PartKind.NODE, "dgx07")


def test_a_hanging_gpu_is_told_from_its_rail() -> None:
    """It hangs tests on both planes: its HCA and cable do not."""
    where = fabric("dgx-h100-su")
    said = located(where, Trouble((PartFault(Part(PartKind.GPU, "dgx09:gpu2"), hang=0.9),)), seed=111)
    assert [s.part for s in said.convicted] == [Part(PartKind.GPU, "dgx09:gpu2")]


def test_the_model_is_repeatable() -> None:
    """The same seed says the same."""
    where = fabric("gb200-nvl72")
    tests = [Test(Plane.NVLINK, (0, 5, 9))] * 5
    one, other = (FaultyFabric(where, Trouble(), random.Random(4)).run(tests) for _ in range(2))
    assert one == other


def test_the_model_without_noise_gives_the_level_of_the_worst_part() -> None:
    """A lane of 18 down leaves 17/18; tests that do not cross the GPU are whole."""
    where = fabric("gb200-nvl72")
    quiet = Noise(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    lane = Part(PartKind.NVLINK, "tray02:gpu1.nvlink5")
    world = FaultyFabric(where, Trouble((PartFault(lane, 17 / 18, counts=1.0),)), random.Random(1), quiet)
    hit, missed = world.run([Test(Plane.NVLINK, (0, 5)), Test(Plane.NVLINK, (0, 6))])
    assert (hit.ratio, missed.ratio) == (pytest.approx(17 / 18), 1.0)
    assert [c.part for c in hit.counters] == [lane]
    assert missed.counters == ()


def test_a_decision_costs_what_the_last_round_touched() -> None:
    """Rounds late in a search read a few segments again: they cost a fraction of the first."""
    where = fabric("dgx-h100-su")
    world = FaultyFabric(where, Trouble(), random.Random(2))
    evidence = Evidence(where)
    judged = []
    for _ in range(MOST_ROUNDS):
        tests = next_round(weigh(evidence)).tests
        if not tests:
            break
        judged.append(len({s for t in tests for s in (*where.path(t).full, *where.path(t).fatal)}))
        evidence.add(world.run(tests))
    assert judged[-1] < judged[0] / 10
    assert weigh(evidence).probability == pytest.approx(believe(where, evidence.observations).probability)
