"""Faults of parts and what tests of a fabric with them would say: seeded, in memory, thousands of racks a minute.

It is not the locator's model turned round: levels are continuous, parts differ among each other, some tests are
disturbed by something else, counters are sometimes unreadable, hangs and corruption come and go, a flapping link is
well in half of its tests, cables are not where the plan has them, and NCCL may take another way than was meant.
`toolkit.virtual.fault_classes` draws them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from toolkit.judge.locate.fabric import Fabric, Path, Plane, Test
from toolkit.judge.locate.observation import Counter, Observation, Outcome
from toolkit.judge.locate.parts import Part, PartKind

PLATEAU_BYTES = 8 << 30  # message size of tests that measure bandwidth


@dataclass(frozen=True, slots=True)
class PartFault:
    """A part's fault.

    level         bandwidth that is left; of a fault that comes and goes, the least that is left while it shows
    hang, corrupt, counts   chances a test, while it shows
    shows         chance that a test meets the fault at all
    from_bytes    smaller messages never meet it
    """

    part: Part
    level: float = 1.0
    hang: float = 0.0
    corrupt: float = 0.0
    counts: float = 0.0
    shows: float = 1.0
    from_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Detour:
    """A configuration of a node: NCCL takes another way than the plane's (NET for NVLink, sockets for RDMA).

    A communicator with such a node in it takes that way as a whole. `share`: of the bandwidth that was meant.
    """

    plane: Plane
    node: str
    share: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """Everything that is wrong in a rack. `exchanged`: endpoints whose rail cables are in each other's leaf port."""

    faults: tuple[PartFault, ...] = ()
    exchanged: tuple[tuple[int, int], ...] = ()
    detours: tuple[Detour, ...] = ()


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
    """A fabric with trouble in it; `run` says what a round's tests would say.

    wired   the fabric as its cables are: traffic takes this one's paths
    """

    fabric: Fabric
    trouble: Trouble
    rng: random.Random
    noise: Noise = field(default_factory=Noise)
    wired: Fabric = field(init=False)
    at: dict[int, list[PartFault]] = field(init=False)
    own: list[float] = field(init=False)
    detours: dict[Plane, dict[int, float]] = field(init=False)

    def __post_init__(self) -> None:
        homes = {f.part: f for f in self.trouble.faults}
        self.at = {}
        for s, segment in enumerate(self.fabric.segments):
            for part in homes.keys() & set(segment.parts) if homes else ():
                self.at.setdefault(s, []).append(homes[part])
        self.own = [1.0 - abs(self.rng.gauss(0.0, self.noise.parts)) for _ in self.fabric.segments]
        leaf = list(self.fabric.leaf)
        for one, other in self.trouble.exchanged:
            leaf[one], leaf[other] = leaf[other], leaf[one]
        self.wired = replace(self.fabric, leaf=tuple(leaf))
        self.detours = {plane: {} for plane in Plane}
        at = {s.name: n for n, s in enumerate(self.fabric.segments)} if self.trouble.detours else {}
        for detour in self.trouble.detours:
            self.detours[detour.plane][at[detour.node]] = detour.share

    def run(self, tests: Iterable[Test], message_bytes: int = PLATEAU_BYTES) -> tuple[Observation, ...]:
        """Observations of the tests, in their order. Their messages are of that size at most."""
        return tuple(self._observe(test, message_bytes) for test in tests)

    def _observe(self, test: Test, message_bytes: int) -> Observation:
        shares = [self.detours[test.plane].get(self.fabric.node[e], 1.0) for e in test.members]
        read = self.rng.random() >= self.noise.unreadable
        if min(shares) < 1.0:
            return Observation(test, Outcome.OFF_PATH, self._noisy(min(shares)), (), read)
        path = self.wired.path(test)
        slowing = self._met(path.full, message_bytes)
        # A GPU that hangs does so on its rail as well; a dead NVLink of it is not on that way.
        faults = [*slowing, *(f for f in self._met(path.fatal, message_bytes) if f.part.kind is PartKind.GPU)]
        counters = self._counters(path.full, slowing) if read else ()
        if not self._connected(test, path) or self._hangs(faults):
            return Observation(test, Outcome.HANG, None, counters, read)
        if any(self.rng.random() < f.corrupt for f in faults):
            return Observation(test, Outcome.DATA_ERROR, None, counters, read)
        levels = [self.rng.uniform(f.level, 1.0) if f.shows < 1.0 else f.level for f in slowing]
        ratio = self._noisy(min([self.own[s] for s in path.full] + levels))
        if self.rng.random() < self.noise.disturbed:
            ratio *= self.rng.uniform(0.6, 0.97)
        return Observation(test, Outcome.COMPLETED, ratio, counters, read)

    def _met(self, segments: Sequence[int], message_bytes: int) -> list[PartFault]:
        """Faults on these segments that the test meets."""
        found = [f for s in segments for f in self.at.get(s, ()) if message_bytes >= f.from_bytes]
        return [f for f in found if f.shows >= 1.0 or self.rng.random() < f.shows]

    def _connected(self, test: Test, path: Path) -> bool:
        """Whether the members reach each other: leaves do so over spines alone."""
        if test.plane is Plane.NVLINK or self.wired.spine in path.full:
            return True
        return len({self.wired.leaf[e] for e in test.members}) == 1

    def _hangs(self, faults: Sequence[PartFault]) -> bool:
        return self.rng.random() < self.noise.stray_hang or any(self.rng.random() < f.hang for f in faults)

    def _noisy(self, ratio: float) -> float:
        return ratio * (1.0 + self.rng.gauss(0.0, self.noise.spread))

    def _counters(self, segments: Sequence[int], faults: Sequence[PartFault]) -> tuple[Counter, ...]:
        found = [Counter(f.part, self.rng.randrange(1, 1000)) for f in faults if self.rng.random() < f.counts]
        if self.rng.random() < self.noise.stray * len(segments):
            parts = self.fabric.segments[self.rng.choice(segments)].parts
            found.append(Counter(self.rng.choice(parts), 1))
        return tuple(found)
