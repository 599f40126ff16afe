"""From what tests measured, in GB/s, to observations: a bandwidth means something only against what is healthy.

What is healthy is not known beforehand to a few percent, and a sourced floor is far below it. So a test is set against
its peers: tests of the same plane and size. Where they all are slow together, the floor says so.
"""

from __future__ import annotations

import math
from collections import Counter as CountOf
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.judge.locate.fabric import Plane, Test
from toolkit.judge.locate.observation import Counter, Observation, Outcome
from toolkit.judge.locate.posterior import Belief

FEWEST = 5  # tests of one plane and size, for their median to say what is healthy
_SPOKEN_AGAINST = 0.01  # probability from which on an endpoint is no control
_ROUNDING = 1.005  # published ceilings are written without decimals


@dataclass(frozen=True, slots=True)
class Measured:
    """A test that ran. Errors of ours are not among these: they are run again.

    outcome      OFF_PATH where NCCL's own words or the byte counters do not prove the plane's way; its rate then counts
                 for nothing, neither here nor among its peers
    gb_per_s   lowest busbw of the rows that are judged; None unless it completed
    words      what was measured instead, in the words of who looked; of a test that took another way
    absent     nodes that took no part, and for which nothing went the plane's way
    """

    test: Test
    outcome: Outcome
    gb_per_s: float | None = None
    counters: tuple[Counter, ...] = ()
    counters_read: bool = False
    words: str = ""
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a plane's healthy tests lie between: a sourced floor, and the closed form, both busbw in GB/s."""

    floor_gb_per_s: float
    ceiling_gb_per_s: float

    def __post_init__(self) -> None:
        if not 0 < self.floor_gb_per_s <= self.ceiling_gb_per_s < math.inf:
            raise ValueError(f"a floor of {self.floor_gb_per_s} under a ceiling of {self.ceiling_gb_per_s} GB/s")


Healthy = Mapping[tuple[Plane, int], float]  # GB/s by plane and endpoints of a test


def healthy_rates(measured: Iterable[Measured], bounds: Mapping[Plane, Bounds]) -> dict[tuple[Plane, int], float]:
    """The median of tests of a plane and size, at least the floor; nothing where there are fewer than FEWEST.

    What is once known stays: over several rounds `healthy_rates(all, bounds) | known`. Raises KeyError for a plane
    without bounds.
    """
    found: dict[tuple[Plane, int], list[float]] = defaultdict(list)
    for m in measured:
        limits = bounds[m.test.plane]
        if m.outcome is Outcome.COMPLETED and m.gb_per_s is not None and _usable(m.gb_per_s, limits):
            found[_kind(m.test)].append(m.gb_per_s)
    return {
        key: max(median(rates), bounds[key[0]].floor_gb_per_s) for key, rates in found.items() if len(rates) >= FEWEST
    }


def observe(measured: Iterable[Measured], healthy: Healthy, bounds: Mapping[Plane, Bounds]) -> tuple[Observation, ...]:
    """Observations, in the order of the tests.

    A test of which nothing healthy is known, or above its ceiling, gives no ratio: only its outcome and counters count.
    """
    return tuple(
        Observation(m.test, m.outcome, _ratio(m, healthy, bounds), m.counters, m.counters_read) for m in measured
    )


def controls(belief: Belief, tests: Sequence[Test], healthy: Healthy) -> tuple[Test, ...]:
    """Tests to run beside a round's, of sizes it has too few of: what theirs are set against. Disjoint from all.

    They are of endpoints that the round leaves idle and nothing speaks against.
    """
    fabric = belief.evidence.fabric
    busy = {e for t in tests for e in t.members}
    known = CountOf(map(_kind, tests))
    added: list[Test] = []
    for (plane, size), count in sorted(known.items()):
        wanted = 0 if (plane, size) in healthy else FEWEST - count
        for block in (b for b in fabric.blocks if b.plane is plane):
            idle = [e for e in block.members if e not in busy and _fine(belief, plane, e)]
            for start in range(0, len(idle) - size + 1, size):
                if wanted <= 0:
                    break
                added.append(Test(plane, tuple(sorted(idle[start : start + size]))))
                busy.update(added[-1].members)
                wanted -= 1
    return tuple(added)


def _kind(test: Test) -> tuple[Plane, int]:
    return test.plane, len(test.members)


def _fine(belief: Belief, plane: Plane, endpoint: int) -> bool:
    return all(
        belief.probability.get(column[endpoint], 0.0) < _SPOKEN_AGAINST
        for column in belief.evidence.fabric.columns(plane)
    )


def _usable(gb_per_s: float, bounds: Bounds) -> bool:
    return math.isfinite(gb_per_s) and 0 <= gb_per_s <= bounds.ceiling_gb_per_s * _ROUNDING


def _ratio(m: Measured, healthy: Healthy, bounds: Mapping[Plane, Bounds]) -> float | None:
    expected = healthy.get(_kind(m.test))
    if m.outcome is not Outcome.COMPLETED or m.gb_per_s is None or expected is None:
        return None
    return m.gb_per_s / expected if _usable(m.gb_per_s, bounds[m.test.plane]) else None
