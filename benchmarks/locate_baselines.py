"""What others do, on the same racks: all pairs in sequence, circle-method pairs in parallel, plain bisection.

They look at bandwidth, hangs and data alone, as the tools in the field that print a matrix of pairs or halve a group.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

from locate_score import Said, Tally, Truth

from toolkit.judge.locate import Fabric, Observation, Outcome, Plane, Test
from toolkit.virtual.fault_model import FaultyFabric, Trouble

SLOW = 0.93  # what they call slow: the usual gate, about 4 standard deviations of one reading


def _bad(observation: Observation) -> bool:
    broken = observation.outcome in (Outcome.HANG, Outcome.DATA_ERROR)
    return broken or (observation.ratio or 0.0) < SLOW


def circle(members: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """Rounds of pairs: everybody meets everybody once (circle method)."""
    ring: list[int] = [*members, *([-1] if len(members) % 2 else [])]
    for _ in range(len(ring) - 1):
        half = len(ring) // 2
        pairs = zip(ring[:half], reversed(ring[half:]), strict=True)
        yield [(a, b) for a, b in pairs if min(a, b) >= 0]
        ring = [ring[0], ring[-1], *ring[1:-1]]


def rounds_of_pairs(fabric: Fabric) -> tuple[int, int]:
    """(in parallel, in sequence): rounds that all pairs of every block take. The one thing luck does not change."""
    every = sum(len(b.members) * (len(b.members) - 1) // 2 for b in fabric.blocks)
    deep = sum(max(((len(b.members) - 1) | 1 for b in fabric.blocks if b.plane is p), default=0) for p in Plane)
    return deep, every


def pairs(fabric: Fabric, trouble: Trouble, rng: random.Random, parallel: Tally, sequence: Tally) -> None:
    """All pairs of every block; a segment that is slow in more than half of its pairs is named."""
    world = FaultyFabric(fabric, trouble, rng)
    truth = Truth.of(fabric, trouble)
    bad: Counter[int] = Counter()
    met: Counter[int] = Counter()
    for block in fabric.blocks:
        for round_ in circle(block.members):
            for observation in world.run(Test(block.plane, pair) for pair in round_):
                crossed = fabric.path(observation.test).full
                met.update(crossed)
                if _bad(observation):
                    bad.update(crossed)
    found = _highest(fabric, {s for s in met if bad[s] > met[s] / 2})
    said = Said({fabric.segments[s].name: "" for s in found})
    at_once, tests = rounds_of_pairs(fabric)
    parallel.take(truth, said, at_once, tests, at_once)
    sequence.take(truth, said, tests, tests, tests)


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


def bisection(fabric: Fabric, trouble: Trouble, rng: random.Random, tally: Tally) -> None:
    """Halves of every block while a half is slow, all at once; the last few each beside a member of a good half."""
    world = FaultyFabric(fabric, trouble, rng)
    rounds = tests = 0
    named: set[int] = set()
    for block in fabric.blocks:
        column = fabric.columns(block.plane)[0]
        ends, deep, count = _halve(world, block.plane, block.members)
        rounds, tests = max(rounds, deep), tests + count
        named |= {column[e] for e in ends}
    said = Said({fabric.segments[s].name: "" for s in named})
    tally.take(Truth.of(fabric, trouble), said, rounds, tests, rounds)


def _halve(world: FaultyFabric, plane: Plane, members: Sequence[int]) -> tuple[set[int], int, int]:
    """(endpoints named, rounds, tests) of a block."""
    groups: list[list[int]] = [list(members)]
    good: list[int] = []
    last: list[int] = []
    deep = tests = 0
    while groups:
        deep += 1
        seen = world.run(Test(plane, tuple(g)) for g in groups)
        tests += len(seen)
        slow = [g for g, o in zip(groups, seen, strict=True) if _bad(o)]
        good += [e for g, o in zip(groups, seen, strict=True) if not _bad(o) for e in g]
        last += [e for g in slow if len(g) < 4 for e in g]
        groups = [h for g in slow if len(g) >= 4 for h in (g[: len(g) // 2], g[len(g) // 2 :])]
    ends = world.run(Test(plane, (e, p)) for e, p in zip(last, good, strict=False))
    found = {o.test.members[0] for o in ends if _bad(o)} | set(last[len(good) :])
    return found, deep + bool(ends), tests + len(ends)
