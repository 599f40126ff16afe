"""What the ledger knows for a budgeted re-certification: nodes with their history and the age of their evidence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from toolkit.errors import UsageError
from toolkit.judge import levels
from toolkit.judge.forecast import forecast
from toolkit.judge.locate.outside import with_leaves
from toolkit.judge.recert.causes import cause_of
from toolkit.judge.recert.choose import Candidate, Terms, Trial
from toolkit.judge.recert.hazard import Cause, History
from toolkit.ledger import EventKind, Ledger, Run
from toolkit.pool.floor import Capacity, may_evict
from toolkit.pool.recert_file import Beliefs, Sourced
from toolkit.rack.burnin_plan import LevelName
from toolkit.rack.claim import Sku
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.model import MNNVL, Rack, Suite

# What a longer suite passed, a shorter one need not show again.
_LENGTH = (Suite.REHEARSAL, Suite.QUICK, Suite.STANDARD, Suite.LONG)
_IN_SERVICE = (NodeState.TESTED, NodeState.CERTIFIED, NodeState.ADMITTED)
_ALL = 1_000_000
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What an operator allows. minutes: node-minutes of all nodes together; job_nodes: of a job; None: not said."""

    minutes: float | None
    kwh: float | None
    job_nodes: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What there is to choose from, and what is not known.

    aside    nodes that are not in service, with why
    remarks  what nobody knows, or nothing here can test
    """

    candidates: tuple[Candidate, ...]
    trials: tuple[Trial, ...]
    terms: Terms
    aside: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


def known(
    ledger: Ledger, rack: Rack, site: Sequence[Rack], beliefs: Beliefs, floor: float, skus: Sequence[Sku],
    budget: Budget, now: datetime,
) -> Known:  # fmt: skip
    """Nodes in service of the rack, suites that it can be given, and the terms. `site`: all racks of its pool.

    UsageError where no node is in service, or no suite has a known length.
    """
    states = ledger.node_states(rack.name)
    standing = {node.name: states[node.name].state if node.name in states else NodeState.PLANNED for node in rack.nodes}
    serving = [name for name, state in standing.items() if state in _IN_SERVICE]
    if not serving:
        raise UsageError(f"no node of {rack.name} has passed a burn-in", f"rackproof bringup {rack.name}")
    told = _Told(ledger, rack, now)
    candidates = tuple(told.candidate(name) for name in serving)
    trials, untried = _trials(rack, serving[0], beliefs, skus, budget)
    if not trials:
        raise UsageError(
            f"nothing can be planned for {rack.name}: {'; '.join(untried)}", "leave out --kwh, or --minutes"
        )
    capacity = capacity_on_record(ledger, site)
    terms, limits = _terms(rack, candidates, beliefs, capacity, floor, budget)
    aside = tuple((name, str(state)) for name, state in standing.items() if name not in serving)
    return Known(candidates, trials, terms, aside, (*limits, *untried, *_untested(trials), *told.remarks, *_UNKNOWN))


_UNKNOWN = (
    "whether the scheduler wants a node now is not asked, nor the pool how many it has: the ledger's states count",
    "whether a fault that stopped a job was found and mended is not on record: no node is suspected for it",
)


def capacity_on_record(ledger: Ledger, site: Iterable[Rack]) -> Capacity:
    """The pool as the ledger has it: admitted now, and let in once and out now."""
    admitted = out = 0
    for rack in site:
        states = ledger.node_states(rack.name)
        moves = ledger.events(rack.name, kind=EventKind.NODE_MOVED, limit=_ALL)
        once = {event.node for event in moves if event.body["move"] == Move.ADMIT}
        inside = {name for name, row in states.items() if row.state is NodeState.ADMITTED}
        gone = {name for name, row in states.items() if row.state is NodeState.RETIRED}
        admitted, out = admitted + len(inside), out + len(once - inside - gone)
    return Capacity(admitted, 0, out)


class _Told:
    """What the journal says of each node's past."""

    def __init__(self, ledger: Ledger, rack: Rack, now: datetime) -> None:
        self._rack, self._now = rack, now
        self._runs: dict[str, list[Run]] = {}
        for run in ledger.runs(rack.name):
            self._runs.setdefault(run.node, []).append(run)
        repairs = ledger.events(rack.name, kind=EventKind.NODE_MOVED, limit=_ALL)
        self._repaired = {e.node: e.id for e in repairs if e.body["move"] == Move.REPAIR}
        self._suites = dict(_suites(ledger, rack.name))
        self._rails = levels.rails(with_leaves(rack), [n.name for n in rack.nodes])
        self._causeless: Counter[str] = Counter()

    def candidate(self, name: str) -> Candidate:
        """In service since its first burn-in began."""
        runs = self._runs.get(name, [])
        begun = [run.started for run in runs if run.stage is Stage.BURNIN]
        hours = self._hours(min(begun)) if begun else 0.0
        near = [leaf for (leaf, _), nodes in self._rails.items() if name in nodes]
        near += ["the NVLink domain"] if self._rack.profile.mode in MNNVL else []
        history = History(hours, self._faults(runs))
        gpus = self._rack.profile.gpus_per_node
        return Candidate(name, gpus, tuple(dict.fromkeys(near)), history, self._since(name, runs))

    def _hours(self, at: datetime) -> float:
        return max(0.0, (self._now - at).total_seconds() / _HOUR_S)

    def _faults(self, runs: Iterable[Run]) -> Mapping[Cause, int]:
        """A run that failed on evidence is a fault of its cause."""
        found: Counter[Cause] = Counter()
        for run in runs:
            if run.outcome is Outcome.FAILED:
                cause = cause_of(run.code, run.part)
                if cause is None:
                    self._causeless[run.code or "no code"] += 1
                else:
                    found[cause] += 1
        return found

    def _since(self, name: str, runs: Iterable[Run]) -> Mapping[str, float]:
        """By suite: hours since it, or a longer one, last passed; from before a repair nothing counts."""
        since: dict[str, float] = {}
        for run in runs:
            suite = self._suites.get(run.id)
            passed = run.stage is Stage.BURNIN and run.outcome is Outcome.PASSED and run.finished is not None
            if suite is None or not passed or run.event < self._repaired.get(name, 0):
                continue
            for shorter in _LENGTH[: _LENGTH.index(suite) + 1]:
                since[shorter] = self._hours(run.finished or self._now)
        return since

    @property
    def remarks(self) -> tuple[str, ...]:
        """Failures that count towards no cause."""
        if not self._causeless:
            return ()
        words = ", ".join(f"{code} {count} x" for code, count in sorted(self._causeless.items()))
        return (f"failures of no published cause, which raise no rate: {words}",)


def _suites(ledger: Ledger, rack: str) -> Iterable[tuple[str, Suite]]:
    """The suite of each burn-in run, from what was put on record before it began."""
    names = {suite.value for suite in Suite}
    for event in ledger.events(rack, kind=EventKind.INTENT, limit=_ALL):
        details = event.body.get("details")
        if isinstance(details, dict) and details.get("suite") in names and details.get("run"):
            yield str(details["run"]), Suite(details["suite"])


def _trials(
    rack: Rack, node: str, beliefs: Beliefs, skus: Sequence[Sku], budget: Budget
) -> tuple[tuple[Trial, ...], tuple[str, ...]]:
    """Suites on one node, at what the forecast says they take; and why a suite is none.

    Where nothing is bounded, a length that nobody knows is no hindrance.
    """
    bounded = budget.minutes is not None or budget.kwh is not None
    found: list[Trial] = []
    untried: list[str] = []
    for suite, powers in _suites_for(rack, beliefs, bounded).items():
        plan = forecast(rack, (node,), suite, skus)
        cost = next(level for level in plan.levels if level.name is LevelName.NODES).cost
        minutes, kwh = cost.minutes, cost.kwh
        if minutes.value is None and bounded:
            untried.append(f"suite {suite} is no choice: {'; '.join(minutes.lacking)}")
        elif kwh.value is None and budget.kwh is not None:
            untried.append(f"suite {suite} is no choice under a bound of kWh: {'; '.join(kwh.lacking)}")
        else:
            # nan, never 0: nothing adds it up, for there is no bound of it
            energy = math.nan if kwh.value is None else kwh.value
            length = math.nan if minutes.value is None else minutes.value
            source = "; ".join(dict.fromkeys(p.source for p in powers.values()))
            found.append(Trial(suite.value, length, energy, {c: p.value for c, p in powers.items()}, source))
            lacking = tuple(dict.fromkeys((*minutes.lacking, *kwh.lacking)))
            untried += [f"suite {suite} takes more than is shown: {'; '.join(lacking)}"] if lacking else []
    return tuple(found), tuple(untried)


def _suites_for(rack: Rack, beliefs: Beliefs, bounded: bool) -> Mapping[Suite, Mapping[Cause, Sourced]]:
    """A rehearsal is what virtual racks are certified by, however long it takes: of its age alone, not of its worth."""
    real: dict[Suite, Mapping[Cause, Sourced]] = dict(beliefs.powers)
    real.pop(Suite.REHEARSAL, None)
    if bounded or not rack.profile.virtual:
        return real
    own = beliefs.powers.get(Suite.REHEARSAL)
    return {Suite.REHEARSAL: own or real[min(real, key=_LENGTH.index)]}


def _untested(trials: Iterable[Trial]) -> tuple[str, ...]:
    """Causes that none of these suites can find."""
    seen = {cause for trial in trials for cause, power in trial.power.items() if power > 0}
    missing = [cause.value for cause in Cause if cause not in seen]
    return (
        (f"no suite of one node finds: {', '.join(missing)}; rails are measured in pairs of nodes",) if missing else ()
    )


def _terms(
    rack: Rack, candidates: Sequence[Candidate], beliefs: Beliefs, capacity: Capacity, floor: float, budget: Budget
) -> tuple[Terms, tuple[str, ...]]:
    job = budget.job_nodes or capacity.running or len(candidates)
    whose = "as asked" if budget.job_nodes else "all that are admitted" if capacity.running else "all in service"
    said = [f"an interruption costs {job} nodes ({whose}) x {beliefs.lost_minutes.value:g} min"]
    nodes = len(candidates)
    if capacity.admitted:
        answer = may_evict(capacity, nodes, floor)
        nodes = answer.may
        said += [answer.reason] if answer.reason else []
    members = Counter(place for c in candidates for place in c.near)
    fewest = min(members.values(), default=len(candidates))
    at_once = max(1, int(beliefs.at_once.value * fewest))
    cost = job * beliefs.lost_minutes.value
    return Terms(cost, budget.minutes, budget.kwh, at_once, nodes, beliefs.oldest_hours.value), tuple(said)
