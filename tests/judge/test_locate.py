"""The locator on small cases, and what must hold of it whatever the rack."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import UsageError
from toolkit.judge.locate import (
    Counter,
    Evidence,
    Fabric,
    Observation,
    Outcome,
    Part,
    PartKind,
    Plane,
    Test,
    believe,
    fabric_of,
    localise,
    next_round,
    weigh,
)
from toolkit.judge.locate.parts import SegmentKind
from toolkit.rack.model import Gpu, Hca, Link, LinkKind, Mode, Port, Profile, Rack, Unit, UnitKind

GPUS = 4


def rack(nodes: int, mode: Mode = Mode.MNNVL_HOST_IMEX, leaves: int = 0, names: list[str] | None = None) -> Rack:
    """Trays of four GPUs in one NVLink domain; with `leaves`, each tray's four rails end on leaves, and a spine."""
    named = names or [f"tray{n}" for n in range(nodes)]
    units = [
        Unit(
            name,
            UnitKind.NODE,
            f"S{name}",
            slot,
            gpus=tuple(Gpu(g) for g in range(GPUS)),
            hcas=tuple(Hca(f"mlx5_{r}", f"0x{slot}{r}", r) for r in range(GPUS)) if leaves else (),
        )
        for slot, name in enumerate(named)
    ]
    switches = [Unit("switch1", UnitKind.NVLINK_SWITCH, "SW1", 80)]
    fabric = [Unit(f"leaf{n}", UnitKind.LEAF, f"L{n}", 90 + n) for n in range(leaves)]
    fabric += [Unit("spine1", UnitKind.SPINE, "P1", 99)] if leaves else []
    links = [
        Link(Port(name, f"mlx5_{r}"), Port(f"leaf{n % leaves}", f"{n}-{r}"), LinkKind.INFINIBAND, 50.0, "cable")
        for n, name in enumerate(named)
        for r in range(GPUS if leaves else 0)
    ]
    profile = Profile("p", "sku", mode, GPUS, 18, 53.125, GPUS, (), "", (), (), (), timedelta(days=1))
    return Rack("r", "s", profile, (*units, *switches, *fabric), tuple(links), "")


def nvlink(*members: int, ratio: float = 1.0) -> Observation:
    """A finished NVLink test."""
    return Observation(Test(Plane.NVLINK, tuple(members)), Outcome.COMPLETED, ratio)


def probability(fabric: Fabric, seen: list[Observation], name: str) -> float:
    """Of the segment of that name; 0 where it is not worth a mention."""
    belief = believe(fabric, seen)
    return next((p for s, p in belief.probability.items() if fabric.segments[s].name == name), 0.0)


def test_without_observations_nobody_is_a_suspect_and_everything_is_open() -> None:
    """Missing evidence accuses nobody and clears nobody."""
    fabric = fabric_of(rack(4))
    said = localise(fabric, [])
    assert said.suspects == ()
    assert set(said.open) == set(fabric.segments)


def test_a_rack_without_nodes_is_refused() -> None:
    """There is nothing to test in it."""
    with pytest.raises(UsageError, match="no node"):
        fabric_of(rack(0))


def test_both_ends_of_a_slow_pair_are_kept_until_a_third_partner_settles_it() -> None:
    """A pair that is slow twice accuses both ends alike; the end that is fast with another is let go."""
    fabric = fabric_of(rack(4))
    slow = [nvlink(0, 4, ratio=0.7), nvlink(0, 4, ratio=0.71), *[nvlink(*range(8, 16)) for _ in range(3)]]
    ends = probability(fabric, slow, "tray0:gpu0"), probability(fabric, slow, "tray1:gpu0")
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)
    assert ends[0] > 0.2
    assert not localise(fabric, slow).convicted
    settled = localise(fabric, [*slow, nvlink(0, 9), nvlink(4, 10, ratio=0.69), nvlink(5, 11)])
    assert [s.segment.name for s in settled.convicted] == ["tray1:gpu0"]
    assert settled.convicted[0].part == Part(PartKind.GPU, "tray1:gpu0")
    assert any("69%" in reading for reading in settled.convicted[0].why)


def test_the_round_after_a_slow_pair_gives_each_end_another_partner() -> None:
    """That is what a third partner is for, and the tests share no endpoint."""
    fabric = fabric_of(rack(4))
    seen = [nvlink(0, 4, ratio=0.7), *[nvlink(*range(8, 16)) for _ in range(3)]]
    tests = next_round(believe(fabric, seen)).tests
    assert not any({0, 4} <= set(t.members) for t in tests)
    assert {0, 4} <= {e for t in tests for e in t.members}


def test_one_bad_reading_convicts_nobody() -> None:
    """However bad: something else may have disturbed the test."""
    fabric = fabric_of(rack(4))
    clean = [nvlink(*range(16)) for _ in range(4)]
    assert not localise(fabric, [*clean, nvlink(0, 4, ratio=0.3)]).convicted


def test_everything_slow_is_the_switch_not_every_gpu() -> None:
    """One cause explains what sixteen would have to; which ASIC, only its counters tell."""
    fabric = fabric_of(rack(4))
    seen = [nvlink(*range(g, g + 4), ratio=0.7) for g in (0, 4, 8, 12)]
    (suspect,) = localise(fabric, seen).convicted
    assert suspect.segment.kind is SegmentKind.SWITCH
    assert [p for _, p in suspect.parts] == pytest.approx([suspect.probability / 2] * 2)
    chip = suspect.parts[1][0]
    counted = Observation(seen[0].test, Outcome.COMPLETED, 0.7, (Counter(chip, 7),), counters_read=True)
    assert localise(fabric, [*seen, counted]).convicted[0].part == chip


def test_a_tray_whose_gpus_are_all_slow_is_one_suspect() -> None:
    """Four GPUs of one tray slow in different groups: the tray."""
    fabric = fabric_of(rack(4))
    columns = [nvlink(g, g + 4, g + 8, g + 12, ratio=0.8) for g in range(4)]
    rows = [nvlink(*range(g, g + 4), ratio=0.8 if g == 4 else 1.0) for g in (0, 4, 8, 12)]
    (suspect,) = localise(fabric, [*columns, *rows]).convicted
    assert suspect.segment.name == "tray1"


def test_a_victims_counter_accuses_nobody() -> None:
    """Xid 145 on 63 GPUs told only that a 64th had Xid 149."""
    fabric = fabric_of(rack(4))
    parts = [Part(PartKind.GPU, "tray0:gpu0"), Part(PartKind.GPU, "tray1:gpu0")]
    counters = (Counter(parts[0], 3, originator=False), Counter(parts[1], 505))
    seen = [Observation(Test(Plane.NVLINK, (0, 4)), Outcome.HANG, None, counters, True)] * 2
    (suspect,) = localise(fabric, seen).convicted
    assert suspect.part == parts[1]
    assert suspect.shows == "hangs"


def test_wrong_data_convicts_and_bandwidth_does_not_acquit() -> None:
    """A GPU that corrupts runs at full speed."""
    fabric = fabric_of(rack(4))
    bad = [Observation(Test(Plane.NVLINK, (0, e)), Outcome.DATA_ERROR) for e in (4, 9)]
    clean = [nvlink(1, 14), nvlink(2, 13), nvlink(3, 12), nvlink(4, 9)]
    assert not localise(fabric, [*bad, *clean]).convicted, "its tray may still be it: a clean test is not proof"
    (suspect,) = localise(fabric, [*bad, *clean, nvlink(1, 13), nvlink(2, 12)]).convicted
    assert (suspect.segment.name, suspect.shows) == ("tray0:gpu0", "corrupts data")


def test_a_half_rate_rail_names_cable_and_both_its_ends() -> None:
    """HCA, cable and leaf port look alike to bandwidth: all three are named, and what tells them apart."""
    fabric = fabric_of(rack(6, leaves=2))
    rail = [n * GPUS for n in range(6)]
    low = [Observation(Test(Plane.RAIL, (rail[0], e)), Outcome.COMPLETED, 0.5) for e in rail[1:3]]
    fine = [Observation(Test(Plane.RAIL, tuple(rail[1:])), Outcome.COMPLETED, 1.0)] * 2
    fine += [Observation(Test(Plane.RAIL, tuple(e + 1 for e in rail)), Outcome.COMPLETED, 1.0)]
    (suspect,) = localise(fabric, [*low, *fine]).convicted
    assert suspect.segment.name == "tray0:mlx5_0 - leaf0:0-0"
    assert {p.kind for p, _ in suspect.parts} == {PartKind.HCA, PartKind.CABLE, PartKind.LEAF_PORT}
    assert "swap the cable" in suspect.settled_by
    assert sum(share for _, share in suspect.parts) == pytest.approx(suspect.probability)


def test_a_test_without_a_number_says_nothing() -> None:
    """Neither for a part nor against it."""
    fabric = fabric_of(rack(4))
    said = localise(fabric, [Observation(Test(Plane.NVLINK, (0, 4)), Outcome.COMPLETED, None)] * 5)
    assert said.suspects == ()
    assert set(said.open) == set(fabric.segments)


def test_a_clean_rack_ends_with_no_more_tests() -> None:
    """Rounds stop when everything is ruled out."""
    fabric = fabric_of(rack(6, leaves=2))
    seen: list[Observation] = []
    for _ in range(12):
        tests = next_round(believe(fabric, seen)).tests
        if not tests:
            break
        members = [(t.plane, e) for t in tests for e in t.members]
        assert len({e for _, e in members}) == len(members)
        seen += [Observation(t, Outcome.COMPLETED, 1.0) for t in tests]
    assert not next_round(believe(fabric, seen)).tests
    said = localise(fabric, seen)
    assert (said.suspects, said.open) == ((), ())


def test_a_thousand_clean_tests_are_no_more_than_many() -> None:
    """Odds far below what a float's exponent holds are odds of nothing."""
    clean = Observation(Test(Plane.NVLINK, tuple(range(16))), Outcome.COMPLETED, 1.0, counters_read=True)
    belief = believe(fabric_of(rack(4)), [clean] * 1000)
    assert belief.probability == {}


def test_a_fabric_with_more_rails_than_gpus_blames_no_gpu_that_is_not_there() -> None:
    """A tray of four GPUs and eight ports: a port beyond the fourth has no GPU beside it."""
    base = rack(4, leaves=2)
    wide = [
        replace(u, hcas=tuple(Hca(f"mlx5_{r}", f"0x{u.slot}{r}", r) for r in range(2 * GPUS))) if u.hcas else u
        for u in base.units
    ]
    links = [
        Link(Port(f"tray{n}", f"mlx5_{r}"), Port(f"leaf{n % 2}", f"{n}-{r}"), LinkKind.INFINIBAND, 50.0, "cable")
        for n in range(4)
        for r in range(2 * GPUS)
    ]
    fabric = fabric_of(replace(base, units=tuple(wide), links=tuple(links)))
    last = Test(Plane.RAIL, (7, 15))
    assert fabric.path(last).fatal == ()
    assert min(fabric.path(last).full) >= 0
    belief = believe(fabric, [Observation(last, Outcome.HANG)] * 2)
    assert {fabric.segments[s].kind for s in belief.probability} <= set(SegmentKind) - {SegmentKind.GPU}


readings = st.lists(
    st.tuples(st.sets(st.integers(0, 15), min_size=2, max_size=6), st.sampled_from((1.0, 0.99, 0.97, 0.9, 0.7, 0.5))),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(readings, st.randoms(use_true_random=False))
def test_the_names_of_nodes_do_not_matter(seen: list[tuple[set[int], float]], rng: random.Random) -> None:
    """The same tests on the same positions say the same, whatever the nodes are called."""
    names = [f"n{n}" for n in range(4)]
    rng.shuffle(names)
    observations = [nvlink(*sorted(members), ratio=ratio) for members, ratio in seen]
    one = believe(fabric_of(rack(4)), observations)
    other = believe(fabric_of(rack(4, names=names)), observations)
    assert one.probability == pytest.approx(other.probability)
    assert one.open == other.open


@settings(max_examples=60, deadline=None)
@given(readings)
def test_the_order_of_observations_does_not_matter(seen: list[tuple[set[int], float]]) -> None:
    """Evidence is a set."""
    fabric = fabric_of(rack(4))
    observations = [nvlink(*sorted(members), ratio=ratio) for members, ratio in seen]
    one, other = believe(fabric, observations), believe(fabric, observations[::-1])
    assert one.open == other.open
    assert max(one.probability.values(), default=0.0) == pytest.approx(
        max(other.probability.values(), default=0.0), abs=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 15), min_size=2, max_size=16), max_size=10))
def test_clean_tests_alone_raise_nobody_above_the_prior(groups: list[set[int]]) -> None:
    """Health everywhere is no reason to suspect anybody: nobody gets past what the prior says."""
    fabric = fabric_of(rack(4))
    belief = believe(fabric, [nvlink(*sorted(g), ratio=1.0) for g in groups])
    assert max(belief.probability.values(), default=0.0) <= 5.1e-4
    assert belief.explanation == frozenset()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 15), st.integers(1, 6))
def test_more_clean_tests_of_an_end_lower_its_probability(other: int, times: int) -> None:
    """An end that is fast with others is less a suspect for each of them."""
    fabric = fabric_of(rack(4))
    partner = other if other not in (0, 4) else 9
    seen = [nvlink(0, 4, ratio=0.7)]
    before = probability(fabric, seen, "tray0:gpu0")
    after = probability(fabric, [*seen, *[nvlink(0, partner)] * times], "tray0:gpu0")
    assert after <= before


@settings(max_examples=60, deadline=None)
@given(readings, st.integers(0, 8))
def test_evidence_that_grows_says_what_all_of_it_says_at_once(seen: list[tuple[set[int], float]], cut: int) -> None:
    """What a round does not touch is not counted again, and comes to the same."""
    fabric = fabric_of(rack(4, leaves=2))
    observations = [nvlink(*sorted(members), ratio=ratio) for members, ratio in seen]
    observations += [Observation(Test(Plane.RAIL, o.test.members), Outcome.HANG) for o in observations[:1]]
    grown = Evidence(fabric)
    for part in (observations[:cut], (), observations[cut:]):
        grown.add(part)
        weigh(grown)
    one, other = weigh(grown), believe(fabric, observations)
    assert one.probability == pytest.approx(other.probability)
    assert (one.mode, one.open, one.explanation) == (other.mode, other.open, other.explanation)
