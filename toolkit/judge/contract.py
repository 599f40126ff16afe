"""A contract's criteria judged on the evidence of a rack: an answer, counts, the worst subject and why. Pure.

A criterion passes where every gate it names was asked of every planned subject, and each answered PASS on evidence that
a certificate in force rests on. What a certificate does not vouch for may fail a criterion and never pass it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from toolkit.judge.compared import Compared
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.levels import FEWEST_ON_A_LEAF, rails
from toolkit.judge.subjects import planned_subjects
from toolkit.judge.verdict import Answer, Finding, judge
from toolkit.rack.contract import Annex, Asked, Criterion, Unasked, asked
from toolkit.rack.gate import WIDE, Gate, Operator, Scope
from toolkit.rack.metric import COLLECTIVES, wide_metric
from toolkit.rack.model import Rack

_RANK = {Answer.FAIL: 0, Answer.INCONCLUSIVE: 1, Answer.PASS: 2}


@dataclass(frozen=True, slots=True)
class NodeEvidence:
    """What is on record of one node.

    doubt   why no certificate in force vouches for it; empty where one does
    at      the time it is judged at: when its certificate was issued, or when it was measured last
    max_age how old it may have been then
    told    by metric what was measured: of each subject once, the newest that counts
    """

    node: str
    doubt: str
    at: datetime
    max_age: timedelta
    told: Mapping[str, tuple[Measurement, ...]]
    compared: tuple[Compared, ...] = ()


@dataclass(frozen=True, slots=True)
class RackEvidence:
    """What is on record of a rack.

    wide  measured of many nodes together, by certificates in force
    lost  origin -> why that evidence can no longer be read back
    """

    nodes: tuple[NodeEvidence, ...]
    wide: tuple[Measurement, ...]
    wide_at: datetime
    wide_max_age: timedelta
    lost: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """One gate of a criterion over all its subjects."""

    asked: Asked
    answer: Answer
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class CriterionAnswer:
    """One criterion.

    subjects  each planned subject with the worst answer of any gate on it
    unasked   why gates that it names were not asked
    worst     the finding that decides, or that is nearest to its limit; None where nothing was asked
    """

    criterion: Criterion
    answer: Answer
    gates: tuple[GateAnswer, ...]
    subjects: Mapping[Subject, Answer]
    unasked: tuple[Unasked, ...]
    worst: Finding | None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all its gates."""
        return tuple(f for gate in self.gates for f in gate.findings)

    def count(self, answer: Answer) -> int:
        """How many subjects have this answer."""
        return sum(one is answer for one in self.subjects.values())


def judge_contract(annex: Annex, rack: Rack, evidence: RackEvidence) -> tuple[CriterionAnswer, ...]:
    """Every criterion of the annex, in its order."""
    return tuple(_criterion(annex, one, rack, evidence) for one in annex.criteria)


def overall(answers: Iterable[Answer]) -> Answer:
    """As good as the worst of them; of none, nothing is proven."""
    return min(answers, key=_RANK.__getitem__, default=Answer.INCONCLUSIVE)


def _criterion(annex: Annex, criterion: Criterion, rack: Rack, evidence: RackEvidence) -> CriterionAnswer:
    gates: list[GateAnswer] = []
    unasked: list[Unasked] = []
    for one in asked(criterion, f"{annex.contract}, {criterion.clause}", rack.profile):
        if isinstance(one, Unasked):
            unasked.append(one)
        else:
            findings = tuple(_ask(one.gate, rack, evidence))
            gates.append(GateAnswer(one, overall(f.answer for f in findings), findings))
    found = [f for gate in gates for f in gate.findings]
    subjects: dict[Subject, Answer] = {}
    for finding in found:
        subjects[finding.subject] = overall((finding.answer, subjects.get(finding.subject, Answer.PASS)))
    answer = overall([*(gate.answer for gate in gates), *(Answer.INCONCLUSIVE for _ in unasked)])
    worst = min(found, key=_by_worst, default=None)
    return CriterionAnswer(criterion, answer, tuple(gates), subjects, tuple(unasked), worst)


def _ask(gate: Gate, rack: Rack, evidence: RackEvidence) -> Iterator[Finding]:
    if gate.scope in WIDE:
        yield from (_sound(f, evidence.lost) for f in _ask_wide(gate, rack, evidence))
        return
    on_record = {of.node: of for of in evidence.nodes}
    for unit in rack.nodes:
        planned = [s for s in planned_subjects(unit, rack.profile) if s.scope is gate.scope]
        of = on_record[unit.name]
        told = of.told.get(gate.metric, ())
        for finding in judge([gate], planned, told, of.at, of.max_age, of.compared).findings:
            if finding.gate == gate:  # not a warning that it gave rise to
                doubt = f"no certificate in force vouches for {unit.name}" if of.doubt else ""
                yield _vouched(_sound(finding, evidence.lost), doubt)


def _vouched(finding: Finding, doubt: str) -> Finding:
    """A failure stands by itself; a pass needs a certificate."""
    if not doubt or finding.answer is not Answer.PASS:
        return finding
    return replace(finding, answer=Answer.INCONCLUSIVE, detail=f"{doubt}; measured: {finding.detail}")


def _sound(finding: Finding, lost: Mapping[str, str]) -> Finding:
    """What can no longer be read back proves nothing, good or bad."""
    if finding.origin not in lost:
        return finding
    return replace(finding, answer=Answer.INCONCLUSIVE, detail=lost[finding.origin])


def _ask_wide(gate: Gate, rack: Rack, evidence: RackEvidence) -> Iterator[Finding]:
    for subject, ranks in _planned_wide(gate.scope, rack).items():
        told = _newest(m for m in evidence.wide if m.subject == subject)
        of_gate = [m for m in told if m.metric == gate.metric]
        for finding in judge([gate], [subject], of_gate, evidence.wide_at, evidence.wide_max_age).findings:
            yield _vouched(finding, _of_all(gate, told, ranks))


def _planned_wide(scope: Scope, rack: Rack) -> dict[Subject, int]:
    """What the gate is asked of, with the ranks of a collective among all planned nodes of it."""
    names = [node.name for node in rack.nodes]
    if scope is not Scope.LEAF:
        return {Subject(scope): len(names) * rack.profile.gpus_per_node}
    by_leaf: dict[str, int] = {}
    for (leaf, _), joined in rails(rack, names).items():
        if len(joined) >= FEWEST_ON_A_LEAF:
            by_leaf[leaf] = max(by_leaf.get(leaf, 0), len(joined))
    return {Subject(Scope.LEAF, leaf): ranks for leaf, ranks in sorted(by_leaf.items())} or {Subject(Scope.LEAF): 0}


def _newest(measurements: Iterable[Measurement]) -> list[Measurement]:
    """One of each metric: every node's run has the reading that it took part in."""
    newest: dict[str, Measurement] = {}
    for m in measurements:
        if m.metric not in newest or m.at > newest[m.metric].at:
            newest[m.metric] = m
    return list(newest.values())


def _of_all(gate: Gate, told: Iterable[Measurement], ranks: int) -> str:
    """Why what was measured is not of all planned nodes; empty where it is."""
    kind = next((c for c in COLLECTIVES if gate.metric.startswith(wide_metric(gate.scope, c, ""))), COLLECTIVES[0])
    took = [m.value for m in told if m.metric == wide_metric(gate.scope, kind, "ranks")]
    if took == [ranks]:
        return ""
    return f"{took[0]} of {ranks} ranks took part" if took else "how many ranks took part is not on record"


def _by_worst(finding: Finding) -> tuple[int, bool, float]:
    """First what fails, then what is open, then what is nearest to a limit that has a margin."""
    margin = _margin(finding)
    return _RANK[finding.answer], math.isinf(margin), margin


def _margin(finding: Finding) -> float:
    """How far a value is within its limit, as a share of it; infinite where there is no such thing."""
    value, limit, operator = finding.value, finding.gate.limit, finding.gate.operator
    if isinstance(value, str | None) or not isinstance(limit, int | float) or not limit:
        return math.inf if not _exceeds(finding) else -float(finding.value or 0)
    if operator is Operator.AT_LEAST:
        return (value - limit) / abs(limit)
    return (limit - value) / abs(limit) if operator is Operator.AT_MOST else math.inf


def _exceeds(finding: Finding) -> bool:
    """Whether a count stands over a limit of nought."""
    return isinstance(finding.value, int | float) and finding.gate.operator is Operator.AT_MOST and finding.value > 0
