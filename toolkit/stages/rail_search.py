"""The search for what is slow between nodes: rounds of tests until no more of them would change the answer. Pure.

Who measures is given, so that the same search runs over mpirun on a rack and over a model in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from toolkit.errors import UsageError
from toolkit.judge.ceilings import nic_bound
from toolkit.judge.evidence import Measurement
from toolkit.judge.locate import (
    Bounds,
    Evidence,
    Fabric,
    Localisation,
    Measured,
    Observation,
    Outcome,
    Plane,
    Suspect,
    Test,
    controls,
    fabric_of,
    healthy_rates,
    next_round,
    observe,
    weigh,
)
from toolkit.judge.locate.outside import with_leaves
from toolkit.judge.locate.parts import PartKind, Segment, SegmentKind
from toolkit.judge.locate.suspects import in_words
from toolkit.rack.metric import COLLECTIVES, collective_metric
from toolkit.rack.model import LinkKind, Rack, Unit, UnitKind

MOST_ROUNDS = 16
# Of the closed form: RDMA carries 0.95 of a port's rate at large sizes (Azure/azurehpc-health-checks, 380 of 400
# Gbit/s). Our judgement: NCCL on top of it is healthy from 0.9 on. It counts only where all rails are slow together.
FLOOR_SHARE = 0.9
_LOSSES = 2  # rounds with a test that could not be measured, after which we stop
# Shown on a work order, by what the suspect does.
_CODES = {"hangs": "RAIL_HANGS", "corrupts data": "RAIL_CORRUPTS_DATA", "counts errors": "RAIL_COUNTS_ERRORS"}


@dataclass(frozen=True, slots=True)
class Lost:
    """A test that told nothing of the hardware, twice: why."""

    test: Test
    why: str


Ran = Measured | Lost
MeasureRound = Callable[[int, Sequence[Test]], Sequence[Ran]]
"""Runs the tests of a round, whose number from 1 it is told."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the search came to.

    ran     every test of every round
    unsure  why it ended before the answer stood; empty: no test was left that could change it
    """

    fabric: Fabric
    localisation: Localisation
    ran: tuple[tuple[Ran, ...], ...]
    unsure: str

    @property
    def tests(self) -> int:
        """Tests of all rounds."""
        return sum(map(len, self.ran))


def rails_of(rack: Rack, nodes: Sequence[Unit]) -> Fabric:
    """The rails between these nodes. UsageError where they have none in common."""
    rack = with_leaves(rack)
    names = {node.name for node in nodes}
    gone = {u.name for u in rack.units if u.kind is UnitKind.NODE} - names
    units = tuple(u for u in rack.units if u.name not in gone)
    links = tuple(k for k in rack.links if not gone & {k.a.unit, k.b.unit})
    fabric = fabric_of(replace(rack, units=units, links=links))
    blocks = tuple(b for b in fabric.blocks if b.plane is Plane.RAIL)
    if not blocks:
        raise UsageError(
            f"no rail leads from one to another of {', '.join(sorted(names))}",
            f"give {rack.name} its InfiniBand links, or its profile `rail_test: false`",
        )
    return replace(fabric, blocks=blocks)


def bounds_of(rack: Rack) -> dict[Plane, Bounds]:
    """What a rail's tests lie between: the closed form of two nodes with one HCA each, and a share of it."""
    names = {node.name for node in rack.nodes}
    links = with_leaves(rack).links
    rates = [k.rate_gb_per_s for k in links if k.kind is LinkKind.INFINIBAND and k.a.unit in names]
    if not rates:
        raise UsageError(f"{rack.name} has no InfiniBand link", "add them to its rack file")
    ceiling = nic_bound(min(rates), 2, 1).gb_per_s
    return {Plane.RAIL: Bounds(FLOOR_SHARE * ceiling, ceiling)}


def leaves_of(rack: Rack, nodes: Collection[str]) -> frozenset[str]:
    """The leaves that rails of these nodes end on."""
    links = with_leaves(rack).links
    return frozenset(k.b.unit for k in links if k.kind is LinkKind.INFINIBAND and k.a.unit in nodes)


def own_suites(fabric: Fabric, measured: Mapping[str, Sequence[Measurement]]) -> tuple[Observation, ...]:
    """What the collectives of nodes' own suites say, as tests of all GPUs of a node: that these neither hang nor
    corrupt data, which tests of a rail cannot tell from the rail. `measured`: by node; of nodes that are well alone.

    A rate is set against the median of these nodes.
    """
    rates = {
        (node, collective): float(m.value)
        for node, told in measured.items()
        for collective in COLLECTIVES
        for m in told
        if m.metric == collective_metric(collective, "busbw_gb_per_s") and isinstance(m.value, int | float)
    }
    healthy = {c: median([rate for (_, of), rate in rates.items() if of == c]) for _, c in rates}
    return tuple(
        Observation(Test(Plane.NVLINK, gpus), Outcome.COMPLETED, rates[node, c] / healthy[c])
        for node, c in rates
        if (gpus := _gpus_of(fabric, node)) and healthy[c] > 0
    )


def _gpus_of(fabric: Fabric, node: str) -> tuple[int, ...]:
    return tuple(e for e, n in enumerate(fabric.node) if fabric.segments[n].name == node and fabric.gpu[e] >= 0)


def search(
    fabric: Fabric,
    bounds: dict[Plane, Bounds],
    measure: MeasureRound,
    out_of_time: Callable[[], bool],
    known: Iterable[Observation] = (),
    soak: int = 0,
) -> Found:
    """Rounds until no test is left that could change the answer, or there is a reason to stop before.

    known   what was observed before
    soak    readings that every rail gets at least, so that one that comes and goes is seen
    """
    evidence, healthy, losses = Evidence.of(fabric, known), dict[tuple[Plane, int], float](), 0
    done: list[tuple[Ran, ...]] = []
    while True:
        belief = weigh(evidence)
        tests = tuple(t for t in next_round(belief, soak).tests if t.plane is Plane.RAIL)
        unsure = _reason_to_stop(done, losses, out_of_time) if tests else ""
        if unsure or not tests:
            return Found(fabric, in_words(belief), tuple(done), unsure)
        ran = tuple(measure(len(done) + 1, (*tests, *controls(belief, tests, healthy))))
        told = [r for r in ran if isinstance(r, Measured)]
        losses += len(told) < len(ran)
        healthy = healthy_rates(told, bounds) | healthy
        # Of too few tests no median says what is healthy: they are set against the floor, and what is above it is well.
        floors = {(r.test.plane, len(r.test.members)): bounds[r.test.plane].floor_gb_per_s for r in told}
        evidence.add(observe(told, floors | healthy, bounds))
        done.append(ran)


def _reason_to_stop(done: Sequence[Sequence[Ran]], losses: int, out_of_time: Callable[[], bool]) -> str:
    if out_of_time():
        return f"its time was up after {len(done)} rounds"
    if losses >= _LOSSES:
        lost = [r for ran in done for r in ran if isinstance(r, Lost)]
        return f"{len(lost)} tests told nothing of the rails, the last: {lost[-1].why}"
    return f"{MOST_ROUNDS} rounds did not settle it" if len(done) >= MOST_ROUNDS else ""


def code_of(suspect: Suspect) -> str:
    """The finding's code."""
    return _CODES.get(suspect.shows, "RAIL_SLOW")


def node_of(fabric: Fabric, segment: Segment) -> str:
    """The node that leaves with the segment; empty for what several nodes share."""
    if segment.kind in (SegmentKind.LEAF, SegmentKind.SPINE, SegmentKind.SWITCH):
        return ""
    names = {fabric.segments[n].name for n in fabric.node}
    return next((n for p in segment.parts for n in [p.name.partition(":")[0]] if n in names), "")


def touched(fabric: Fabric, segment: Segment) -> frozenset[str]:
    """The nodes whose rails cross the segment."""
    index = fabric.segments.index(segment)
    columns = (fabric.attachment, fabric.leaf, fabric.node, fabric.gpu)
    ends = [e for e, n in enumerate(fabric.node) if fabric.spine == index or any(c[e] == index for c in columns)]
    return frozenset(fabric.segments[fabric.node[e]].name for e in ends)


def doubtful(found: Found) -> dict[str, str]:
    """Nodes of which nobody can say that their rails are well, with what would settle it. Never those convicted."""
    convicted = {node_of(found.fabric, s.segment) for s in found.localisation.convicted}
    why: dict[str, str] = {}
    for suspect in found.localisation.suspects:
        if suspect.convicted and node_of(found.fabric, suspect.segment):
            continue
        words = f"{suspect.part} with probability {suspect.probability:.0%}; to settle it: {suspect.settled_by}"
        for node in touched(found.fabric, suspect.segment):
            why.setdefault(node, words)
    judged = {s.segment for s in found.localisation.suspects}
    for segment in found.localisation.open:
        if segment in judged or segment.kind in (SegmentKind.GPU, SegmentKind.SWITCH):
            continue  # what a rail's test hardly tells of, and the node's own suite does
        for node in touched(found.fabric, segment):
            why.setdefault(node, f"{segment.name} is not ruled out")
    return {node: words for node, words in why.items() if node not in convicted}


def shares(suspect: Suspect) -> str:
    """The parts that bandwidth cannot tell apart, likeliest first."""
    return ", ".join(f"{part} {share:.0%}" for part, share in suspect.parts if share >= 0.01)


def named(suspect: Suspect) -> str:
    """What to pull: the likeliest part; a cable's name holds both its ends."""
    if suspect.part.kind is PartKind.NODE:
        return f"tray {suspect.part.name}"
    return str(suspect.part)
