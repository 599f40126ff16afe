"""Chooses nodes and tests within a budget by what they are expected to save, and says what stays uncovered. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.judge.recert.hazard import Cause, History, Prior, gray_now, rate_per_hour


@dataclass(frozen=True, slots=True)
class Trial:
    """A test that a node may be given.

    minutes  of the node, from when it is free to when it is free again
    kwh      that it takes
    power    chance that it finds a gray fault of a cause that is there, 0..1; a cause that is not named: 0
    source   where the powers were measured
    """

    name: str
    minutes: float
    kwh: float
    power: Mapping[Cause, float]
    source: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node in service.

    near         leaves and NVLink domain it belongs to: no more than some of each are tested at once
    suspected    chance that a fault which stopped a job is still there: nobody found it, or nobody is sure
    hours_since  since a trial of that name last passed; one that never did is as old as the node's service
    wanted       the scheduler has a use for it now: it is left alone
    """

    node: str
    gpus: int
    near: tuple[str, ...]
    history: History
    hours_since: Mapping[str, float] = field(default_factory=dict)
    suspected: Mapping[Cause, float] = field(default_factory=dict)
    wanted: bool = False

    def age(self, trial: str) -> float:
        """Hours since the trial passed."""
        return self.hours_since.get(trial, self.history.hours)


@dataclass(frozen=True, slots=True)
class Terms:
    """What is at stake and what is allowed.

    interruption_node_minutes  what an interruption costs: nodes of the job times the minutes it loses
    node_minutes, kwh          the budget; None: no bound
    at_once                    nodes tested at once of one leaf or NVLink domain
    nodes                      tested at once in all: the capacity floor leaves no more
    oldest_hours               evidence older than this is renewed before anything that only pays: nothing is forgotten
    """

    interruption_node_minutes: float
    node_minutes: float | None
    kwh: float | None
    at_once: int
    nodes: int
    oldest_hours: float


@dataclass(frozen=True, slots=True)
class Pick:
    """A test of a node. saves: node-minutes that it is expected to save; overdue: chosen for its age, not its value."""

    node: str
    trial: str
    minutes: float
    kwh: float
    saves: float
    overdue: bool
    why: str


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A node that stays without a test that would have paid or was due, with the reason."""

    node: str
    trial: str
    saves: float
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What is done, in the order it was chosen, and what is not."""

    picks: tuple[Pick, ...]
    uncovered: tuple[Uncovered, ...]

    @property
    def node_minutes(self) -> float:
        """Of all picks."""
        return sum(pick.minutes for pick in self.picks)

    @property
    def kwh(self) -> float:
        """Of all picks."""
        return sum(pick.kwh for pick in self.picks)


def choose(candidates: Sequence[Candidate], trials: Sequence[Trial], priors: Sequence[Prior], terms: Terms) -> Choice:
    """Overdue evidence first, oldest first; then what saves most for each node-minute, while it saves more than it
    costs. A second trial of one node is credited only with what the first would have missed.
    """
    book = _Book({c.node: c for c in candidates}, trials, priors, terms)
    for _, node, trial in sorted(overdue(candidates, trials, terms.oldest_hours)):
        book.take(node, trial, overdue=True)
    heap = [(-book.density(c.node, t.name), c.node, t.name) for c in candidates for t in trials]
    heapq.heapify(heap)
    while heap:
        told, node, trial = heapq.heappop(heap)
        if (node, trial) in book.chosen:
            continue
        density = book.density(node, trial)
        if density <= 1.0:  # it costs more node-minutes than it saves; the others of the heap save no more
            if -told <= 1.0:
                break
            continue
        if heap and density < -heap[0][0]:  # an earlier pick took some of its worth: it is weighed again
            heapq.heappush(heap, (-density, node, trial))
            continue
        book.take(node, trial, overdue=False)
    return Choice(tuple(book.picks), tuple(book.left_out))


def overdue(
    candidates: Iterable[Candidate], trials: Sequence[Trial], oldest_hours: float
) -> Iterator[tuple[float, str, str]]:
    """(hours since it passed, negative; node; trial) of evidence that is older: sorted, the oldest comes first.

    Of a node's trials that are due those alone that find what no other of them does.
    """
    for candidate in candidates:
        due = [trial for trial in trials if candidate.age(trial.name) > oldest_hours]
        for trial in due:
            if not any(_covers(other, trial) for other in due):
                yield -candidate.age(trial.name), candidate.node, trial.name


def _covers(other: Trial, trial: Trial) -> bool:
    """Whether the other finds whatever this one does, and more of something."""
    powers = [(other.power.get(cause, 0.0), power) for cause, power in trial.power.items()]
    return other is not trial and all(a >= b for a, b in powers) and any(a > b for a, b in powers)


class _Book:
    """What was chosen so far, and what is left to choose from."""

    def __init__(
        self, candidates: Mapping[str, Candidate], trials: Sequence[Trial], priors: Sequence[Prior], terms: Terms
    ) -> None:
        self._candidates = candidates
        self._trials = {trial.name: trial for trial in trials}
        self._priors = priors
        self._terms = terms
        self._missed: dict[tuple[str, Cause], float] = {}  # chance that the trials chosen so far miss the fault
        self._worth: dict[tuple[str, str], float] = {}  # of (node, trial), as things stand
        self._near: Counter[str] = Counter()
        self._nodes: set[str] = set()
        self._minutes = self._kwh = 0.0
        self.chosen: set[tuple[str, str]] = set()
        self.picks: list[Pick] = []
        self.left_out: list[Uncovered] = []

    def density(self, node: str, trial: str) -> float:
        """Node-minutes saved for each one spent."""
        return self.saves(node, trial) / self._trials[trial].minutes

    def saves(self, node: str, trial: str) -> float:
        """Node-minutes that this trial is expected to save on top of those chosen."""
        known = self._worth.get((node, trial))
        if known is None:
            found = sum(there * power for there, power, _ in self._chances(node, trial))
            known = self._worth[node, trial] = found * self._terms.interruption_node_minutes
        return known

    def _chances(self, node: str, trial: str) -> Iterator[tuple[float, float, Cause]]:
        """Of each cause that the trial can find: the chance that it is there unfound, and the trial's power."""
        candidate = self._candidates[node]
        for prior in self._priors:
            power = self._trials[trial].power.get(prior.cause, 0.0)
            if power > 0:
                rate = rate_per_hour(prior, candidate.gpus, candidate.history)
                there = gray_now(prior, rate, self._passed(candidate, prior.cause), candidate.history.hours)
                there = 1 - (1 - there) * (1 - candidate.suspected.get(prior.cause, 0.0))
                yield there * self._missed.get((node, prior.cause), 1.0), power, prior.cause

    def _passed(self, candidate: Candidate, cause: Cause) -> list[tuple[float, float]]:
        """How long ago each trial passed that can find the cause, with its power."""
        known = [(candidate.hours_since[name], t.power.get(cause, 0.0)) for name, t in self._trials.items()
                 if name in candidate.hours_since]  # fmt: skip
        return [(hours, power) for hours, power in known if power > 0]

    def take(self, node: str, trial: str, *, overdue: bool) -> None:
        """Chooses it if nothing forbids; else notes why not."""
        spent, saves = self._trials[trial], self.saves(node, trial)
        reason = self._forbids(node, spent)
        if reason:
            self.left_out.append(Uncovered(node, trial, saves, reason))
            self.chosen.add((node, trial))
            return
        chances = sorted(((there * power, cause) for there, power, cause in self._chances(node, trial)), reverse=True)
        candidate = self._candidates[node]
        age = candidate.age(trial)
        why = f"evidence is {age:.0f} h old" if overdue else f"saves {saves:.0f} node-minutes for {spent.minutes:.0f}"
        if chances:
            why += f"; most likely to find: {chances[0][1]} ({chances[0][0]:.2%})"
        self.picks.append(Pick(node, trial, spent.minutes, spent.kwh, saves, overdue, why))
        self.chosen.add((node, trial))
        if node not in self._nodes:
            self._nodes.add(node)
            self._near.update(candidate.near)
        self._minutes += spent.minutes
        self._kwh += spent.kwh
        for name in self._trials:
            self._worth.pop((node, name), None)
        for cause, power in spent.power.items():
            self._missed[node, cause] = self._missed.get((node, cause), 1.0) * (1 - power)

    def _forbids(self, node: str, trial: Trial) -> str:
        candidate, terms = self._candidates[node], self._terms
        if candidate.wanted:
            return "the scheduler wants the node"
        if terms.node_minutes is not None and self._minutes + trial.minutes > terms.node_minutes:
            return f"the budget of {terms.node_minutes:.0f} node-minutes is spent"
        if terms.kwh is not None and self._kwh + trial.kwh > terms.kwh:
            return f"the budget of {terms.kwh:g} kWh is spent"
        if node in self._nodes:
            return ""
        if len(self._nodes) >= terms.nodes:
            return f"{terms.nodes} nodes at once are as many as the capacity floor leaves"
        full = [place for place in candidate.near if self._near[place] >= terms.at_once]
        return f"{terms.at_once} nodes of {full[0]} are tested already" if full else ""
