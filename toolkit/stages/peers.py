"""peers: what nodes measured is compared among siblings, and who stands apart is measured again before it counts.

It follows the burn-in of the nodes, where the rack's profile has gates relative to peers. Siblings are the nodes of
this batch, and those of the rack whose last burn-in is fresh; only the batch is put under load. A round runs the
cheapest workload that yields the metric, on the suspects' nodes and on those of their controls at the same time.

A round is on record before it is started, under a name that is never used again. A controller that was killed goes on
with the round it was in, and with what the rounds before it said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from toolkit.errors import UndecidedError
from toolkit.judge.believed import believed
from toolkit.judge.compared import Compared, Standing
from toolkit.judge.drift import Trend
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.relative import Question, Settled, Trial, question, standings, trials
from toolkit.judge.sequential import Decision
from toolkit.judge.subjects import planned_subjects
from toolkit.judge.verdict import Answer
from toolkit.ledger import EventKind, LeaseLostError, LedgerError, Run
from toolkit.rack.again import AGAIN, Again
from toolkit.rack.gate import Operator, Scope
from toolkit.rack.lifecycle import Stage
from toolkit.rack.metric import METRICS
from toolkit.rack.model import Profile, Suite, Unit
from toolkit.rack.power import begins
from toolkit.stages.burnin import Burned
from toolkit.stages.burnin_collectives import judge_burnin
from toolkit.stages.burnin_records import PIPELINE, last_burnin
from toolkit.stages.burnin_run import Order, measured_again
from toolkit.stages.context import Context, Progress, Result, StageRunner, Work, holding
from toolkit.stages.peer_records import FILED, keep_comparisons, subject_body, subject_of
from toolkit.stages.trends import drifts

AT_ONCE = 32
MOST_LOST = 3  # rounds that gave a suspect no reading, after which it stays unsettled
STARTING = timedelta(seconds=5)  # to start a round on every node before the first of them takes up its load
# A symptom of the whole tray may be one GPU's slowness; any other part that failed is condemned without its siblings.
_WIDE = "tray"

Told = Mapping[str, Sequence[Measurement]]
Read = Callable[[Context, Unit, Order, str, Run], Iterable[Measurement]]
"""Runs a suite of one workload on a node and answers what it measured; UndecidedError where it gave nothing."""


def after(burn_in: StageRunner, read: Read = measured_again, suite: Suite | None = None) -> StageRunner:
    """The burn-in with its comparison behind it, where the profile has gates that ask for one.

    suite  that was run, where it is not the profile's own: then only the nodes of this batch took it
    """

    def runner(context: Context, work: Work) -> None:
        if not asked(context.rack.profile):
            burn_in(context, work)
            return
        waiting, held = holding(work)
        burn_in(context, waiting)
        nodes = tuple(n for n in work.nodes if n.name in held)
        told = {n.name: _on_record(context, n, work.runs[n.name]) for n in nodes}
        own = suite in (None, context.rack.profile.suite)
        found = Batch(context, nodes, work.runs, told, suite or context.rack.profile.suite, read).compare(
            _siblings(context, told) if own else {}
        )
        work.each(nodes, lambda node: _with_words(held[node.name], found.get(node.name, ())))

    return runner


def by_hand(
    context: Context, work: Work, suite: Suite, burned: Mapping[str, Burned], read: Read = measured_again
) -> Mapping[str, tuple[Compared, ...]]:
    """Compares the nodes of an operator's burn-in among themselves: nobody else took that suite."""
    if not asked(context.rack.profile):
        return {}
    nodes = tuple(n for n in work.nodes if n.name in burned)
    told = {name: believed(b.measurements) for name, b in burned.items()}
    return Batch(context, nodes, work.runs, told, suite, read).compare({})


def asked(profile: Profile) -> list[tuple[str, float]]:
    """Metrics and limits of the profile's gates relative to peers."""
    gates = [g for g in profile.gates if g.operator is Operator.PEERS and g.stage == Stage.BURNIN]
    return sorted({(g.metric, g.limit) for g in gates if isinstance(g.limit, float)})


def _on_record(context: Context, node: Unit, run: Run) -> list[Measurement]:
    return believed(context.ledger.measurements(context.rack.name, node.name, run=run.id))


def _siblings(context: Context, batch: Iterable[str]) -> Told:
    """What the rack's other nodes measured in the same suite, where it is still evidence."""
    oldest = context.clock() - context.rack.profile.evidence_max_age
    others = [n for n in context.rack.nodes if n.name not in set(batch) and _took_the_suite(context, n)]
    found = {n.name: _on_record(context, n, run) for n in others if (run := last_burnin(context, n))}
    return {name: told for name, told in found.items() if told and min(m.at for m in told) >= oldest}


def _took_the_suite(context: Context, node: Unit) -> bool:
    """Whether the node's last burn-in was in the suite that the profile asks for now."""
    begun = context.ledger.find(context.rack.name, node.name, EventKind.INTENT, PIPELINE)
    return begun is not None and begun.body["details"]["suite"] == context.rack.profile.suite


def _with_words(ended: Result, compared: Iterable[Compared]) -> Result:
    read = [c for c in compared if c.standing in (Standing.WORSE, Standing.CLEARED, Standing.UNSETTLED)]
    words = [f"{c.metric} of {c.subject} is {c.standing}" for c in read]
    return replace(ended, message="; ".join([ended.message, *words])[:500]) if words else ended


@dataclass(frozen=True, slots=True)
class Batch:
    """Nodes that were burnt in together. `told` is what may be believed of each, by node.

    history  the burn-in is one of those that certificates rest on: it is compared with those before it
    """

    context: Context
    nodes: Sequence[Unit]
    runs: Mapping[str, Run]
    told: Told
    suite: Suite
    read: Read
    history: bool = False

    def compare(self, siblings: Told) -> dict[str, tuple[Compared, ...]]:
        """How every part of every node stands in the end, by node; on record."""
        questions = self._questions(siblings)
        free = {n.name: n for n in self.nodes if self._is_free(n)}
        trends = drifts(self.context, self.nodes, self.runs, self.suite, questions) if self.history else {}
        worse = {key: trend for key, trend in trends.items() if trend.trend is Trend.DRIFTING}
        again = [
            trial
            for q in questions
            if not q.too_few
            for trial in trials(q, free, [subject for metric, subject in worse if metric == q.metric])
        ]
        settled = Campaign(self.context, free, self.runs, again, self.read).run() if again else []
        origin = self.context.ledger.artifacts.put(json.dumps(_record(questions, settled), indent=1).encode())
        words = {q.metric: {s: t.why for (metric, s), t in worse.items() if metric == q.metric} for q in questions}
        found = [c for q in questions for c in standings(q, _of(settled, q), origin, words[q.metric])]
        by_node = {n.name: tuple(c for c in found if c.subject.node == n.name) for n in self.nodes}
        for node in self.nodes:
            keep_comparisons(self.context, self.runs[node.name], by_node[node.name])
        return by_node

    def _questions(self, siblings: Told) -> list[Question]:
        everybody = {**self.told, **siblings}
        rack, found = self.context.rack, []
        known = [m for told in everybody.values() for m in told]
        subjects = [s for n in rack.nodes if n.name in everybody for s in planned_subjects(n, rack.profile)]
        for metric, limit in asked(rack.profile):
            planned = [s for s in subjects if s.scope is METRICS[metric].scope]
            found.append(question(metric, limit, planned, known))
        return found

    def _is_free(self, node: Unit) -> bool:
        """Whether the node may be loaded again: not where a part has failed already, or we could not tell."""
        verdict = judge_burnin(self.context, node, self.told[node.name], self.suite)
        if verdict.answer is Answer.FAIL:
            return all(f.gate.part == _WIDE for f in verdict.of(Answer.FAIL))
        return verdict.answer is Answer.PASS


def _of(settled: Iterable[Settled], asked_: Question) -> list[Settled]:
    return [s for s in settled if s.trial.question is asked_]


Key = tuple[str, float, Subject, str]


@dataclass(slots=True)
class Campaign:
    """Trials read round by round until each is settled, on record. `number` is of its entry in the ledger."""

    context: Context
    free: Mapping[str, Unit]
    runs: Mapping[str, Run]
    trials: Sequence[Trial]
    read: Read
    number: int = field(init=False)
    turn: int = field(init=False, default=0)
    shifts: dict[Key, list[float]] = field(init=False, default_factory=dict)
    lost: dict[Key, list[str]] = field(init=False, default_factory=dict)
    away: set[str] = field(init=False, default_factory=set)

    def run(self) -> list[Settled]:
        """Reads until everybody is settled. What a campaign that was cut off has read of a suspect counts."""
        self._resume()
        for suite in Again:
            while some := [t for t in self.trials if AGAIN[t.question.metric] is suite and self._is_open(t)]:
                self._round(suite, some)
        ledger, rack = self.context.ledger, self.context.rack.name
        settled = [Settled(t, tuple(self.shifts[t.key]), self._doubt(t)) for t in self.trials]
        ledger.observed(rack, "", FILED, {"intent": self.number, "settled": [_settled(s) for s in settled]})
        return settled

    def _resume(self) -> None:
        ledger, rack = self.context.ledger, self.context.rack.name
        self.shifts = {t.key: [] for t in self.trials}
        self.lost = {t.key: [] for t in self.trials}
        begun = ledger.find(rack, "", EventKind.INTENT, FILED)
        ended = ledger.find(rack, "", EventKind.OBSERVED, FILED)
        told = [_key_body(t.key) for t in self.trials]
        if begun is not None:
            self._take(begun.id)
            cut_off = ended is None or ended.id < begun.id
            if cut_off and begun.body["details"]["suspects"] == told:
                self.number = begun.id
                return
        self.turn, self.away, self.lost = 0, set(), {t.key: [] for t in self.trials}
        self.number = ledger.intent(rack, "", FILED, {"suspects": told, "tests": [_stated(t) for t in self.trials]}).id

    def _take(self, number: int) -> None:
        """Takes in what the rounds of that campaign said of our suspects."""
        events = self.context.ledger.events(self.context.rack.name, "", EventKind.OBSERVED, number, limit=100_000)
        for event in events:
            if event.what == f"{FILED} {number}":
                self.turn += 1
                self._count(event.body["details"])

    def _count(self, told: Mapping[str, Any]) -> None:
        self.away |= set(told["lost"])
        for entry in told["shifts"]:
            key = _key_of(entry)
            if key not in self.shifts:
                continue
            if entry["shift"] is None:
                self.lost[key].append(entry["why"])
            else:
                self.shifts[key].append(entry["shift"])

    def _is_open(self, trial: Trial) -> bool:
        undecided = trial.progress(self.shifts[trial.key]).decision is Decision.AGAIN
        return undecided and not self._doubt(trial)

    def _doubt(self, trial: Trial) -> str:
        """Why no more readings of the suspect are tried; empty where they are."""
        lost = self.lost[trial.key]
        if trial.progress(self.shifts[trial.key]).decision is not Decision.AGAIN:
            return ""
        if worse := self._condemned(trial):
            return f"nothing more is to be known of it: {worse}"
        if len(lost) >= MOST_LOST:
            return f"{len(lost)} rounds gave no reading of it: {lost[-1]}"
        if not trial.beside(0, self.away - {trial.suspect.subject.node}):
            return "too few siblings are left to be read beside it"
        return ""

    def _condemned(self, trial: Trial) -> str:
        """What has been found worse that this suspect is, or that is in it; empty where nothing has."""
        own = trial.suspect.subject
        for other in self.trials:
            subject = other.suspect.subject
            same = subject == own or (own.scope is Scope.NODE and subject.node == own.node)
            if same and other is not trial and other.progress(self.shifts[other.key]).decision is Decision.WORSE:
                return f"{other.question.metric} of {subject} is worse"
        return ""

    def _round(self, suite: Again, some: Sequence[Trial]) -> None:
        """One workload on all nodes that are wanted, at once; its readings, and what they say of each suspect."""
        ledger, rack = self.context.ledger, self.context.rack.name
        beside = {t.key: t.beside(self.turn, self.away - {t.suspect.subject.node}) for t in some}
        names = {s.node for t in some for s in (t.suspect.subject, *beside[t.key])}
        nodes = [n for name, n in self.free.items() if name in names]
        identity = {n.name: f"{rack}-{n.name}-peers{self.number}-{self.turn}" for n in nodes}
        what = f"{FILED} {self.number}"
        ledger.intent(rack, "", what, {"round": self.turn, "suite": suite, "nodes": identity})
        self._say(nodes, f"{len(some)} suspects measured again by {suite}: round {self.turn + 1}")
        told, lost = self._read_all(suite, nodes, identity)
        entries = [self._entry(t, beside[t.key], told, lost) for t in some]
        readings = [
            {**subject_body(m.subject), "metric": m.metric, "value": m.value, "origin": m.origin}
            for m in told
            if m.metric in {t.question.metric for t in some}
        ]
        body = {"round": self.turn, "suite": suite, "readings": readings, "lost": lost, "shifts": entries}
        ledger.observed(rack, "", what, body)
        self._count(body)
        self.turn += 1

    def _entry(
        self, trial: Trial, beside: Sequence[Subject], told: Iterable[Measurement], lost: Mapping[str, str]
    ) -> dict[str, object]:
        values = {
            m.subject: float(m.value)
            for m in told
            if m.metric == trial.question.metric and not isinstance(m.value, str) and m.value > 0
        }
        shift = trial.shift(values, beside)
        missing = [str(s) for s in (trial.suspect.subject, *beside) if s not in values]
        why = "; ".join(lost.values()) or f"no reading of {', '.join(missing)}" if missing else ""
        controls = [subject_body(s) for s in beside]
        return {**_key_body(trial.key), "beside": controls, "shift": shift, "why": why[:300]}

    def _read_all(
        self, suite: Again, nodes: Sequence[Unit], identity: Mapping[str, str]
    ) -> tuple[list[Measurement], dict[str, str]]:
        """All that was measured, and for each node that gave nothing why."""
        profile = self.context.rack.profile
        found = begins([n.name for n in nodes], profile)
        staggered = any(b.gpu_stagger_s for b in found.values())
        order = Order(suite, f"{FILED} again", self.context.clock() + STARTING if staggered else None, found)

        def one(node: Unit) -> Sequence[Measurement] | str:
            try:
                return tuple(self.read(self.context, node, order, identity[node.name], self.runs[node.name]))
            except (LedgerError, LeaseLostError):
                raise  # without the ledger nothing may go on
            except UndecidedError as problem:
                return problem.message

        with ThreadPoolExecutor(min(AT_ONCE, len(nodes)), thread_name_prefix=FILED) as pool:
            answers = dict(zip((n.name for n in nodes), pool.map(one, nodes), strict=True))
        lost = {name: answer[:300] for name, answer in answers.items() if isinstance(answer, str)}
        return [m for answer in answers.values() if not isinstance(answer, str) for m in answer], lost

    def _say(self, nodes: Iterable[Unit], text: str) -> None:
        for node in nodes:
            self.context.progress(Progress(node.name, Stage.BURNIN, text))


def _key_body(key: Key) -> dict[str, object]:
    metric, limit, subject, of = key
    return {"metric": metric, "limit": limit, "of": of, "subject": subject_body(subject)}


def _key_of(body: Mapping[str, Any]) -> Key:
    return body["metric"], body["limit"], subject_of(body["subject"]), body["of"]


def _stated(trial: Trial) -> dict[str, object]:
    """The test, before its first reading."""
    d = trial.design
    sizes = {"effect": d.effect, "tolerated": d.tolerated, "sigma": d.sigma, "alpha": d.alpha, "beta": d.beta}
    return {**_key_body(trial.key), "why": trial.suspect.why, **sizes, "most": d.most}


def _settled(settled: Settled) -> dict[str, object]:
    at = settled.trial.progress(settled.shifts)
    told = {"decision": at.decision, "evidence": at.evidence, "shifts": list(settled.shifts), "doubt": settled.why}
    return {**_key_body(settled.trial.key), **told}


def _record(questions: Iterable[Question], settled: Iterable[Settled]) -> dict[str, object]:
    """For the artifact: every reading that was compared, what they were measured by, and how suspects ended."""

    def of(q: Question) -> dict[str, object]:
        found = q.comparison
        noise = None if found.noise is None else {"sigma": found.noise.sigma, "degrees": found.noise.degrees}
        effects = [
            {"factor": e.factor, "level": e.level, "shift": e.shift, "places": e.places, "error": e.error}
            for e in found.effects
        ]
        peers = [
            {"subject": str(p.subject), "value": p.reading.value, "shift": p.shift, "standing": p.standing}
            for p in found.peers
        ]
        told = {"centre": found.centre, "noise": noise, "least": found.least, "effects": effects, "peers": peers}
        return {"metric": q.metric, "limit": q.limit, "planned": len(q.planned), "confused": found.confused, **told}

    return {"comparisons": [of(q) for q in questions], "measured_again": [_settled(s) for s in settled]}
