"""How well, how fast and in how many rounds a bad part is located: racks with drawn faults, in memory, repeatable.

    .venv/bin/python benchmarks/locate.py [--json] [--seed 2] [--place NAME] [--fault CLASS] [--trials N] [--clean N]
                                          [--soak 8]

Places: one NVL72 domain, six nodes whose rails do not reach each other, one DGX H100 scalable unit (all three of the
inventory); 232 and 1,024 DGX H100 nodes (made here: rails over leaves and spines). Baselines in the same run, on
faults of the same classes: all pairs in sequence, circle-method pairs in parallel, bisection. They look at bandwidth,
hangs and data alone.

soak        readings that every link gets at least: what comes and goes shows in some of them (0: none asked for)
recall      of the faults: their segment is convicted (a segment: parts that bandwidth cannot tell apart); cables
            exchanged: both are, and it is said that an exchange would explain them; a wrong transport: the nodes that
            have it are called not measured, and no others. Bounds here and of alarms: Wilson's, one-sided, 95 %
precision   of the segments convicted, those with a fault; "part": the likeliest part is the faulty one
blamed      racks in which something healthy was convicted; alarms: of 1,000 racks with nothing wrong
named in    rounds until the last fault is named for good; rounds, tests: until everything else is ruled out as well
            (median / 95th percentile / most)
pairs, bisection   recall of the baselines

Seeds 2 to 9 are for reporting: the locator was looked at and changed on 1 and on others from 11.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from locate_baselines import bisection, pairs, rounds_of_pairs
from locate_places import Place, places
from locate_score import Said, Tally, Truth

from toolkit.judge.locate import Belief, Evidence, Fabric, Observation, Plane, next_round, weigh
from toolkit.judge.locate.suspects import convicted, in_words
from toolkit.virtual.fabric_faults import FaultClass, draw
from toolkit.virtual.fault_model import FaultyFabric, Trouble

MOST_ROUNDS = 24
BISECTIONS = 5  # for each trial by all pairs
SEQUENCE, CIRCLE, BISECTION = "all pairs in sequence", "circle-method pairs", "bisection"


def drawn_from(seed: int | str) -> random.Random:
    """Repeatable chance."""
    return random.Random(seed)


def ours(fabric: Fabric, trouble: Trouble, rng: random.Random, tally: Tally, soak: int) -> None:
    """One rack, located by us."""
    world = FaultyFabric(fabric, trouble, rng)
    truth = Truth.of(fabric, trouble)
    evidence = Evidence(fabric)
    since: int | None = None
    rounds, longest_s = 0, 0.0
    seen: tuple[Observation, ...] = ()
    while True:
        start = time.process_time()
        evidence.add(seen)
        belief = weigh(evidence)
        following = next_round(belief, soak)
        longest_s = max(longest_s, time.process_time() - start)
        since = (rounds if since is None else since) if _all_named(belief, truth) else None
        if not following.tests or rounds == MOST_ROUNDS:
            break
        seen = world.run(following.tests)
        rounds += 1
    said = _said(belief)
    complete = truth.count and truth.found(said) == truth.count
    tally.take(truth, said, rounds, len(evidence.observations), since if complete else None)
    tally.decisions_s.append(longest_s)


def _all_named(belief: Belief, truth: Truth) -> bool:
    """Whether everything that is wrong is named by now."""
    fabric, ways = belief.evidence.fabric, belief.evidence.ways
    nodes = {(p, fabric.segments[fabric.node[e]].name) for p in Plane for e in ways.unmeasured(p)}
    names = {fabric.segments[s].name for s in belief.probability if convicted(belief, s)}
    return truth.parts.keys() <= names and truth.unmeasured == nodes


def _said(belief: Belief) -> Said:
    final = in_words(belief)
    return Said(
        {s.segment.name: str(s.part) for s in final.convicted},
        tuple(frozenset(x.rails) for x in final.exchanges),
        frozenset((u.plane, u.node) for u in final.unmeasured),
        frozenset(s.segment.name for s in final.suspects if not s.convicted),
    )


def beyond_tests(kind: FaultClass, fabric: Fabric) -> bool:
    """Whether tests by the plan measure the same with the fault and without it."""
    return kind is FaultClass.SWAPPED_PORTS or (kind is FaultClass.SWAPPED_RAILS and fabric.spine >= 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run. `trials` and `clean` None: what the place says."""

    seed: int
    trials: int | None
    clean: int | None
    classes: tuple[FaultClass, ...]
    soak: int

    def count(self, kind: FaultClass, place: Place) -> int:
        """Racks of that class."""
        if kind is FaultClass.NONE:
            return place.clean if self.clean is None else self.clean
        if self.trials is not None:
            return self.trials
        return place.nodes if kind is FaultClass.BAD_NODE else place.trials


def measure(name: str, place: Place, plan: Plan) -> dict[str, object]:
    """All classes and methods in a place. A class draws the same whatever other classes are run."""
    fabric = place.make()
    kinds = [k for k in plan.classes if draw(k, fabric, drawn_from(0)) is not None]
    unseen = [k for k in kinds if beyond_tests(k, fabric)]
    if not place.every:  # that nothing is seen of them is shown where racks are cheap
        kinds = [k for k in kinds if k not in unseen]
    tallies = {k: Tally() for k in kinds}
    baselines = {m: {k: Tally() for k in kinds} for m in (SEQUENCE, CIRCLE, BISECTION)}
    for kind in kinds:
        rng = drawn_from(f"{plan.seed} {name} {kind}")
        for _ in range(plan.count(kind, place)):
            ours(
                fabric, draw(kind, fabric, rng) or Trouble(), drawn_from(rng.randrange(2**40)), tallies[kind], plan.soak
            )
        for _ in range(place.every):
            trouble = draw(kind, fabric, rng) or Trouble()
            pairs(fabric, trouble, rng, baselines[CIRCLE][kind], baselines[SEQUENCE][kind])
        for _ in range(max(1, BISECTIONS * place.every)):
            bisection(fabric, draw(kind, fabric, rng) or Trouble(), rng, baselines[BISECTION][kind])
    at_once, every = rounds_of_pairs(fabric)
    return {
        "endpoints": len(fabric.endpoints),
        "segments": len(fabric.segments),
        "rounds_of_all_pairs": {SEQUENCE: every, CIRCLE: at_once},
        "not_seen_by_tests": [k.value for k in unseen],
        "all": _whole(tallies, unseen).row(),
        "classes": {k.value: t.row() for k, t in tallies.items()},
        "baselines": {
            method: {"all": _row(_whole(of, unseen)), "classes": {k.value: _row(t) for k, t in of.items()}}
            for method, of in baselines.items()
        },
    }


def _whole(tallies: Mapping[FaultClass, Tally], unseen: Sequence[FaultClass]) -> Tally:
    """Of all classes that tests can see."""
    return Tally.sum([t for k, t in tallies.items() if k not in unseen])


def _row(tally: Tally) -> dict[str, object]:
    return {**tally.row(), "part_precision": None}  # the baselines name no part below the segment


_COLUMNS = {
    "trials": "trials",
    "recall": "recall",
    "recall_at_least": "at least",
    "segment_precision": "precision",
    "part_precision": "part",
    "racks_with_healthy_parts_blamed": "blamed",
    "false_alarms_per_1000_clean": "alarms/k",
    "false_alarms_per_1000_clean_at_most": "at most",
    "rounds_to_name": "named in",
    "rounds": "rounds",
    "tests": "tests",
    "decision_cpu_s": "CPU s",
}


def show(name: str, result: Mapping[str, object]) -> None:
    """A place's table, for people."""
    print(f"\n{name}: {result['endpoints']} endpoints, {result['segments']} segments")
    print(_line("", [*_COLUMNS.values(), "pairs", "bisection"]))
    classes, baselines, whole = result["classes"], result["baselines"], result["all"]
    assert isinstance(classes, dict) and isinstance(baselines, dict) and isinstance(whole, dict)
    others = [baselines[CIRCLE], baselines[BISECTION]]
    print(_line("all", [*map(whole.get, _COLUMNS), *(b["all"]["recall"] for b in others)]))
    for kind, row in classes.items():
        print(_line(kind, [*map(row.get, _COLUMNS), *(b["classes"][kind]["recall"] for b in others)]))
    for method, rows in baselines.items():
        print(_line(method, list(map(rows["all"].get, _COLUMNS))))
    print(f"rounds of all pairs, whatever they find: {result['rounds_of_all_pairs']}")
    if result["not_seen_by_tests"]:
        print(f"no test can see these, and they are not in the first line: {result['not_seen_by_tests']}")


def _line(name: str, cells: Sequence[object]) -> str:
    return f"{name:28}" + "".join(
        f"{_cell(c):>14}" if i in (8, 9, 10) else f"{_cell(c):>10}" for i, c in enumerate(cells)
    )


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return "/".join(f"{value[k]:.4g}" for k in ("median", "p95", "max"))
    return "-" if value is None else str(value)


def main() -> int:
    """Measures the places asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true")
    options.add_argument("--seed", type=int, default=2)
    options.add_argument("--place", choices=tuple(places()), action="append")
    options.add_argument("--fault", choices=tuple(k.value for k in FaultClass), action="append")
    options.add_argument("--trials", type=int, help="of each fault class")
    options.add_argument("--soak", type=int, default=8, help="readings of every link at least (8)")
    options.add_argument("--clean", type=int, help="racks with nothing wrong")
    asked = options.parse_args()
    plan = Plan(
        asked.seed, asked.trials, asked.clean, tuple(FaultClass(f) for f in asked.fault or FaultClass), asked.soak
    )
    results: dict[str, dict[str, object]] = {}
    for name, place in places().items():
        if asked.place and name not in asked.place:
            continue
        start = time.process_time()
        print(f"{name} ...", file=sys.stderr)
        results[name] = measure(name, place, plan)
        results[name]["cpu_s"] = round(time.process_time() - start, 1)
    if asked.json:
        print(json.dumps({"seed": plan.seed, "places": results}, indent=2))
        return 0
    print(f"seed {plan.seed}")
    for name, result in results.items():
        show(name, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
