"""Run a playbook, read back what it claims to have done, judge what was read. Shared by the configuring stages."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from toolkit.facts.measure import measurements_of
from toolkit.facts.probe import Fact, Probe, read
from toolkit.judge.compared import Compared
from toolkit.judge.evidence import Measurement
from toolkit.judge.part import GpuSeat, blames_hardware, first_cause, part
from toolkit.judge.subjects import planned_subjects
from toolkit.judge.verdict import Answer, Finding, Verdict, judge
from toolkit.ledger import EventKind, NewEvent, Run
from toolkit.rack.gate import WIDE, Operator
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.model import Unit
from toolkit.runners.play import HostOutcome, HostResult, PlayRequest
from toolkit.stages.context import Context, Progress, Result, Work, error, passed

PLAY_SECONDS = 1800.0
SHOWN_FINDINGS = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a node: its facts and what they measure."""

    facts: tuple[Fact, ...]
    measurements: tuple[Measurement, ...]

    def fact(self, name: str) -> Fact:
        """The fact of that name; KeyError if it was not asked for."""
        return next(f for f in self.facts if f.name == name)


@dataclass(frozen=True, slots=True)
class Configuration:
    """A stage that configures: its playbook, and what is read back afterwards.

    later   metrics that the stage itself measures and judges after that
    """

    stage: Stage
    playbook: str
    probes: tuple[Probe, ...]
    later: frozenset[str] = frozenset()


def play_and_judge(
    context: Context,
    work: Work,
    what: Configuration,
    finish: Callable[[str, Result], None] | None = None,
    variables: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Plays the playbook on all nodes at once, then reads and judges each. A node's failure is its own.

    `finish` stands in for `work.finish` where a stage has more to do with a result; `variables` are the play's own.
    """
    end = finish or work.finish
    played = play(context, work, what, end, variables)

    def look(node: Unit) -> Result | None:
        context.progress(Progress(node.name, what.stage, "reading back"))
        reading = take(context, work.runs[node.name], node, what.probes)
        verdict = judge_node(context, node, (what.stage,), reading.measurements, what.later)
        end(node.name, result_of(context, what.stage, node, verdict, reading))
        return None

    work.each(played, look)


def play(
    context: Context,
    work: Work,
    what: Configuration,
    end: Callable[[str, Result], None],
    variables: Mapping[str, object] = MappingProxyType({}),
) -> tuple[Unit, ...]:
    """Plays the playbook on all nodes at once; returns those that took it. `end` gets the result of the others."""
    by_name = {n.name: n for n in work.nodes}
    result = context.hands.playbooks.play(
        PlayRequest(
            rack=context.rack,
            playbook=what.playbook,
            nodes=tuple(by_name),
            ident=f"{what.stage}-{context.clock():%Y%m%dT%H%M%S%f}",
            timeout_s=PLAY_SECONDS,
            variables={"rackproof_versions": dict(context.rack.profile.versions), **variables},
        ),
        lambda event: context.progress(Progress(event.host, what.stage, event.task)),
    )
    for name, host in result.hosts.items():
        if host.outcome is not HostOutcome.OK:
            end(name, _not_played(context, what.playbook, name, host))
    return tuple(by_name[name] for name, host in result.hosts.items() if host.outcome is HostOutcome.OK)


def _not_played(context: Context, playbook: str, node: str, host: HostResult) -> Result:
    codes = {HostOutcome.FAILED: "PLAYBOOK_FAILED", HostOutcome.UNREACHABLE: "NODE_UNREACHABLE"}
    where = f" at '{host.task}'" if host.task else ""
    return error(
        codes.get(host.outcome, "PLAYBOOK_UNPROVEN"),
        f"{playbook} on {node}: {host.outcome}{where}: {host.message}"[:500],
        f"rackproof bringup {context.rack.name}",
    )


def take(context: Context, run: Run, node: Unit, probes: Iterable[Probe]) -> Reading:
    """Reads the probes and puts facts, raw bytes and measurements on record."""
    facts = tuple(read(context.hands.shell, node, probe, context.clock) for probe in probes)
    events: list[NewEvent] = []
    measured: list[Measurement] = []
    for fact in facts:
        origin = context.ledger.artifacts.put(fact.raw)
        body = {
            "at": fact.at.isoformat(),
            "artifact": origin,
            "problem": fact.problem,
            "run": run.id,
        }
        events.append(NewEvent(EventKind.OBSERVED, context.rack.name, node.name, body, f"fact {fact.name}"))
        if fact.problem is None:
            measured += measurements_of(fact, node, run.id, origin)
    context.ledger.append_all(events)
    context.ledger.record_measurements(run, measured)
    return Reading(facts, tuple(measured))


def judge_node(
    context: Context,
    node: Unit,
    stages: Iterable[Stage],
    measurements: Iterable[Measurement],
    silent: Container[str] = (),
    compared: Iterable[Compared] | None = None,
) -> Verdict:
    """The verdict of the stages' gates on one node, but for the gates of the metrics in `silent` and those that are
    asked of many nodes together.

    `compared` None: nothing was compared with siblings yet, and gates relative to them are not asked.
    """
    asked = set(stages)
    gates = [g for g in context.rack.profile.gates if g.stage in asked and g.metric not in silent]
    gates = [g for g in gates if g.scope not in WIDE]
    if compared is None:
        gates = [g for g in gates if g.operator is not Operator.PEERS]
    metrics = {g.metric for g in gates}
    return judge(
        gates,
        planned_subjects(node, context.rack.profile),
        [m for m in measurements if m.metric in metrics],
        context.clock(),
        context.rack.profile.evidence_max_age,
        compared or (),
    )


def result_of(context: Context, stage: Stage, node: Unit, verdict: Verdict, reading: Reading) -> Result:
    """The verdict as the stage's result; the findings go on record."""
    record(context, node, verdict)
    if verdict.answer is Answer.PASS:
        return passed(f"{len(verdict.findings)} findings, all as planned")
    if verdict.answer is Answer.FAIL:
        return failed(context, node, verdict, gpu_seats(reading))
    problems = [f"{f.name}: {f.problem}" for f in reading.facts if f.problem]
    return error(
        "EVIDENCE_MISSING",
        f"{stage} could not be judged: {undecided(verdict)}" + ("; " + "; ".join(problems) if problems else ""),
        f"rackproof bringup {context.rack.name}",
    )


def record(context: Context, node: Unit, verdict: Verdict) -> None:
    """Every finding that is not a pass, by name; passes as a count."""
    noted = [f for f in verdict.findings if f.answer is not Answer.PASS]
    body = {
        "answer": verdict.answer,
        "passed": len(verdict.findings) - len(noted),
        "findings": [_finding(f) for f in noted[:200]],
        "unplanned": [str(s) for s in verdict.unplanned[:50]],
    }
    context.ledger.append(NewEvent(EventKind.JUDGED, context.rack.name, node.name, body, verdict.answer))


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.code,
        "answer": finding.answer,
        "subject": str(finding.subject),
        "value": finding.value,
        "detail": finding.detail,
        "required": finding.gate.required,
        "artifact": finding.origin,
    }


def failed(context: Context, node: Unit, verdict: Verdict, seats: Mapping[int, GpuSeat]) -> Result:
    """FAILED with the code, the part to pull and the way back; ERROR where configuration or thin evidence failed."""
    findings = verdict.of(Answer.FAIL)
    first = first_cause(findings)
    others = sorted({f.code for f in findings} - {first.code})
    more = f"; also {', '.join(others)}" if others else ""
    message = f"{first.subject}: {first.detail}{more}. {first.gate.why}"
    if not blames_hardware(first):
        return error(
            first.code, message, f"rackproof explain {first.code}, then: rackproof bringup {context.rack.name}"
        )
    suspect = part(first, node, seats, findings, context.rack.links)
    return Result(
        Outcome.FAILED, first.code, message, suspect, f"service {suspect}, then: rackproof release {node.name}"
    )


def undecided(verdict: Verdict) -> str:
    """The first doubts of a verdict in words."""
    doubts = verdict.of(Answer.INCONCLUSIVE)
    words = [f"{f.code} on {f.subject}: {f.detail}" for f in doubts[:SHOWN_FINDINGS]]
    if len(doubts) > SHOWN_FINDINGS:
        words.append(f"and {len(doubts) - SHOWN_FINDINGS} more")
    if verdict.unplanned:
        words.append("evidence about parts not in the plan: " + ", ".join(map(str, verdict.unplanned[:SHOWN_FINDINGS])))
    return "; ".join(words) or "no required gate"


def gpu_seats(reading: Reading) -> dict[int, GpuSeat]:
    """Serials and places by GPU index as the node reported them; empty where it did not."""
    for fact in reading.facts:
        if fact.name == "gpus" and isinstance(fact.value, dict):
            return {int(g["index"]): GpuSeat(g["serial"] or "", g["id"] or "") for g in fact.value.get("gpus", ())}
    return {}
