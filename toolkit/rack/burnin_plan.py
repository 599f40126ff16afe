"""What a burn-in will take, as a value: levels in order, the tests of each, their minutes, energy and power.

`toolkit.judge.forecast` makes it. Here too stands what the controller knows of the suites' times: the burn-in runs on
the node and is no import of ours, so that a test holds `BUDGETS` equal to burnin/suites.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from toolkit.rack.metric import COLLECTIVES
from toolkit.rack.model import Profile, Suite, WideLevel

KIB, GIB = 1 << 10, 1 << 30


class LevelName(StrEnum):
    """From one node to several racks; each level rests on what those before it have proved."""

    NODES = "nodes in parallel"
    DOMAIN = "NVLink domain"
    RAILS = "rails in pairs"
    LEAF = "leaf"
    UNIT = "scalable unit"
    RACKS = "rack to rack"


_WIDE = {WideLevel.DOMAIN: LevelName.DOMAIN, WideLevel.LEAF: LevelName.LEAF, WideLevel.UNIT: LevelName.UNIT}


def level_name(level: WideLevel) -> LevelName:
    """The level as an operator reads it."""
    return _WIDE[level]


def run_today(profile: Profile, suite: Suite) -> frozenset[LevelName]:
    """The levels that a burn-in carries out by the profile's word: the one place that says so.

    With another suite than the profile's the nodes alone are measured: what follows rests on a node that passed it.
    """
    if suite is not profile.suite:
        return frozenset({LevelName.NODES})
    rails = {LevelName.RAILS} if profile.rail_test else set()
    return frozenset({LevelName.NODES, *rails, *(_WIDE[level] for level in profile.levels)})


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it comes from.

    value    None where nothing of it is known
    lacking  what is missing: beside a value, of what it does not count, so that the value is too small
    """

    value: float | None
    source: str = ""
    lacking: tuple[str, ...] = ()


def unknown(lacking: str) -> Figure:
    """A number that is not known, and why."""
    return Figure(None, "", (lacking,))


def total(figures: Iterable[Figure]) -> Figure:
    """The sum of what is known; what the parts lack, it lacks. Unknown where no part is known, and of no parts."""
    found = tuple(figures)
    values = [f.value for f in found if f.value is not None]
    lacking = tuple(dict.fromkeys(words for f in found for words in f.lacking))
    return Figure(sum(values) if values else None, "sum", lacking or (() if found else ("there is no test",)))


def most(figures: Iterable[Figure]) -> Figure:
    """The greatest of what is known; what the parts lack, it lacks."""
    found = tuple(figures)
    values = [f.value for f in found if f.value is not None]
    return Figure(max(values, default=None), "the greatest of them", total(found).lacking)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a test takes.

    minutes          at its load and rate, without what starting takes
    minutes_at_most  by its deadline, at which it is ended
    kwh, kwh_at_most of each, as if all that take part drew the most that the profile states; rests apart
    kw               at that power
    """

    minutes: Figure
    minutes_at_most: Figure
    kwh: Figure
    kwh_at_most: Figure
    kw: Figure


@dataclass(frozen=True, slots=True)
class PlannedTest:
    """One test.

    on      on whom, in words
    groups  how many run side by side, no two on the same GPU or HCA
    rounds  how often, one after another
    ranks   GPUs of one group
    """

    name: str
    on: str
    groups: int
    rounds: int
    ranks: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class Level:
    """Tests that are run one after another. `absent` says why the level has none."""

    name: LevelName
    runs_today: bool
    tests: tuple[PlannedTest, ...]
    cost: Cost
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Ramp:
    """How the GPUs take up their load. `kw_per_s` 0: all at once, which is a step of `gpu_kw`."""

    gpu_kw: Figure
    kw_per_s: float
    seconds: Figure


@dataclass(frozen=True, slots=True)
class BurninPlan:
    """A burn-in before it runs.

    today    what the levels that are run today take together
    whole    with those that are planned
    power    whose power the energy is of
    aside    what none of the numbers counts
    held     why levels that are planned are not run today
    carried  what takes the program to the nodes, in words
    """

    rack: str
    suite: Suite
    nodes: tuple[str, ...]
    gpus: int
    levels: tuple[Level, ...]
    today: Cost
    whole: Cost
    ramp: Ramp
    power: str
    aside: tuple[str, ...]
    held: str = ""
    carried: tuple[str, ...] = ()


def together(costs: Iterable[Cost]) -> Cost:
    """Costs of what is run one after another."""
    found = tuple(costs)
    return Cost(
        total(c.minutes for c in found),
        total(c.minutes_at_most for c in found),
        total(c.kwh for c in found),
        total(c.kwh_at_most for c in found),
        most(c.kw for c in found),
    )


@dataclass(frozen=True, slots=True)
class Collective:
    """A collective of nccl-tests, from `smallest` to `largest` bytes, doubling."""

    kind: str
    smallest: int
    largest: int
    iterations: int
    deadline_s: float

    @property
    def bytes_moved(self) -> int:
        """The sizes of all operations added up: each size out of place and in place, each time the iterations that
        are timed, one before them and one whose data is checked (NVIDIA/nccl-tests src/common.cu, BenchTime).
        """
        sizes, size = 0, self.smallest
        while size <= self.largest:
            sizes, size = sizes + size, size * 2
        return 2 * (self.iterations + 2) * sizes


# A pair of nodes on one rail, as the search of the rails runs it (toolkit/stages/rails.py; a test holds them equal).
RAIL_TEST = Collective("all_reduce", GIB, 4 * GIB, 20, 90.0)
RAIL_TESTS_AT_ONCE = 16
RAIL_SEARCH_S = 1800.0
# Readings of every rail at least. A link that is down in three of ten tests is missed by one reading in 70 racks of
# 100, by eight in 6 (benchmarks/locate.py --soak). A rehearsal stops when nothing is open.
RAIL_READINGS = 8


def rail_readings(suite: Suite) -> int:
    """How often the search reads every rail at least."""
    return 0 if suite is Suite.REHEARSAL else RAIL_READINGS


@dataclass(frozen=True, slots=True)
class Budget:
    """The times of a suite on a node.

    load             workloads and the seconds of load they are given
    rest_s           cool-downs between loads, and the wait before the last snapshot
    where_installed  programs of others, of which nobody knows beforehand whether they are there
    deadline_s       of the whole suite
    """

    load: tuple[tuple[str, float], ...]
    rest_s: float
    collectives: tuple[Collective, ...]
    where_installed: tuple[str, ...]
    deadline_s: float

    @property
    def load_s(self) -> float:
        """Seconds under load; 0 where every workload is run once, at the speed of what it runs on."""
        return sum(seconds for _, seconds in self.load)


def _load(hbm: float, gemm: float, both: float, pcie: float) -> tuple[tuple[str, float], ...]:
    return ("hbm", hbm), ("gemm", gemm), ("together", both), ("pcie", pcie)


def _collectives(
    deadline_s: float, largest: int = 8 * GIB, iterations: int = 20, kinds: tuple[str, ...] = COLLECTIVES
) -> tuple[Collective, ...]:
    return tuple(
        Collective(kind, 8 if kind == "all_reduce" else 128 * KIB, largest, iterations, deadline_s) for kind in kinds
    )


_WRAPPED = ("nvbandwidth", "dcgm_diag")
BUDGETS: Mapping[Suite, Budget] = {
    Suite.REHEARSAL: Budget(_load(0, 0, 0, 0), 2, _collectives(60), _WRAPPED, 1200),
    Suite.QUICK: Budget(_load(25, 10, 15, 3), 5, _collectives(90, kinds=("all_reduce", "alltoall")), (), 540),
    Suite.STANDARD: Budget(_load(240, 90, 210, 15), 5, _collectives(180, 16 * GIB, 50), _WRAPPED, 3150),
    Suite.LONG: Budget(
        _load(2700, 900, 2700, 60), 2 * 240 + 5, _collectives(300, 16 * GIB, 200), _WRAPPED, 3.75 * 3600
    ),
}
