"""Faults of parts and what tests of a fabric with them would say: seeded, in memory, thousands of racks a minute.

It is not the locator's model turned round: levels are continuous, parts differ among each other, some tests are
disturbed by something else, counters are sometimes unreadable, and hangs and corruption come and go.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from toolkit.judge.locate.fabric import Fabric, Test
from toolkit.judge.locate.observation import Counter, Observation, Outcome
from toolkit.judge.locate.parts import Part, PartKind, SegmentKind


class FaultClass(StrEnum):
    """Classes of faults that are measured. The comment says how it shows."""

    NONE = "none"
    SLOW_GPU = "slow GPU"  # 60 to 90 % of its NVLink bandwidth
    NVLINK_LANE_DOWN = "NVLink lane down"  # 17 of 18 links; the link's counters tell, where they can be read
    DEAD_LINK = "dead link"  # a GPU's or an HCA's traffic never arrives: tests hang
    HALF_RATE_RAIL = "half-rate rail"  # a cable trained at half its rate
    LEAF_PORT_ERRORS = "leaf port errors"  # retransmissions: 93 to 100 % of the bandwidth, counters move
    SLOW_SWITCH_ASIC = "slow switch ASIC"  # 60 to 85 % for everybody, counters of the ASIC move
    SLOW_LEAF = "slow leaf"  # 50 to 80 % for the rail's nodes
    HOT_TRAY = "hot tray"  # 80 to 90 % for all GPUs of a node
    BAD_NODE = "bad node"  # 30 to 80 % for everything a node does
    HANG = "hang"  # a GPU's tests do not end
    DATA_CORRUPTION = "data corruption"  # a GPU returns wrong data in large messages
    TWO_FAULTS = "two faults"  # of the above, in two places


@dataclass(frozen=True, slots=True)
class PartFault:
    """A part's fault. `level`: bandwidth that is left. The rest are chances a test."""

    part: Part
    level: float = 1.0
    hang: float = 0.0
    corrupt: float = 0.0
    counts: float = 0.0


@dataclass(frozen=True, slots=True)
class Noise:
    """How far healthy readings are apart.

    spread     standard deviation of a test's bandwidth. 811 to 838 GB/s were published of repeats on GB200, 923 to 932
               of GB300 (NVCRE validation docs): half the wider range is 1.6 %
    parts      standard deviation among healthy parts. Ours: a quarter of that
    disturbed  chance that something else slows a test by up to 40 %. Ours
    unreadable chance that a test's counters cannot be read (they are in one watch with others: DCGM#265). Ours
    stray      chance that a healthy part's counters move. Ours
    """

    spread: float = 0.016
    parts: float = 0.004
    disturbed: float = 0.001
    unreadable: float = 0.1
    stray: float = 1e-5
    stray_hang: float = 2e-5


@dataclass(slots=True)
class FaultyFabric:
    """A fabric with faults; `run` says what a round's tests would say."""

    fabric: Fabric
    faults: tuple[PartFault, ...]
    rng: random.Random
    noise: Noise = field(default_factory=Noise)
    at: dict[int, list[PartFault]] = field(init=False)
    own: list[float] = field(init=False)

    def __post_init__(self) -> None:
        homes = {f.part: f for f in self.faults}
        self.at = {}
        for s, segment in enumerate(self.fabric.segments):
            for part in homes.keys() & set(segment.parts) if homes else ():
                self.at.setdefault(s, []).append(homes[part])
        self.own = [1.0 - abs(self.rng.gauss(0.0, self.noise.parts)) for _ in self.fabric.segments]

    def run(self, tests: Iterable[Test]) -> tuple[Observation, ...]:
        """Observations of the tests, in their order."""
        return tuple(self._observe(test) for test in tests)

    def _observe(self, test: Test) -> Observation:
        path = self.fabric.path(test)
        slowing = [f for s in path.full for f in self.at.get(s, ())]
        faults = [*slowing, *(f for s in path.fatal for f in self.at.get(s, ()))]
        read = self.rng.random() >= self.noise.unreadable
        counters = self._counters(path.full, slowing) if read else ()
        if self.rng.random() < self.noise.stray_hang or any(self.rng.random() < f.hang for f in faults):
            return Observation(test, Outcome.HANG, None, counters, read)
        if any(self.rng.random() < f.corrupt for f in faults):
            return Observation(test, Outcome.DATA_ERROR, None, counters, read)
        ratio = min([self.own[s] for s in path.full] + [f.level for f in slowing])
        ratio *= 1.0 + self.rng.gauss(0.0, self.noise.spread)
        if self.rng.random() < self.noise.disturbed:
            ratio *= self.rng.uniform(0.6, 0.97)
        return Observation(test, Outcome.COMPLETED, ratio, counters, read)

    def _counters(self, segments: Sequence[int], faults: Sequence[PartFault]) -> tuple[Counter, ...]:
        found = [Counter(f.part, self.rng.randrange(1, 1000)) for f in faults if self.rng.random() < f.counts]
        if self.rng.random() < self.noise.stray * len(segments):
            parts = self.fabric.segments[self.rng.choice(segments)].parts
            found.append(Counter(self.rng.choice(parts), 1))
        return tuple(found)


def draw(kind: FaultClass, fabric: Fabric, rng: random.Random) -> tuple[PartFault, ...] | None:
    """Faults of that class somewhere in the fabric; None where the fabric has no such part."""
    if kind is FaultClass.NONE:
        return ()
    if kind is FaultClass.TWO_FAULTS:
        return _two(fabric, rng)
    wanted = _WHERE[kind]
    found = [s for s in fabric.segments if s.kind in wanted and s.parts]
    kinds = sorted({s.kind for s in found})
    if not kinds:
        return None
    chosen = rng.choice(kinds)
    segment = rng.choice([s for s in found if s.kind is chosen])
    return (_fault(kind, segment.parts, rng),)


_WHERE: dict[FaultClass, tuple[SegmentKind, ...]] = {
    FaultClass.SLOW_GPU: (SegmentKind.GPU,),
    FaultClass.NVLINK_LANE_DOWN: (SegmentKind.GPU,),
    FaultClass.DEAD_LINK: (SegmentKind.GPU, SegmentKind.ATTACHMENT),
    FaultClass.HALF_RATE_RAIL: (SegmentKind.ATTACHMENT,),
    FaultClass.LEAF_PORT_ERRORS: (SegmentKind.ATTACHMENT,),
    FaultClass.SLOW_SWITCH_ASIC: (SegmentKind.SWITCH,),
    FaultClass.SLOW_LEAF: (SegmentKind.LEAF,),
    FaultClass.HOT_TRAY: (SegmentKind.NODE,),
    FaultClass.BAD_NODE: (SegmentKind.NODE,),
    FaultClass.HANG: (SegmentKind.GPU,),
    FaultClass.DATA_CORRUPTION: (SegmentKind.GPU,),
}


def _fault(kind: FaultClass, parts: Sequence[Part], rng: random.Random) -> PartFault:
    of = {p.kind: p for p in reversed(parts)}
    some = rng.choice(parts)
    if kind is FaultClass.NVLINK_LANE_DOWN:
        links = [p for p in parts if p.kind is PartKind.NVLINK]
        return PartFault(rng.choice(links), 17 / 18, counts=0.95)
    if kind is FaultClass.DEAD_LINK:
        return PartFault(of.get(PartKind.CABLE, some), hang=0.95, counts=0.5)
    if kind is FaultClass.HALF_RATE_RAIL:
        return PartFault(of[PartKind.CABLE], rng.uniform(0.48, 0.52), counts=0.1)
    if kind is FaultClass.LEAF_PORT_ERRORS:
        return PartFault(of[PartKind.LEAF_PORT], rng.uniform(0.93, 1.0), counts=0.9)
    if kind is FaultClass.SLOW_SWITCH_ASIC:
        return PartFault(some, rng.uniform(0.6, 0.85), counts=0.7)
    if kind is FaultClass.HANG:
        return PartFault(parts[0], hang=0.9)
    if kind is FaultClass.DATA_CORRUPTION:
        return PartFault(parts[0], corrupt=0.85)
    low, high = _LEVELS[kind]
    return PartFault(parts[0], rng.uniform(low, high))


_LEVELS: dict[FaultClass, tuple[float, float]] = {
    FaultClass.SLOW_GPU: (0.6, 0.9),
    FaultClass.SLOW_LEAF: (0.5, 0.8),
    FaultClass.HOT_TRAY: (0.8, 0.9),
    FaultClass.BAD_NODE: (0.3, 0.8),
}


def _two(fabric: Fabric, rng: random.Random) -> tuple[PartFault, ...]:
    single = [k for k in _WHERE if k not in (FaultClass.SLOW_SWITCH_ASIC, FaultClass.SLOW_LEAF)]
    faults: dict[Part, PartFault] = {}
    while len(faults) < 2:
        for fault in draw(rng.choice(single), fabric, rng) or ():
            faults[fault.part] = fault
    return tuple(faults.values())
