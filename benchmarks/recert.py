#!/usr/bin/env python3
"""Re-certification of a pool in service: what each way of spending the same idle minutes does to one training job.

A simulation: 2,048 nodes of 8 GPUs train one job for 90 days. Faults begin at the published rates, spread among nodes
by a gamma distribution; a share of them is gray before it stops the job. Four ways to spend idle node-minutes are
compared over the same faults (the same seeds): none, every node in turn, nodes at random, and `toolkit.judge.recert`,
which is told what a pool would know: which node stopped the job and why, and which test passed when. It is not told
the nodes' true rates.

    python benchmarks/recert.py [--seeds 5] [--days 90] [--quick]

What is assumed and not published is printed with the result, and so is how the result moves with it.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toolkit.judge.recert.choose import Candidate, Terms, Trial, choose
from toolkit.judge.recert.hazard import Cause, History, Prior
from toolkit.judge.recert.published import GPU_HOURS, SOURCE, UNREACHED, priors

NODES, GPUS, LEAF = 2048, 8, 32
SLOT_HOURS = 12.0  # decisions are taken this often


@dataclass(frozen=True)
class World:
    """Assumptions. gray, gray_hours, shape: see `Prior`. triage: chance that the fault is found and mended after it
    stopped a job; what is not mended stops it again. power: scale of all trials' powers.

    Faults begin so much more rarely than jobs are stopped that an untested pool is stopped at the published rate.
    """

    gray: float = 0.6
    gray_hours: float = 72.0
    shape: float = 0.5
    triage: float = 0.5
    power: float = 1.0
    days: float = 90.0
    lost_minutes: float = 15.0  # of the whole job, by an interruption: half a checkpoint interval, and the restart
    daily_node_minutes: float = 4096.0  # two idle minutes of each node a day: 0.14 % of the pool


def calibration(world: World) -> float:
    """Faults for each interruption: a gray one that triage misses stops the job again."""
    return 1 / (1 - world.gray + world.gray / world.triage)


_SHORT = {Cause.GPU: 0.5, Cause.HBM: 0.6, Cause.SRAM: 0.4, Cause.GPU_PROCESSOR: 0.3, Cause.NETWORK: 0.5,
          Cause.DATA_CORRUPTION: 0.3, Cause.THERMAL: 0.2, Cause.HOST: 0.2}  # fmt: skip
_LONG = {Cause.GPU: 0.8, Cause.HBM: 0.9, Cause.SRAM: 0.7, Cause.GPU_PROCESSOR: 0.4, Cause.NETWORK: 0.8,
         Cause.DATA_CORRUPTION: 0.6, Cause.THERMAL: 0.7, Cause.HOST: 0.4}  # fmt: skip


def trials(world: World) -> tuple[Trial, ...]:
    """The quick and the standard suite with rails. Their powers are assumptions: only those for HBM have a table
    behind them (`hbm_fault_coverage.py`), and that is of injected faults.
    """

    def scaled(powers: dict[Cause, float]) -> dict[Cause, float]:
        return {cause: min(1.0, power * world.power) for cause, power in powers.items()}

    return (
        Trial("quick", 3.0, 0.35, scaled(_SHORT), "assumed"),
        Trial("standard", 15.0, 1.9, scaled(_LONG), "assumed"),
    )


@dataclass
class Fault:
    """A gray fault that is there. `luck` decides once and for all which trials can see it."""

    node: int
    cause: Cause
    luck: float
    gone: bool = False


@dataclass
class Node:
    """What is true of a node, and what the pool knows of it."""

    faults: list[Fault] = field(default_factory=list)
    known: dict[Cause, int] = field(default_factory=dict)
    passed_at: dict[str, float] = field(default_factory=dict)
    suspected: dict[Cause, float] = field(default_factory=dict)


@dataclass
class Pool:
    """One run of 90 days."""

    world: World
    rng: random.Random
    nodes: list[Node] = field(default_factory=lambda: [Node() for _ in range(NODES)])
    interruptions: int = 0
    reached: int = 0
    minutes: float = 0.0
    found: int = 0

    def test(self, number: int, trial: Trial, now: float) -> None:
        """Runs a trial: what it sees is mended."""
        node = self.nodes[number]
        self.minutes += trial.minutes
        seen = [f for f in node.faults if f.luck < trial.power.get(f.cause, 0.0)]
        for fault in seen:
            fault.gone = True
            node.faults.remove(fault)
            node.known[fault.cause] = node.known.get(fault.cause, 0) + 1
            node.suspected.pop(fault.cause, None)
            self.found += 1
        for cause in node.suspected:
            node.suspected[cause] *= 1 - trial.power.get(cause, 0.0)
        node.passed_at[trial.name] = now


Policy = Callable[[Pool, float, float], None]  # spends a budget of node-minutes at a time


def onsets(world: World, rng: random.Random) -> list[tuple[float, int, Cause, bool, float, float]]:
    """(hour, node, cause, gray or not, luck, hours until it stops the job) of every fault; the same for all."""
    hours, found = world.days * 24, []
    for prior in priors(world.gray, world.gray_hours, world.shape):
        for node in range(NODES):
            rate = rng.gammavariate(prior.shape, prior.per_gpu_hour * GPUS * calibration(world) / prior.shape)
            at = rng.expovariate(rate) if rate > 0 else hours
            while at < hours:
                gray = rng.random() < prior.gray
                found.append((at, node, prior.cause, gray, rng.random(), rng.expovariate(1 / prior.gray_hours)))
                at += rng.expovariate(rate)
    return found


@dataclass
class Clock:
    """What happens when. Of two things at the same hour the one that was noted first comes first."""

    events: list[tuple[float, int, str, object]] = field(default_factory=list)
    noted: int = 0

    def at(self, hour: float, kind: str, what: object = None) -> None:
        """Notes it."""
        self.noted += 1
        heapq.heappush(self.events, (hour, self.noted, kind, what))


def planned(world: World, rng: random.Random) -> Clock:
    """Everything that does not follow from what a policy does."""
    clock, hours = Clock(), world.days * 24
    for at, *onset in onsets(world, rng):
        clock.at(at, "onset", onset)
    at, rate = 0.0, UNREACHED / GPU_HOURS * NODES * GPUS
    while (at := at + rng.expovariate(rate)) < hours:
        clock.at(at, "other")
    for slot in range(int(hours / SLOT_HOURS)):
        clock.at(slot * SLOT_HOURS, "slot")
    return clock


def simulate(world: World, seed: int, policy: Policy) -> Pool:
    """90 days under one policy."""
    clock, chance = planned(world, random.Random(seed)), random.Random(seed + 2)
    pool, budget = Pool(world, random.Random(seed + 1)), world.daily_node_minutes * SLOT_HOURS / 24
    while clock.events:
        now, _, kind, what = heapq.heappop(clock.events)
        if now >= world.days * 24:
            break
        if kind == "slot":
            policy(pool, now, budget)
        elif kind == "other":
            pool.interruptions += 1
        elif kind == "onset":
            _begins(pool, clock, now, what)  # type: ignore[arg-type]
        elif isinstance(what, Fault) and not what.gone:
            _stops(pool, clock, now, what, chance)
    return pool


def _begins(pool: Pool, clock: Clock, now: float, onset: tuple[int, Cause, bool, float, float]) -> None:
    node, cause, gray, luck, delay = onset
    if not gray:
        _stopped(pool, node, cause)
        return
    fault = Fault(node, cause, luck)
    pool.nodes[node].faults.append(fault)
    clock.at(now + delay, "stop", fault)


def _stops(pool: Pool, clock: Clock, now: float, fault: Fault, chance: random.Random) -> None:
    _stopped(pool, fault.node, fault.cause)
    if chance.random() < pool.world.triage:
        fault.gone = True
        pool.nodes[fault.node].faults.remove(fault)
    else:
        clock.at(now + chance.expovariate(1 / pool.world.gray_hours), "stop", fault)


def _stopped(pool: Pool, node: int, cause: Cause) -> None:
    pool.interruptions += 1
    pool.reached += 1
    known = pool.nodes[node].known
    known[cause] = known.get(cause, 0) + 1
    # Nobody is told whether it was gray, nor whether triage mended it: a mean belief.
    world = pool.world
    gray = world.gray / world.triage * calibration(world)
    pool.nodes[node].suspected[cause] = gray * (1 - world.triage)


def none(pool: Pool, now: float, budget: float) -> None:
    """No re-certification."""


def in_turn(trial_of: Callable[[World], Trial]) -> Callable[[], Policy]:
    """Every node in turn with the same trial: the period follows from the budget."""

    def fresh() -> Policy:
        state = {"next": 0, "saved": 0.0}

        def policy(pool: Pool, now: float, budget: float) -> None:
            trial = trial_of(pool.world)
            state["saved"] += budget
            while state["saved"] >= trial.minutes:
                pool.test(int(state["next"]) % NODES, trial, now)
                state["next"] += 1
                state["saved"] -= trial.minutes

        return policy

    return fresh


def at_random(trial_of: Callable[[World], Trial]) -> Callable[[], Policy]:
    """Nodes drawn at random with the same trial."""

    def fresh() -> Policy:
        saved = [0.0]

        def policy(pool: Pool, now: float, budget: float) -> None:
            trial = trial_of(pool.world)
            saved[0] += budget
            while saved[0] >= trial.minutes:
                pool.test(pool.rng.randrange(NODES), trial, now)
                saved[0] -= trial.minutes

        return policy

    return fresh


def chosen(believed: World | None = None) -> Callable[[], Policy]:
    """`toolkit.judge.recert.choose`. `believed`: the assumptions it works with, where they are not the true ones."""

    def fresh() -> Policy:
        saved = [0.0]

        def policy(pool: Pool, now: float, budget: float) -> None:
            saved[0] += budget
            told = believed or pool.world
            choice = choose(_candidates(pool, now), trials(told), _priors(told), _terms(told, saved[0]))
            for pick in choice.picks:
                pool.test(int(pick.node), next(t for t in trials(pool.world) if t.name == pick.trial), now)
            saved[0] -= choice.node_minutes

        return policy

    return fresh


def _priors(world: World) -> tuple[Prior, ...]:
    scale = calibration(world)
    found = priors(world.gray, world.gray_hours, world.shape)
    return tuple(replace(p, per_gpu_hour=p.per_gpu_hour * scale) for p in found)


def _terms(world: World, budget: float) -> Terms:
    return Terms(NODES * world.lost_minutes, budget, None, LEAF // 4, NODES // 10, 30 * 24.0)


def _candidates(pool: Pool, now: float) -> list[Candidate]:
    # Every node was certified when the pool began: hour 0 is evidence, not ignorance.
    found = []
    for number, node in enumerate(pool.nodes):
        since = {trial.name: now - node.passed_at.get(trial.name, 0.0) for trial in trials(pool.world)}
        history = History(now, dict(node.known))
        near, suspected = (f"leaf{number // LEAF}",), dict(node.suspected)
        found.append(Candidate(str(number), GPUS, near, history, since, suspected))
    return found


POLICIES: dict[str, Callable[[], Policy]] = {
    "none": lambda: none,
    "in turn, quick": in_turn(lambda w: trials(w)[0]),
    "in turn, standard": in_turn(lambda w: trials(w)[1]),
    "at random, standard": at_random(lambda w: trials(w)[1]),
    "chosen by value": chosen(),
}


@dataclass(frozen=True)
class Figures:
    """Means over seeds. mtbi: hours between interruptions of all causes; reached: of those a test could reach."""

    mtbi_hours: float
    reached_hours: float
    node_minutes_a_day: float
    interruptions: float


def measure(world: World, seeds: Sequence[int], fresh: Callable[[], Policy]) -> Figures:
    """One policy in one world."""
    pools = [simulate(world, seed, fresh()) for seed in seeds]
    hours = world.days * 24

    def mean(values: list[float]) -> float:
        return statistics.fmean(values)

    return Figures(
        hours / mean([p.interruptions for p in pools]), hours / max(1e-9, mean([p.reached for p in pools])),
        mean([p.minutes for p in pools]) / world.days, mean([p.interruptions for p in pools]),
    )  # fmt: skip


def table(title: str, world: World, seeds: Sequence[int], names: Sequence[str]) -> None:
    """Prints a row for each policy; ratios against no re-certification in the same run."""
    print(f"\n{title}")
    print(f"  {'':22} {'interruptions':>13} {'MTBI h':>7} {'ratio':>6} {'reached, ratio':>15} {'node-min/day':>13}")
    base = measure(world, seeds, POLICIES["none"])
    for name in names:
        got = base if name == "none" else measure(world, seeds, POLICIES[name])
        print(
            f"  {name:22} {got.interruptions:13.0f} {got.mtbi_hours:7.2f} {got.mtbi_hours / base.mtbi_hours:6.2f}"
            f" {got.reached_hours / base.reached_hours:15.2f} {got.node_minutes_a_day:13.0f}"
        )


def main() -> None:
    """Prints the table, then how it moves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--days", type=float, default=90.0)
    parser.add_argument("--quick", action="store_true", help="the main table only")
    asked = parser.parse_args()
    world, seeds = World(days=asked.days), tuple(range(100, 100 + asked.seeds))
    print(f"{NODES} nodes x {GPUS} GPUs, {world.days:g} days, seeds {seeds[0]}..{seeds[-1]}; rates: {SOURCE}")
    print(f"assumed: {world}")
    print(f"{UNREACHED} of the 419 published interruptions (software, maintenance, ...) no test of a node can reach")
    table("all policies", world, seeds, tuple(POLICIES))
    if asked.quick:
        return
    moved = ("none", "in turn, standard", "chosen by value")
    for field_name, values in {
        "gray": (0.3, 0.9), "gray_hours": (24.0, 240.0), "shape": (0.1, 2.0), "triage": (0.1, 0.9),
        "power": (0.6, 1.2), "daily_node_minutes": (1024.0, 16384.0),
    }.items():  # fmt: skip
        for value in values:
            table(f"{field_name} = {value:g}", replace(world, **{field_name: value}), seeds[:3], moved)
    POLICIES["chosen, wrong beliefs"] = chosen(World(gray=0.3, gray_hours=240.0, shape=2.0, power=0.6))
    table("chosen with other assumptions than the true ones", world, seeds[:3], ("none", "chosen, wrong beliefs"))


if __name__ == "__main__":
    main()
