"""The results of a rack from its ledger: the newest run of every stage, and every gate judged on what that measured.

A gate is judged again here, by the same function and on the same evidence as when the run ended, because the ledger
keeps passes as a count. Where it has a finding by name that is worse, that one stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from toolkit.export.results import Answered, Case, Results, Suite, TestedNode
from toolkit.judge.believed import believed
from toolkit.judge.evidence import Measurement
from toolkit.judge.part import GpuSeat, part
from toolkit.judge.subjects import planned_subjects
from toolkit.judge.verdict import Answer, Finding, judge
from toolkit.ledger import Event, EventKind, Ledger, Run
from toolkit.rack.gate import WIDE, Gate
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.metric import RAIL_METRIC
from toolkit.rack.model import Rack, Unit
from toolkit.report.standing import Standing, standings
from toolkit.stages.burnin import YIELDED
from toolkit.stages.burnin_records import PIPELINE
from toolkit.stages.level_records import not_asked, wide_verdict
from toolkit.stages.peer_records import comparisons_on_record

_ALL = 100_000
OUTCOME = "outcome"  # the name of a stage's own case
STATE = "admitted"  # of a node's
_OF_OUTCOME = {Outcome.PASSED: Answered.PASSED, Outcome.FAILED: Answered.FAILED, Outcome.ERROR: Answered.ERROR}
_OF_ANSWER = {
    Answer.PASS: Answered.PASSED, Answer.FAIL: Answered.FAILED, Answer.INCONCLUSIVE: Answered.ERROR,
}  # fmt: skip
# What a move back makes void: after a repair it is another machine, after a lapse there is no certificate.
_VOID = {Move.REPAIR: tuple(Stage), Move.LAPSE: (Stage.CERTIFY, Stage.ADMIT)}


def results(ledger: Ledger, rack: Rack, now: datetime, version: str, *, kubelets: bool = True) -> Results:
    """What is on record of the rack's nodes, as designed. `kubelets`: False where the pool has none to ask.

    What is recorded is shown as old as it is: nothing here says that a pass still holds. That is a certificate's.
    """
    by_node: dict[str, dict[Stage, Run]] = {}
    for run in ledger.newest_runs(rack.name):
        by_node.setdefault(run.node, {})[run.stage] = run
    nodes: list[TestedNode] = []
    suites: list[Suite] = []
    stood: list[Run] = []
    for unit, standing in zip(rack.nodes, standings(ledger, rack), strict=True):
        node = _Node(
            ledger, rack, unit, by_node.get(unit.name, {}), _moves_back(ledger, rack.name, unit.name), kubelets
        )
        nodes.append(TestedNode(unit.name, unit.serial, unit.slot, standing.state, tuple(sorted(node.seats.items()))))
        suites.append(Suite(unit.name, "node", (_of_standing(standing),)))
        suites += [node.suite(stage) for stage in Stage]
        burnin = node.stands(Stage.BURNIN)
        stood += [burnin] if isinstance(burnin, Run) else []
    suites += _together(ledger, rack, stood)
    profile = rack.profile
    return Results(rack.name, rack.site, profile.name, profile.sku, version, now, tuple(nodes), tuple(suites))


def _of_standing(standing: Standing) -> Case:
    """Whether the node takes jobs. One that an operator set aside failed on nothing.

    One that is only on its way is undecided: where all else is skipped, a reader would take the file for green.
    """
    answer = Answered.ERROR
    if standing.state is NodeState.ADMITTED:
        return Case(STATE, standing.node, Answered.PASSED, f"it is {standing.state}")
    if standing.state is NodeState.RETIRED:
        answer = Answered.SKIPPED
    if standing.state is NodeState.QUARANTINED and standing.outcome is Outcome.FAILED:
        answer = Answered.FAILED
    words = f"{standing.state}: {standing.message}" if standing.message else f"it is {standing.state}"
    return Case(STATE, standing.node, answer, words, code=standing.code, part=standing.part, next=standing.next)


def _moves_back(ledger: Ledger, rack: str, node: str) -> tuple[Event, ...]:
    moves = ledger.events(rack, node, kind=EventKind.NODE_MOVED, limit=_ALL)
    return tuple(event for event in moves if event.body["move"] in _VOID)


@dataclass(frozen=True, slots=True)
class _Node:
    """One node's newest runs."""

    ledger: Ledger
    rack: Rack
    unit: Unit
    runs: Mapping[Stage, Run]
    back: tuple[Event, ...]
    kubelets: bool

    @property
    def seats(self) -> dict[int, GpuSeat]:
        """The GPUs that its last burn-in found before the load; empty where there was none."""
        event = self.ledger.find(self.rack.name, self.unit.name, EventKind.OBSERVED, PIPELINE)
        gpus: Mapping[str, Any] = event.body["details"]["gpus"] if event else {}
        return {int(gpu): GpuSeat(serial, pci) for gpu, (serial, pci) in gpus.items()}

    def stands(self, stage: Stage) -> Run | str:
        """The run that counts, or why there is none."""
        run = self.runs.get(stage)
        if run is not None and run.code == YIELDED:
            run = self._before_yielding(stage)
        if run is None:
            return f"{stage} has not run on {self.unit.name}"
        for event in reversed(self.back):
            if event.id > run.event and stage in _VOID[Move(event.body["move"])]:
                return f"{stage} has not run since '{event.body['move']}' at {event.at.isoformat()}"
        return run

    def _before_yielding(self, stage: Stage) -> Run | None:
        """A re-certification that gave its node back proves nothing, and takes nothing away from what was proven."""
        runs = self.ledger.runs(self.rack.name, self.unit.name, stage)
        return next((run for run in reversed(runs) if run.code != YIELDED), None)

    def suite(self, stage: Stage) -> Suite:
        """The stage's own case, then its gates in the profile's order."""
        run, gates = self.stands(stage), self._gates(stage)
        if isinstance(run, str):
            told = [Case(gate.code, self.unit.name, Answered.SKIPPED, run, gate) for gate in gates]
            own = Case(OUTCOME, self.unit.name, Answered.SKIPPED, run)
            return Suite(self.unit.name, stage.value, (own, *told))
        own = self._outcome(run)
        if run.finished is None:
            told = [replace(own, name=gate.code, gate=gate) for gate in gates]
        else:
            told = list(self._judged(run, run.finished, gates))
        return Suite(self.unit.name, stage.value, (own, *told), run.started, run.finished)

    def _gates(self, stage: Stage) -> tuple[Gate, ...]:
        return tuple(g for g in self.rack.profile.gates if g.stage == stage and g.scope not in WIDE)

    def _outcome(self, run: Run) -> Case:
        name = self.unit.name
        if run.outcome is None or run.finished is None:
            words = "the run has no end on record: it goes on, or its process died"
            return Case(OUTCOME, name, Answered.ERROR, words, code="INTERRUPTED", next=f"rackproof status {run.rack}")
        return Case(
            OUTCOME, name, _OF_OUTCOME[run.outcome], run.message, at=run.finished,
            seconds=(run.finished - run.started).total_seconds(), code=run.code, part=run.part, next=run.next,
        )  # fmt: skip

    def _judged(self, run: Run, ended: datetime, gates: Sequence[Gate]) -> Iterator[Case]:
        told = {g: why for g in gates if (why := self._not_asked(g))}
        asked = [g for g in gates if g not in told]
        yield from (Case(g.code, self.unit.name, Answered.SKIPPED, why, g) for g, why in told.items())
        metrics = {g.metric for g in asked}
        found = believed(self.ledger.measurements(self.rack.name, self.unit.name, run.id))
        found = [m for m in found if m.metric in metrics]
        verdict = judge(
            asked,
            tuple(planned_subjects(self.unit, self.rack.profile)),
            found,
            ended,
            self.rack.profile.evidence_max_age,
            comparisons_on_record(self.ledger, self.rack.name, self.unit.name, run.id),
        )
        noted = self.ledger.events(self.rack.name, self.unit.name, EventKind.JUDGED, run.event, _ALL)
        whole = run.outcome is not Outcome.ERROR or bool(noted)
        times = {(m.metric, m.subject): m.at for m in found}
        seats = self.seats
        cases = [self._case(f, times, seats) for f in _shortened(verdict.findings, {m.metric for m in found})]
        if not whole:
            why = f"the run ended in ERROR {run.code} before it was judged; measured: "
            cases = [_open(case, why) if case.answer is Answered.PASSED else case for case in cases]
        yield from _noted(cases, noted)

    def _not_asked(self, gate: Gate) -> str:
        if gate.metric == RAIL_METRIC and not self.rack.profile.rail_test:
            return "not asked: the profile's rail_test is off"
        if gate.stage == Stage.KUBERNETES and not self.kubelets:
            return "not asked: the pool has no kubelet"
        if gate.limit is None and not gate.required:
            return "not asked: nobody has sourced a limit, and the gate keeps nobody back"
        return ""

    def _case(self, finding: Finding, times: Mapping[Any, datetime], seats: Mapping[int, GpuSeat]) -> Case:
        answer = Answered.SKIPPED if finding.excused else _OF_ANSWER[finding.answer]
        failed = answer is Answered.FAILED
        return Case(
            finding.code, str(finding.subject), answer, finding.detail, finding.gate, finding.value,
            times.get((finding.gate.metric, finding.subject)), None, finding.code if failed else "",
            part(finding, self.unit, seats, (), self.rack.links) if failed else "",
            f"rackproof explain {finding.code}" if failed else "", finding.origin,
        )  # fmt: skip


def _shortened(findings: Iterable[Finding], measured: set[str]) -> Iterator[Finding]:
    """A gate of whose metric nothing at all was measured is one case, not one for each of 144 links."""
    told: set[tuple[str, str]] = set()
    for finding in findings:
        key = (finding.code, finding.gate.metric)
        if finding.gate.metric in measured:
            yield finding
        elif key not in told:
            told.add(key)
            yield finding


def _open(case: Case, why: str) -> Case:
    return replace(case, answer=Answered.ERROR, detail=why + case.detail)


def _noted(cases: Sequence[Case], events: Iterable[Event]) -> list[Case]:
    """With findings that were put on record by name: of the same gate and part, the worse answer stands.

    A pass becomes what was recorded, and what could not be told becomes a recorded failure.
    """
    told = list(cases)
    places: dict[tuple[str, str], list[int]] = {}
    for number, case in enumerate(told):
        places.setdefault((case.name, case.subject), []).append(number)
    for event in events:
        for found in event.body.get("findings", ()):
            answer = _OF_ANSWER.get(found.get("answer"), Answered.PASSED)
            mine = places.get((str(found.get("code")), str(found.get("subject"))), [])
            detail = str(found.get("detail", ""))
            named = [n for n in mine if (gate := told[n].gate) and detail.startswith(gate.metric)]
            for number in named or mine:
                if _is_worse(answer, told[number].answer):
                    told[number] = _recorded(told[number], answer, found, event.at)
    return told


def _is_worse(answer: Answered, than: Answered) -> bool:
    """Whether a recorded answer takes the place of ours. What was not asked stays so."""
    if than is Answered.PASSED:
        return answer in (Answered.FAILED, Answered.ERROR)
    return than is Answered.ERROR and answer is Answered.FAILED


def _recorded(case: Case, answer: Answered, found: Mapping[str, Any], at: datetime) -> Case:
    return replace(
        case, answer=answer, detail=str(found.get("detail", "")), value=found.get("value"), at=at,
        code=case.name if answer is Answered.FAILED else "", artifact=str(found.get("artifact") or ""),
    )  # fmt: skip


def _together(ledger: Ledger, rack: Rack, burnins: Iterable[Run]) -> Iterator[Suite]:
    """Gates that are asked of many nodes together: by the newest reading of each, of the burn-ins that stand."""
    wide = [g for g in rack.profile.gates if g.scope in WIDE]
    if not wide:
        return
    newest: dict[Any, Measurement] = {}
    for run in burnins:
        for m in ledger.measurements(rack.name, None, run.id):
            key = (m.metric, m.subject)
            if m.subject.scope in WIDE and (key not in newest or m.at >= newest[key].at):
                newest[key] = m
    told = tuple(newest.values())
    at = max((m.at for m in told), default=None)
    verdict = wide_verdict(rack.profile, told, at) if at else None
    found = verdict.findings if verdict else ()
    cases = [
        Case(f.code, str(f.subject), _OF_ANSWER[f.answer], f.detail, f.gate, f.value, at, artifact=f.origin)
        for f in found
    ]
    missing = not_asked(rack.profile, (f.gate for f in found))
    cases += [Case(g.code, "rack", Answered.SKIPPED, "not asked: no burn-in ran its collective", g) for g in missing]
    yield Suite("", Stage.BURNIN.value, tuple(cases), None, at)
