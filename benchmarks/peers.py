"""How often peers' statistics blame a healthy part, and how often they find a slow one: simulated racks, in memory.

    .venv/bin/python benchmarks/peers.py [--json] [--seed 1] [--clean 1000] [--faulty 200]

Each rack has one test's rate of every GPU: an NVL72 (18 trays of 4), a DGX H100 scalable unit (31 nodes of 8), a node
pair (2 of 8), a node (8). Noise (class Healthy) is stated with its sources. One GPU is slow by 3 to 20 %, or none is.

blame      a part is named as worse. recall: of racks with a slow part, those in which it is blamed.
alarms     of 1,000 clean racks, those in which anybody is blamed. Bounds: Wilson, one-sided, 95 %.
readings   fresh readings of suspects, and of six controls beside each, a rack; of the gate, runs of whole nodes

Baselines, in the same run on the same first readings: 3 % under the median at once; 3 % under the median twice;
3 standard deviations under the mean at once (z-score).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.peers import Comparison, Position, Reading, Rule, compare
from toolkit.judge.relative import question, trials
from toolkit.judge.sequential import Decision, Design, decide
from toolkit.rack.gate import Scope

EFFECTS = (0.03, 0.05, 0.08, 0.12, 0.2)
PLACES = {"NVL72": (18, 4), "scalable unit": (31, 8), "two nodes": (2, 8), "one node": (1, 8)}
CONTROLS = 6  # beside a suspect; others each round, of twice as many
FIXED = 0.03
SIGMAS = 3.0
RATE_GB_PER_S = 430.0
METRIC, LIMIT = "hbm_sweep_gb_per_s_median", 0.04  # as in inventory/profiles/dgx-h100.yml


@dataclass(frozen=True, slots=True)
class Healthy:
    """How far healthy readings are apart.

    repeat        standard deviation of one part's readings. 811 to 838 GB/s were published of repeats on GB200, 923 to
                  932 of GB300 (NVCRE validation documents): half the wider range is 1.6 %
    parts         standard deviation among healthy parts. Ours: a quarter of that
    slots         standard deviation of what a slot does in every node. Ours
    per_celsius   share of the rate lost for each degree of inlet air. Ours
    celsius       inlet air from the bottom of the rack to its top. Ours
    disturbed     chance that something else slows a reading by up to 40 %. Ours
    """

    repeat: float = 0.016
    parts: float = 0.004
    slots: float = 0.01
    per_celsius: float = 0.0015
    celsius: tuple[float, float] = (20.0, 29.0)
    disturbed: float = 0.001


@dataclass(slots=True)
class Rack:
    """A rack that can be read as often as one likes."""

    nodes: int
    slots: int
    rng: random.Random
    slow: tuple[int, int] | None = None
    by: float = 0.0
    noise: Healthy = field(default_factory=Healthy)
    part: dict[tuple[int, int], float] = field(init=False)
    slot: list[float] = field(init=False)
    inlet: list[float] = field(init=False)

    def __post_init__(self) -> None:
        where = [(n, s) for n in range(self.nodes) for s in range(self.slots)]
        self.part = {at: 1.0 + self.rng.gauss(0, self.noise.parts) for at in where}
        if self.slow is not None:
            self.part[self.slow] *= 1.0 - self.by
        self.slot = [1.0 + self.rng.gauss(0, self.noise.slots) for _ in range(self.slots)]
        low, high = self.noise.celsius
        self.inlet = [low + (high - low) * n / max(1, self.nodes - 1) for n in range(self.nodes)]

    def read(self, at: tuple[int, int]) -> Reading:
        """One reading."""
        node, slot = at
        value = RATE_GB_PER_S * self.part[at] * self.slot[slot] * (1 + self.rng.gauss(0, self.noise.repeat))
        value *= 1 - self.noise.per_celsius * (self.inlet[node] - self.noise.celsius[0])
        if self.rng.random() < self.noise.disturbed:
            value *= self.rng.uniform(0.6, 0.97)
        position = Position("slot", str(slot), f"node{node}")
        return Reading(Subject(Scope.GPU, f"node{node}", gpu=slot), value, (position,), self.inlet[node])

    def read_all(self) -> list[Reading]:
        """One reading of each GPU."""
        return [self.read(at) for at in self.part]


Blamed = tuple[set[Subject], int, int]  # who is blamed; fresh readings; suspects left unsettled
Method = Callable[[Rack, Sequence[Reading]], Blamed]


def ours(rack: Rack, first: Sequence[Reading]) -> Blamed:
    """Suspects by robust peers, position taken off; each settled by a sequential test against controls."""
    found = compare(first, Rule())
    if found.noise is None:
        return set(), 0, 0
    blamed: set[Subject] = set()
    fresh = unsettled = 0
    for suspect in found.suspects:
        controls = found.controls(suspect.subject)[: 2 * CONTROLS]
        count = min(CONTROLS, len(controls))
        design = found.design(noise=found.noise.against(count))
        decision, read = settle(rack, found, suspect.subject, controls, design)
        fresh += read * (1 + count)
        unsettled += decision is Decision.UNSETTLED
        if decision is Decision.WORSE:
            blamed.add(suspect.subject)
    return blamed, fresh, unsettled


def settle(
    rack: Rack, found: Comparison, suspect: Subject, controls: Sequence[Subject], design: Design
) -> tuple[Decision, int]:
    """Reads the suspect beside its controls until the test decides."""
    shifts: list[float] = []
    while True:
        beside = [rack.read(at(c)) for c in rack.rng.sample(controls, min(CONTROLS, len(controls)))]
        shifts.append(found.shift(rack.read(at(suspect)), beside))
        progress = decide(design, shifts)
        if progress.decision is not Decision.AGAIN:
            return progress.decision, progress.readings


def gate(rack: Rack, first: Sequence[Reading]) -> Blamed:
    """The same as profiles ask it: positions by slot alone, no inlet air, and what a node shares taken off."""
    subjects = [r.subject for r in first]
    asked = question(METRIC, LIMIT, subjects, [told(r) for r in first])
    blamed: set[Subject] = set()
    fresh = unsettled = 0
    for trial in trials(asked, {s.node for s in subjects}):
        shifts: list[float] = []
        while (at_last := trial.progress(shifts)).decision is Decision.AGAIN:
            beside = trial.beside(len(shifts))
            nodes = {s.node for s in (trial.suspect.subject, *beside)}
            values = {s: rack.read(at(s)).value for s in subjects if s.node in nodes}
            shift = trial.shift(values, beside)
            assert shift is not None
            shifts.append(shift)
            fresh += len(nodes)
        unsettled += at_last.decision is Decision.UNSETTLED
        if at_last.decision is Decision.WORSE:
            blamed.add(trial.suspect.subject)
    return blamed, fresh, unsettled


def told(reading: Reading) -> Measurement:
    """A reading as the burn-in records it."""
    return Measurement(METRIC, "GB/s", reading.value, reading.subject, datetime.now(UTC), "run", "origin")


def at(subject: Subject) -> tuple[int, int]:
    """Where a subject sits."""
    return int(subject.node.removeprefix("node")), subject.gpu


def ours_at_once(_: Rack, first: Sequence[Reading]) -> Blamed:
    """What `compare` alone would blame, were a suspect a finding."""
    return {p.subject for p in compare(first, Rule()).suspects}, 0, 0


def fixed(_: Rack, first: Sequence[Reading]) -> Blamed:
    """3 % under the median, at once."""
    floor = (1 - FIXED) * statistics.median(r.value for r in first)
    return {r.subject for r in first if r.value < floor}, 0, 0


def fixed_twice(rack: Rack, first: Sequence[Reading]) -> Blamed:
    """3 % under the median, and again when read once more."""
    floor = (1 - FIXED) * statistics.median(r.value for r in first)
    low = [r.subject for r in first if r.value < floor]
    return {s for s in low if rack.read(at(s)).value < floor}, len(low), 0


def z_score(_: Rack, first: Sequence[Reading]) -> Blamed:
    """3 standard deviations under the mean, at once."""
    values = [r.value for r in first]
    floor = statistics.fmean(values) - SIGMAS * statistics.stdev(values)
    return {r.subject for r in first if r.value < floor}, 0, 0


METHODS: dict[str, Method] = {
    "peers + sequential": ours,
    f"gate of {LIMIT:.0%}": gate,
    "peers, at once": ours_at_once,
    "3 % under median": fixed,
    "3 % under median, twice": fixed_twice,
    "z-score, 3 sigma": z_score,
}


@dataclass(slots=True)
class Tally:
    """Sums over racks of one kind."""

    racks: int = 0
    found: int = 0  # racks in which the slow part is blamed
    wrong: int = 0  # racks in which another is
    blamed: int = 0  # healthy parts blamed
    fresh: int = 0
    unsettled: int = 0

    def add(self, result: Blamed, slow: Subject | None) -> None:
        """One rack."""
        named, fresh, unsettled = result
        others = named - {slow}
        self.racks += 1
        self.found += slow in named
        self.wrong += bool(others)
        self.blamed += len(others)
        self.fresh += fresh
        self.unsettled += unsettled


def bound(part: int, whole: int, side: int) -> float:
    """One-sided 95 % bound of a share (Wilson): below it for side -1, above it for 1."""
    z, share = 1.6449, part / whole
    reach = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return (share + z * z / (2 * whole) + side * reach) / (1 + z * z / whole)


def measure(place: str, seed: int, clean: int, faulty: int) -> dict[str, dict[str, object]]:
    """All methods in a place, on the same first readings."""
    nodes, slots = PLACES[place]
    rng = random.Random(f"{seed} {place}")
    tallies = {name: {effect: Tally() for effect in (0.0, *EFFECTS)} for name in METHODS}
    for effect in (0.0, *EFFECTS):
        for _ in range(faulty if effect else clean):
            slow = (rng.randrange(nodes), rng.randrange(slots)) if effect else None
            rack = Rack(nodes, slots, random.Random(rng.random()), slow, effect)
            first = rack.read_all()
            subject = Subject(Scope.GPU, f"node{slow[0]}", gpu=slow[1]) if slow else None
            for name, method in METHODS.items():
                tallies[name][effect].add(method(rack, first), subject)
    return {name: row(by_effect) for name, by_effect in tallies.items()}


def row(by_effect: dict[float, Tally]) -> dict[str, object]:
    """For JSON."""
    none = by_effect[0.0]
    every = list(by_effect.values())
    return {
        "clean_racks": none.racks,
        "false_alarms_per_1000_clean": round(1000 * none.wrong / none.racks, 2),
        "false_alarms_per_1000_clean_at_most": round(1000 * bound(none.wrong, none.racks, 1), 2),
        "healthy_parts_blamed": sum(t.blamed for t in every),
        "recall": {
            f"{effect:.0%}": {
                "racks": t.racks,
                "recall": round(t.found / t.racks, 4),
                "at_least": round(bound(t.found, t.racks, -1), 4),
                "unsettled": t.unsettled,
            }
            for effect, t in by_effect.items()
            if effect
        },
        "fresh_readings_per_clean_rack": round(none.fresh / none.racks, 2),
    }


def show(results: dict[str, dict[str, dict[str, object]]]) -> None:
    """The table for people."""
    for place, methods in results.items():
        nodes, slots = PLACES[place]
        print(f"\n{place}: {nodes * slots} GPUs")
        head = ["", "clean", "alarms/k", "at most", "readings", *(f"slow {e:.0%}" for e in EFFECTS)]
        print(("{:26}" + "{:>10}" * 4 + "{:>14}" * len(EFFECTS)).format(*head))
        for name, cells in methods.items():
            recall = cells["recall"]
            assert isinstance(recall, dict)
            shown = [f"{r['recall']:.3f} ({r['at_least']:.3f})" for r in recall.values()]
            first = [cells["clean_racks"], cells["false_alarms_per_1000_clean"]]
            first += [cells["false_alarms_per_1000_clean_at_most"], cells["fresh_readings_per_clean_rack"]]
            print(("{:26}" + "{:>10}" * 4 + "{:>14}" * len(EFFECTS)).format(name, *map(str, first), *shown))
    print("\nslow: recall (95 % lower bound)")


def main() -> int:
    """Measures every place."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--clean", type=int, default=1000, help="clean racks, each place")
    options.add_argument("--faulty", type=int, default=200, help="racks with a slow GPU, each place and effect")
    options.add_argument("--place", choices=tuple(PLACES), action="append")
    asked = options.parse_args()
    if min(asked.clean, asked.faulty) < 1:
        options.error("--clean and --faulty: one rack at least")
    results = {}
    for place in asked.place or PLACES:
        print(f"{place} ...", file=sys.stderr)
        results[place] = measure(place, asked.seed, asked.clean, asked.faulty)
    if asked.json:
        print(json.dumps({"seed": asked.seed, "places": results}, indent=2))
    else:
        show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
