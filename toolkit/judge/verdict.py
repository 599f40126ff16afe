"""Evidence in, verdict out. Missing, stale, ambiguous or ill-typed evidence is INCONCLUSIVE, never a pass."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from toolkit.judge.compared import Compared, Standing
from toolkit.judge.evidence import Measurement, Subject, Value
from toolkit.rack.gate import Gate, Limit, Operator, WithoutPeers

CLOCK_SKEW = timedelta(minutes=5)
DRIFTS = "DRIFTS_FROM_PEERS"  # a warning: it fails nobody
FEWEST_VOICES = 3  # of two that differ either may be the wrong one


class Answer(StrEnum):
    """A gate's answer, and a verdict."""

    PASS = "PASS"  # noqa: S105 - a word, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class Finding:
    """A gate's answer on one subject. `value` is None where there was nothing to judge.

    excused  the gate is required and could not be asked for want of peers, and its profile lets that pass: a
             certificate names it among what is not verified
    """

    gate: Gate
    subject: Subject
    answer: Answer
    value: Value | None
    detail: str
    origin: str = ""
    excused: bool = False

    @property
    def counts(self) -> bool:
        """Whether the verdict rests on it."""
        return self.gate.required and not self.excused

    @property
    def code(self) -> str:
        """Stable name of the finding."""
        return self.gate.code


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer and everything it rests on. `unplanned` is evidence about subjects that the plan does not have."""

    answer: Answer
    findings: tuple[Finding, ...]
    unplanned: tuple[Subject, ...] = ()

    def of(self, answer: Answer) -> tuple[Finding, ...]:
        """Findings of required gates with this answer, worst-known first in gate order."""
        return tuple(f for f in self.findings if f.answer is answer and f.counts)


def judge(
    gates: Sequence[Gate],
    planned: Iterable[Subject],
    measurements: Iterable[Measurement],
    now: datetime,
    max_age: timedelta,
    compared: Iterable[Compared] = (),
) -> Verdict:
    """Asks every gate of every planned subject of its scope.

    PASS needs at least one required gate, and of every required gate a pass on every planned subject.
    Exactly one fresh measurement in the gate's unit must stand for each; two are ambiguous.
    Gates relative to peers are answered by `compared`, which speaks of that very measurement.
    """
    subjects = tuple(dict.fromkeys(planned))
    by_key: Mapping[tuple[str, Subject], list[Measurement]] = _index(measurements)
    stood = {(c.metric, c.limit, c.subject): c for c in compared}
    findings = tuple(f for gate in gates for f in _ask(gate, subjects, by_key, now, max_age, stood))
    unplanned = _unplanned(gates, subjects, by_key)
    return Verdict(_combine(findings, unplanned), findings, unplanned)


def merge(*verdicts: Verdict) -> Verdict:
    """One verdict of several: as good as the worst of them. None at all have proven nothing."""
    answers = [v.answer for v in verdicts]
    answer = Answer.PASS if answers else Answer.INCONCLUSIVE
    for worse in (Answer.INCONCLUSIVE, Answer.FAIL):
        answer = worse if worse in answers else answer
    findings = tuple(f for v in verdicts for f in v.findings)
    return Verdict(answer, findings, tuple(s for v in verdicts for s in v.unplanned))


def _index(measurements: Iterable[Measurement]) -> dict[tuple[str, Subject], list[Measurement]]:
    by_key: dict[tuple[str, Subject], list[Measurement]] = defaultdict(list)
    for measurement in measurements:
        by_key[measurement.metric, measurement.subject].append(measurement)
    return by_key


def _unplanned(
    gates: Sequence[Gate], subjects: tuple[Subject, ...], by_key: Iterable[tuple[str, Subject]]
) -> tuple[Subject, ...]:
    read = {(gate.metric, gate.scope) for gate in gates if gate.required}
    known = set(subjects)
    return tuple(sorted({s for metric, s in by_key if (metric, s.scope) in read and s not in known}))


def _combine(findings: tuple[Finding, ...], unplanned: tuple[Subject, ...]) -> Answer:
    required = [f.answer for f in findings if f.counts]
    if Answer.FAIL in required:
        return Answer.FAIL
    if not required or unplanned or Answer.INCONCLUSIVE in required:
        return Answer.INCONCLUSIVE
    return Answer.PASS


def _ask(
    gate: Gate,
    subjects: tuple[Subject, ...],
    by_key: Mapping[tuple[str, Subject], list[Measurement]],
    now: datetime,
    max_age: timedelta,
    stood: Mapping[tuple[str, float, Subject], Compared],
) -> list[Finding]:
    asked = [s for s in subjects if s.scope is gate.scope]
    if not asked:
        # A gate nobody could be asked about has proven nothing.
        return [Finding(gate, Subject(gate.scope), Answer.INCONCLUSIVE, None, f"no {gate.scope} is planned")]
    usable = {s: _usable(gate, by_key.get((gate.metric, s), []), now, max_age) for s in asked}
    if gate.operator is Operator.SAME_ACROSS:
        return _same_across(gate, usable)
    if gate.operator is Operator.PEERS:
        standing = [_among_peers(gate, s, found, stood) for s, found in usable.items()]
        return standing + [_drifts(f, c) for f in standing if (c := _drifting(gate, f, stood))]
    return [_one(gate, subject, found) for subject, found in usable.items()]


def _usable(gate: Gate, found: list[Measurement], now: datetime, max_age: timedelta) -> Measurement | str:
    """The one measurement that counts, or why there is none."""
    if not found:
        return f"{gate.metric} was not measured"
    if len(found) > 1:
        return f"{gate.metric} has {len(found)} measurements where one is meant"
    (one,) = found
    if one.unit != gate.unit:
        return f"{gate.metric} is in {one.unit}, the gate in {gate.unit}"
    if one.at > now + CLOCK_SKEW:
        return f"{gate.metric} was measured in the future ({one.at.isoformat()}): check the clocks"
    if now - one.at > max_age:
        return f"{gate.metric} is stale: measured {one.at.isoformat()}, valid for {max_age}"
    if isinstance(one.value, float) and not math.isfinite(one.value):
        return f"{gate.metric} is {one.value}"
    return one


def _one(gate: Gate, subject: Subject, found: Measurement | str) -> Finding:
    if isinstance(found, str):
        return Finding(gate, subject, Answer.INCONCLUSIVE, None, found)
    if gate.limit is None:
        detail = f"{gate.code} has no sourced limit"
        return Finding(gate, subject, Answer.INCONCLUSIVE, found.value, detail, found.origin)
    met = _compare(gate.operator, found.value, gate.limit)
    if met is None:
        detail = f"{found.value!r} and limit {gate.limit!r} do not compare by {gate.operator}"
        return Finding(gate, subject, Answer.INCONCLUSIVE, found.value, detail, found.origin)
    detail = f"{gate.metric} {found.value} {gate.unit}, must be {_MUST_BE.get(gate.operator, '')}{_text(gate.limit)}"
    return Finding(gate, subject, Answer.PASS if met else Answer.FAIL, found.value, detail, found.origin)


_OF_STANDING = {
    Standing.ALIKE: Answer.PASS,
    Standing.CLEARED: Answer.PASS,
    Standing.WORSE: Answer.FAIL,
    Standing.UNSETTLED: Answer.INCONCLUSIVE,
    Standing.TOO_FEW: Answer.INCONCLUSIVE,
    Standing.UNDECIDED: Answer.INCONCLUSIVE,
}


def _among_peers(
    gate: Gate, subject: Subject, found: Measurement | str, stood: Mapping[tuple[str, float, Subject], Compared]
) -> Finding:
    """What comparing with siblings came to, if it was this measurement that was compared, by this limit."""
    value = None if isinstance(found, str) else found.value
    origin = "" if isinstance(found, str) else found.origin
    if not isinstance(gate.limit, float):
        return Finding(gate, subject, Answer.INCONCLUSIVE, value, f"{gate.code} has no sourced limit", origin)
    known = stood.get((gate.metric, gate.limit, subject))
    if known is not None and known.standing is Standing.TOO_FEW:
        excused = gate.without_peers is WithoutPeers.NOT_ASKED
        return Finding(gate, subject, Answer.INCONCLUSIVE, value, known.why, origin, excused)
    if isinstance(found, str):
        return Finding(gate, subject, Answer.INCONCLUSIVE, None, found)
    if known is None or known.of != origin:
        detail = f"{gate.metric} was not compared with that of siblings"
        return Finding(gate, subject, Answer.INCONCLUSIVE, value, detail, origin)
    detail = f"{gate.metric}: {known.why}"
    return Finding(gate, subject, _OF_STANDING[known.standing], value, detail, known.origin)


def _drifting(gate: Gate, finding: Finding, stood: Mapping[tuple[str, float, Subject], Compared]) -> Compared | None:
    known = stood.get((gate.metric, gate.limit, finding.subject)) if isinstance(gate.limit, float) else None
    return known if known is not None and known.drift else None


def _drifts(finding: Finding, known: Compared) -> Finding:
    """A warning: the board gets worse, and is not yet as far below its siblings as is worth a part."""
    gate = replace(finding.gate, code=DRIFTS, required=False)
    return Finding(gate, finding.subject, Answer.FAIL, finding.value, f"{known.metric}: {known.drift}", known.origin)


def _same_across(gate: Gate, usable: Mapping[Subject, Measurement | str]) -> list[Finding]:
    """Alike all pass. Where they differ, a majority of three and more names the others; else nobody is blamed."""
    values = Counter(m.value for m in usable.values() if not isinstance(m, str))
    common, votes = max(values.items(), key=lambda item: item[1], default=("", 0))
    settled = len(values) == 1 or (values.total() >= FEWEST_VOICES and 2 * votes > values.total())
    seen = ", ".join(f"{n} x {v}" for v, n in values.most_common(4))
    findings = []
    for subject, found in usable.items():
        if isinstance(found, str):
            findings.append(Finding(gate, subject, Answer.INCONCLUSIVE, None, found))
            continue
        detail = f"{gate.metric} {found.value}; seen: {seen}"
        answer = Answer.PASS if found.value == common else Answer.FAIL
        if not settled:
            answer, detail = (
                Answer.INCONCLUSIVE,
                f"{detail}: no majority of {FEWEST_VOICES} and more says which is right",
            )
        findings.append(Finding(gate, subject, answer, found.value, detail, found.origin))
    return findings


def _compare(operator: Operator, value: Value, limit: Limit) -> bool | None:
    """None where the two do not compare: that is not a fault of the hardware."""
    if operator is Operator.ONE_OF:
        return str(value) in limit if isinstance(limit, tuple) else None
    if isinstance(limit, tuple) or limit is None:
        return None
    if operator is Operator.EQUALS and isinstance(value, str) and isinstance(limit, str):
        return value == limit
    if isinstance(value, str) or isinstance(limit, str):
        return None
    if operator is Operator.EQUALS:
        return value == limit
    if operator is Operator.AT_LEAST:
        return value >= limit
    if operator is Operator.AT_MOST:
        return value <= limit
    return None


_MUST_BE = {Operator.AT_LEAST: "at least ", Operator.AT_MOST: "at most ", Operator.ONE_OF: "one of "}


def _text(limit: Limit) -> str:
    return ", ".join(limit) if isinstance(limit, tuple) else str(limit)
