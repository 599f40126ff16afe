"""What shows in some tests only: links that come and go, data that is wrong in large messages, faults behind others."""

from __future__ import annotations

import random

import pytest
from locating import fabric, located

from toolkit.judge.locate import (
    Counter,
    Evidence,
    Observation,
    Outcome,
    Part,
    PartKind,
    Plane,
    Test,
    believe,
    localise,
    next_round,
    weigh,
)
from toolkit.virtual.fabric_faults import CORRUPT_FROM_BYTES, FaultClass, draw
from toolkit.virtual.fault_model import FaultyFabric, Noise, PartFault, Trouble

LINK = Part(PartKind.NVLINK, "tray02:gpu1.nvlink5")
GPU = 5  # the endpoint of tray02:gpu1
QUIET = Noise(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_link_that_was_down_in_half_of_its_tests_is_named_as_one_that_comes_and_goes() -> None:
    """Slow twice and well twice, with its counter moving when it was slow."""
    where = fabric("gb200-nvl72")
    partners = iter(range(8, 60))

    def test(ratio: float, errors: int) -> Observation:
        counters = (Counter(LINK, errors),) if errors else ()
        return Observation(Test(Plane.NVLINK, (GPU, next(partners))), Outcome.COMPLETED, ratio, counters, True)

    seen = [test(1.0, 0), test(0.4, 505), test(1.0, 0), test(0.7, 31)]
    seen.append(Observation(Test(Plane.NVLINK, tuple(range(8, 72))), Outcome.COMPLETED, 1.0, (), True))
    (suspect,) = localise(where, seen).convicted
    assert (suspect.part, suspect.shows) == (LINK, "comes and goes")


def test_two_tests_that_something_disturbed_convict_nobody() -> None:
    """Slow twice without a counter, and well as often, is no proof of a link that comes and goes."""
    where = fabric("gb200-nvl72")
    slow = [Observation(Test(Plane.NVLINK, (GPU, e)), Outcome.COMPLETED, 0.7, (), True) for e in (9, 13)]
    well = [Observation(Test(Plane.NVLINK, (GPU, e)), Outcome.COMPLETED, 1.0, (), True) for e in (17, 21)]
    well.append(Observation(Test(Plane.NVLINK, tuple(range(8, 72))), Outcome.COMPLETED, 1.0, (), True))
    assert localise(where, [*slow, *well]).convicted == ()


def test_the_model_shows_a_flapping_link_in_its_share_of_tests() -> None:
    """And in the others nothing: neither its rate nor its counter."""
    where = fabric("gb200-nvl72")
    fault = PartFault(LINK, 0.2, counts=1.0, shows=0.5)
    world = FaultyFabric(where, Trouble((fault,)), random.Random(1), QUIET)
    seen = world.run([Test(Plane.NVLINK, (GPU, 40))] * 400)
    shown = [o for o in seen if o.counters]
    assert 150 < len(shown) < 250
    assert {o.ratio for o in seen if not o.counters} == {1.0}
    assert all(o.ratio is not None and 0.2 <= o.ratio < 1.0 for o in shown)


@pytest.mark.parametrize(("message_bytes", "outcome"), [(1 << 20, "completed"), (CORRUPT_FROM_BYTES, "data_error")])
def test_wrong_data_shows_from_two_mib_on(message_bytes: int, outcome: str) -> None:
    """Tests of small messages pass on a GPU that corrupts large ones."""
    where = fabric("gb200-nvl72")
    fault = PartFault(Part(PartKind.GPU, "tray02:gpu1"), corrupt=1.0, from_bytes=CORRUPT_FROM_BYTES)
    world = FaultyFabric(where, Trouble((fault,)), random.Random(1), QUIET)
    (seen,) = world.run([Test(Plane.NVLINK, (GPU, 40))], message_bytes)
    assert seen.outcome == outcome


def test_a_dead_rail_of_a_slow_node_is_named_beside_it() -> None:
    """A node that is only slow hides no dead cable: its suspects are read again."""
    where = fabric("demo")
    node, cable = Part(PartKind.NODE, "node2"), Part(PartKind.CABLE, "node2:mlx5_7 - leaf8:2")
    for seed in range(5):
        said = located(where, Trouble((PartFault(node, 0.6), PartFault(cable, hang=1.0))), seed)
        assert {s.part for s in said.convicted} == {node, cable}, f"seed {seed}"


def test_an_endpoint_whose_partners_are_all_bad_is_set_beside_others() -> None:
    """Nobody is left untested because the group he was planned in is spoilt."""
    where = fabric("demo")
    bad = tuple(PartFault(Part(PartKind.NODE, n), 0.5) for n in ("node2", "node6"))
    said = located(where, Trouble(bad), seed=1)
    assert {s.part for s in said.convicted} == {f.part for f in bad}
    assert not [s.name for s in said.open if s.name.startswith("node4")]


def test_a_dead_nvlink_does_not_hang_the_rail_beside_it() -> None:
    """Its GPU does, its link is not on that way."""
    where = fabric("demo")
    tests = [Test(Plane.RAIL, (0, 8)), Test(Plane.NVLINK, (0, 1))]
    link, gpu = Part(PartKind.NVLINK, "node1:gpu0.nvlink3"), Part(PartKind.GPU, "node1:gpu0")
    outcomes = {
        part: [o.outcome for o in FaultyFabric(where, _hangs(part), random.Random(1), QUIET).run(tests)]
        for part in (link, gpu)
    }
    assert outcomes == {link: [Outcome.COMPLETED, Outcome.HANG], gpu: [Outcome.HANG, Outcome.HANG]}


def _hangs(part: Part) -> Trouble:
    return Trouble((PartFault(part, hang=1.0),))


@pytest.mark.parametrize("kind", FaultClass)
def test_a_draw_is_repeatable_and_of_its_class(kind: FaultClass) -> None:
    """The same seed draws the same; none draws nothing; several draw as many."""
    where = fabric("demo")
    one, other = (draw(kind, where, random.Random(9)) for _ in range(2))
    assert one == other
    assert one is not None
    wrong = len(one.faults) + len(one.exchanged) + bool(one.detours)
    assert wrong == {FaultClass.NONE: 0, FaultClass.TWO_FAULTS: 2, FaultClass.THREE_FAULTS: 3}.get(kind, 1)


def test_a_healthy_reading_beside_a_link_that_comes_and_goes_keeps_its_partner_clear() -> None:
    """The partner met in a bad moment is not a suspect once the link is known."""
    where = fabric("gb200-nvl72")
    hit = [
        Observation(Test(Plane.NVLINK, (GPU, e)), Outcome.COMPLETED, 0.4, (Counter(LINK, 9),), True) for e in (40, 44)
    ]
    clean = [Observation(Test(Plane.NVLINK, tuple(range(8, 72))), Outcome.COMPLETED, 1.0, (), True)] * 3
    belief = believe(where, [*hit, *clean])
    assert {where.segments[s].name for s, p in belief.probability.items() if p > 0.05} == {"tray02:gpu1"}


def test_every_end_is_read_as_often_as_a_soak_asks_for() -> None:
    """On a quiet clean fabric: eight readings of every GPU and every rail, and not a round more than that takes."""
    where = fabric("gb200-nvl72")
    world = FaultyFabric(where, Trouble(), random.Random(1), QUIET)
    evidence, rounds = Evidence(where), 0
    while tests := next_round(weigh(evidence), 8).tests:
        evidence.add(world.run(tests))
        rounds += 1
    read = [len(evidence.full.get(s, ())) for plane in Plane for s in set(where.columns(plane)[0]) if s >= 0]
    assert (min(read), rounds) == (8, 8)


def test_a_soak_finds_links_that_come_and_go_which_a_short_search_misses() -> None:
    """Forty drawn flapping links: those named with eight readings of every end, against those named without."""
    where = fabric("gb200-nvl72")

    def named(soak: int) -> int:
        found = 0
        for seed in range(40):
            trouble = draw(FaultClass.FLAPPING_LINK, where, random.Random(f"soak {seed}"))
            assert trouble is not None
            bad = {s.name for s in where.segments for f in trouble.faults if f.part in s.parts}
            convicted = {s.segment.name for s in located(where, trouble, seed, soak=soak).convicted}
            assert convicted <= bad, f"seed {seed}"
            found += convicted == bad
        return found

    short, soaked = named(0), named(8)
    assert soaked >= 38 and soaked > short
