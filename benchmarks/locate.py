"""How well, how fast and in how many rounds a bad part is located: thousands of racks with drawn faults, in memory.

    .venv/bin/python benchmarks/locate.py [--json] [--seed 1] [--seconds 150] [--place NAME] [--trials N] [--clean N]

Places: one NVL72 domain, one DGX H100 scalable unit (both from the inventory: rails that end on one leaf each), and
four scalable units of 31 nodes, 232 and 1,024 DGX H100 nodes (made here: rails over leaves and spines). Baselines in
the same run, on the same faults: all pairs in sequence, circle-method pairs in parallel, bisection.
Without --trials the time is shared out among places and fault classes, and the table says how many trials there were.

recall      a fault's segment is convicted (a fault's segment: the parts bandwidth cannot tell apart)
            (its bound: Wilson's, one-sided, 95 %; so is that of false alarms)
precision   of the segments convicted, how many have a fault; "part": the likeliest part is the faulty one
rounds      until the last fault is named for good / until everything else is ruled out as well
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from toolkit.judge.locate import Evidence, Fabric, Observation, Outcome, Plane, Test, fabric_of, next_round, weigh
from toolkit.judge.locate.suspects import convicted, in_words
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Gpu, Hca, Link, LinkKind, Mode, Port, Profile, Rack, Unit, UnitKind
from toolkit.virtual.fault_model import FaultClass, FaultyFabric, PartFault, draw

MOST_ROUNDS = 24
RAILS = 8
MOST_PAIRS = 100_000  # beyond that all pairs are counted, not run: their rounds and tests do not depend on luck
SLOW = 0.93  # what the baselines call slow: the usual gate, about 4 standard deviations of one reading
INVENTORY = Path(__file__).parent.parent / "inventory"


def synthetic(name: str, units: int, nodes_per_unit: int) -> Rack:
    """Scalable units of DGX H100, 8 rails on 8 leaves each, joined by 16 spines."""
    racks = []
    links = []
    for u in range(units):
        for n in range(nodes_per_unit):
            node = f"u{u}n{n}"
            hcas = tuple(Hca(f"mlx5_{r}", f"0x{u:02x}{n:04x}{r:02x}", r) for r in range(RAILS))
            gpus = tuple(Gpu(g) for g in range(RAILS))
            racks.append(Unit(node, UnitKind.NODE, f"S{u}-{n}", n, gpus=gpus, hcas=hcas))
            for r in range(RAILS):
                ends = Port(node, f"mlx5_{r}"), Port(f"u{u}leaf{r}", str(n + 1))
                links.append(Link(*ends, LinkKind.INFINIBAND, 50.0, "cable"))
        racks += [Unit(f"u{u}leaf{r}", UnitKind.LEAF, f"L{u}-{r}", 40 + r) for r in range(RAILS)]
    racks += [Unit(f"spine{s}", UnitKind.SPINE, f"P{s}", 50) for s in range(16)]
    profile = Profile(
        name, "DGX H100", Mode.NVSWITCH_GEN3, 8, 18, 26.562, RAILS, (), "", (), (), (), timedelta(days=30), virtual=True
    )
    return Rack(name, "synthetic", profile, tuple(racks), tuple(links), "")


def places() -> dict[str, Callable[[], Fabric]]:
    """By name."""
    return {
        "NVL72 domain": lambda: fabric_of(load_rack("gb200-nvl72", INVENTORY)),
        "scalable unit (31 nodes)": lambda: fabric_of(load_rack("dgx-h100-su", INVENTORY)),
        "four scalable units (124 nodes)": lambda: fabric_of(synthetic("n124", 4, 31)),
        "232 nodes": lambda: fabric_of(synthetic("n232", 8, 29)),
        "1,024 nodes": lambda: fabric_of(synthetic("n1024", 32, 32)),
    }


@dataclass(slots=True)
class Tally:
    """Sums over the trials of a method on a fault class in a place."""

    trials: int = 0
    faults: int = 0
    recalled: int = 0
    named: int = 0
    true: int = 0
    exact: int = 0
    clean: int = 0  # racks without a fault
    alarmed: int = 0  # of those, racks in which something was convicted
    unsettled: int = 0  # racks left with a fault that is suspected, not proven
    named_in: list[int] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    tests: list[int] = field(default_factory=list)
    decision_s: float = 0.0  # longest decision, CPU seconds

    def row(self) -> dict[str, object]:
        """For JSON; None where there is nothing to divide by."""
        return {
            "trials": self.trials,
            "recall": _share(self.recalled, self.faults),
            "recall_at_least": _bound(self.recalled, self.faults, -1),
            "segment_precision": _share(self.true, self.named),
            "part_precision": _share(self.exact, self.named),
            "clean_racks": self.clean,
            "false_alarms_per_1000_clean": _share(1000 * self.alarmed, self.clean),
            "false_alarms_per_1000_clean_at_most": _bound(self.alarmed, self.clean, 1, per=1000),
            "unsettled": self.unsettled,
            "rounds_to_name": _spread(self.named_in),
            "rounds": _spread(self.rounds),
            "tests": _spread(self.tests),
            "decision_cpu_s": round(self.decision_s, 3) if self.decision_s else None,
        }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _bound(part: int, whole: int, side: int, per: int = 1) -> float | None:
    """One-sided 95 % bound of a share (Wilson): below it for side -1, above it for 1."""
    if not whole:
        return None
    z, share = 1.6449, part / whole
    centre = share + z * z / (2 * whole)
    reach = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return round(per * (centre + side * reach) / (1 + z * z / whole), 4)


def _spread(values: Sequence[int]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "max": ordered[-1],
    }


def drawn_from(seed: int | str) -> random.Random:
    """Repeatable chance."""
    return random.Random(seed)  # noqa: S311 - a simulation, not a secret


def homes(fabric: Fabric, faults: Sequence[PartFault]) -> dict[str, str]:
    """By name of the segment that holds a fault: the faulty part."""
    parts = {f.part for f in faults}
    return {s.name: str(p) for s in fabric.segments for p in s.parts if p in parts}


def ours(fabric: Fabric, faults: Sequence[PartFault], seed: int, tally: Tally) -> None:
    """One rack, located by us."""
    world = FaultyFabric(fabric, tuple(faults), drawn_from(seed))
    truth = homes(fabric, faults)
    evidence = Evidence(fabric)
    named_since: dict[str, int] = {}
    rounds = 0
    seen: tuple[Observation, ...] = ()
    while True:
        start = time.process_time()
        evidence.add(seen)
        belief = weigh(evidence)
        following = next_round(belief)
        tally.decision_s = max(tally.decision_s, time.process_time() - start)
        names = {fabric.segments[s].name for s in belief.probability if convicted(belief, s)}
        named_since = {n: named_since.get(n, rounds) for n in names}
        if not following.tests or rounds == MOST_ROUNDS:
            break
        seen = world.run(following.tests)
        rounds += 1
    final = in_words(belief)
    proven = {s.segment.name: str(s.part) for s in final.convicted}
    _count(tally, truth, set(proven), rounds, len(evidence.observations))
    tally.exact += sum(truth.get(name) == part for name, part in proven.items())
    tally.unsettled += any(s.segment.name in truth and not s.convicted for s in final.suspects)
    if truth and set(truth) <= set(proven):
        tally.named_in.append(max(named_since[n] for n in truth))


def _count(tally: Tally, truth: dict[str, str], proven: set[str], rounds: int, tests: int) -> None:
    tally.trials += 1
    tally.faults += len(truth)
    tally.recalled += len(truth.keys() & proven)
    tally.named += len(proven)
    tally.true += len(truth.keys() & proven)
    tally.clean += not truth
    tally.alarmed += not truth and bool(proven)
    tally.rounds.append(rounds)
    tally.tests.append(tests)


def _bad(observation: Observation) -> bool:
    return observation.outcome is not Outcome.COMPLETED or (observation.ratio or 0.0) < SLOW


def circle(members: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """Rounds of pairs: everybody meets everybody once (circle method)."""
    ring: list[int] = [*members, *([-1] if len(members) % 2 else [])]
    for _ in range(len(ring) - 1):
        half = len(ring) // 2
        pairs = zip(ring[:half], reversed(ring[half:]), strict=True)
        yield [(a, b) for a, b in pairs if min(a, b) >= 0]
        ring = [ring[0], ring[-1], *ring[1:-1]]


def pairs(fabric: Fabric, faults: Sequence[PartFault], seed: int, tally: Tally, parallel: bool) -> None:
    """All pairs of every block; a segment that is slow in more than half of its pairs is named."""
    every = sum(len(b.members) * (len(b.members) - 1) // 2 for b in fabric.blocks)
    if every > MOST_PAIRS:
        deep = sum(max((len(b.members) - 1 | 1 for b in fabric.blocks if b.plane is p), default=0) for p in Plane)
        tally.rounds.append(deep if parallel else every)
        tally.tests.append(every)
        return
    world = FaultyFabric(fabric, tuple(faults), drawn_from(seed))
    truth = homes(fabric, faults)
    bad: Counter[int] = Counter()
    met: Counter[int] = Counter()
    rounds = tests = 0
    longest = {plane: 0 for plane in Plane}
    for block in fabric.blocks:
        for number, round_ in enumerate(circle(block.members), 1):
            longest[block.plane] = max(longest[block.plane], number)
            for observation in world.run(Test(block.plane, pair) for pair in round_):
                tests += 1
                for s in fabric.path(observation.test).full:
                    met[s] += 1
                    bad[s] += _bad(observation)
    rounds = sum(longest.values()) if parallel else tests
    found = _highest(fabric, {s for s in met if bad[s] > met[s] / 2})
    _count(tally, truth, {fabric.segments[s].name for s in found}, rounds, tests)
    tally.named_in.append(rounds)


def _highest(fabric: Fabric, found: set[int]) -> set[int]:
    """What is named stands for what is inside it: a domain's switches for its nodes, a node or a leaf for its ends."""
    covered: set[int] = set()
    shared = {fabric.switch[e] for e in range(len(fabric.endpoints)) if fabric.switch[e] == fabric.switch[0]}
    domain_wide = len({fabric.node[e] for e in range(len(fabric.endpoints)) if fabric.switch[e] in shared}) > 1
    for e in range(len(fabric.endpoints)):
        if {fabric.node[e], fabric.leaf[e], fabric.switch[e]} & found:
            covered |= {fabric.gpu[e], fabric.attachment[e]}
        if fabric.switch[e] in found and fabric.node[e] in found:
            covered.add(fabric.node[e] if domain_wide else fabric.switch[e])
    return found - covered


def bisection(fabric: Fabric, faults: Sequence[PartFault], seed: int, tally: Tally) -> None:
    """Halves of every block while a half is slow, all at once; the last few each beside a member of a good half."""
    world = FaultyFabric(fabric, tuple(faults), drawn_from(seed))
    truth = homes(fabric, faults)
    rounds = tests = 0
    named: set[int] = set()
    for plane in Plane:
        column = fabric.gpu if plane is Plane.NVLINK else fabric.attachment
        for block in (b for b in fabric.blocks if b.plane is plane):
            groups, good, last = [list(block.members)], [], []
            deep = 0
            while groups:
                deep += 1
                seen = world.run(Test(plane, tuple(g)) for g in groups)
                tests += len(seen)
                slow = [g for g, o in zip(groups, seen, strict=True) if _bad(o)]
                good += [e for g, o in zip(groups, seen, strict=True) if not _bad(o) for e in g]
                last += [e for g in slow if len(g) < 4 for e in g]
                groups = [h for g in slow if len(g) >= 4 for h in (g[: len(g) // 2], g[len(g) // 2 :])]
            ends = world.run(Test(plane, (e, p)) for e, p in zip(last, good, strict=False))
            tests += len(ends)
            rounds = max(rounds, deep + bool(ends))
            named |= {column[o.test.members[0]] for o in ends if _bad(o)} | {column[e] for e in last[len(good) :]}
    _count(tally, truth, {fabric.segments[s].name for s in named}, rounds, tests)
    tally.named_in.append(rounds)


# Where time allows only a few trials, these come first.
FIRST = (FaultClass.BAD_NODE, FaultClass.TWO_FAULTS, FaultClass.NONE, FaultClass.HALF_RATE_RAIL)
ORDER = (*FIRST, *(k for k in FaultClass if k not in FIRST))

METHODS: dict[str, Callable[[Fabric, Sequence[PartFault], int, Tally], None]] = {
    "all pairs in sequence": lambda f, x, s, t: pairs(f, x, s, t, parallel=False),
    "circle-method pairs": lambda f, x, s, t: pairs(f, x, s, t, parallel=True),
    "bisection": bisection,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is run. `trials` and `clean` of a fault class and of the clean rack; None: what the time allows."""

    seed: int
    seconds: float
    trials: int | None
    clean: int | None
    classes: tuple[FaultClass, ...]


def measure(name: str, fabric: Fabric, plan: Plan, share_s: float) -> dict[str, object]:
    """All classes and methods in a place."""
    classes = [k for k in ORDER if k in plan.classes and draw(k, fabric, drawn_from(0)) is not None]
    tallies = {k: Tally() for k in classes}
    rng = drawn_from(f"{plan.seed} {name}")
    deadline = time.monotonic() + share_s * 0.85
    number = 0
    while True:
        kind = classes[number % len(classes)]
        wanted = plan.clean if kind is FaultClass.NONE else plan.trials
        if wanted is None or tallies[kind].trials < wanted:
            ours(fabric, draw(kind, fabric, rng) or (), rng.randrange(2**40), tallies[kind])
        number += 1
        if plan.trials is None and time.monotonic() > deadline:
            break
        if plan.trials is not None and all(
            t.trials >= (plan.clean or plan.trials if k is FaultClass.NONE else plan.trials) for k, t in tallies.items()
        ):
            break
    # False alarms are rare: they need clean racks by the thousand, where a rack takes milliseconds.
    while plan.trials is None and FaultClass.NONE in tallies and time.monotonic() < deadline + share_s * 0.05:
        ours(fabric, (), rng.randrange(2**40), tallies[FaultClass.NONE])
    baselines = _baselines(fabric, classes, rng, share_s * 0.1)
    alike = list(tallies.values())
    return {
        "endpoints": len(fabric.endpoints),
        "segments": len(fabric.segments),
        "all": _merged(alike).row(),
        "classes": {k.value: t.row() for k, t in tallies.items()},
        "baselines": baselines,
    }


def _merged(tallies: Sequence[Tally]) -> Tally:
    whole = Tally()
    for tally in tallies:
        for name in ("trials", "faults", "recalled", "named", "true", "exact", "clean", "alarmed", "unsettled"):
            setattr(whole, name, getattr(whole, name) + getattr(tally, name))
        whole.named_in += tally.named_in
        whole.rounds += tally.rounds
        whole.tests += tally.tests
        whole.decision_s = max(whole.decision_s, tally.decision_s)
    return whole


def _baselines(fabric: Fabric, classes: Sequence[FaultClass], rng: random.Random, share_s: float) -> dict[str, object]:
    """On faults drawn alike. A method that one trial takes longer than its time gets that one."""
    rows: dict[str, object] = {}
    for name, method in METHODS.items():
        tally = Tally()
        deadline = time.monotonic() + share_s / len(METHODS)
        while not tally.rounds or (tally.trials and time.monotonic() < deadline):
            kind = classes[tally.trials % len(classes)]
            method(fabric, draw(kind, fabric, rng) or (), rng.randrange(2**40), tally)
        rows[name] = {**tally.row(), "part_precision": None, "unsettled": None}  # they name no part below the segment
    return rows


_HEAD = (
    *("", "trials", "recall", "at least", "precision", "part", "alarms/k", "at most"),
    *("named in", "rounds", "tests", "CPU s"),
)


def show(results: dict[str, dict[str, object]]) -> None:
    """The table for people."""
    for place, result in results.items():
        print(f"\n{place}: {result['endpoints']} endpoints, {result['segments']} segments")
        print(("{:24}" + "{:>11}" * 11).format(*_HEAD))
        classes, baselines = result["classes"], result["baselines"]
        assert isinstance(classes, dict) and isinstance(baselines, dict)
        for name, row in {"all": result["all"], **classes, **baselines}.items():
            cells = [
                row["trials"],
                row["recall"],
                row["recall_at_least"],
                row["segment_precision"],
                row["part_precision"],
                row["false_alarms_per_1000_clean"],
                row["false_alarms_per_1000_clean_at_most"],
                *(_shown(row[k]) for k in ("rounds_to_name", "rounds", "tests")),
                row["decision_cpu_s"],
            ]
            print(("{:24}" + "{:>11}" * 11).format(name, *("-" if c is None else str(c) for c in cells)))
    print("\nnamed in, rounds, tests: median / 95th percentile / most")


def _shown(spread: dict[str, float] | None) -> str:
    return "-" if spread is None else "/".join(f"{spread[k]:.4g}" for k in ("median", "p95", "max"))


def main() -> int:
    """Measures the places asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--seconds", type=float, default=150.0, help="for everything, unless --trials is given")
    options.add_argument("--place", choices=tuple(places()), action="append")
    options.add_argument("--trials", type=int, help="of each fault class")
    options.add_argument("--clean", type=int, help="clean racks, with --trials")
    options.add_argument("--fault", choices=tuple(k.value for k in FaultClass), action="append")
    asked = options.parse_args()
    plan = Plan(
        asked.seed, asked.seconds, asked.trials, asked.clean, tuple(FaultClass(f) for f in asked.fault or FaultClass)
    )
    wanted = {n: make for n, make in places().items() if not asked.place or n in asked.place}
    results = {}
    for name, make in wanted.items():
        print(f"{name} ...", file=sys.stderr)
        results[name] = measure(name, make(), plan, plan.seconds / len(wanted))
    if asked.json:
        print(json.dumps({"seed": plan.seed, "places": results}, indent=2))
    else:
        show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
