"""certify: judge all evidence of a node, take its identity afresh, issue a signed certificate for those that passed.

Facts are read again here, so that what is judged is what stands there now; burn-in's evidence is the last burn-in's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from threading import Lock

from toolkit import __version__
from toolkit.certificate.fingerprint import NodeFacts
from toolkit.certificate.keyholder import signing_key
from toolkit.certificate.sign import sign
from toolkit.certificate.statement import Grounds, issue
from toolkit.certificate.timestamp import stamped
from toolkit.certificate.unverified import NotVerified, Unverified, of_kind
from toolkit.durable import write_whole
from toolkit.errors import RackproofError
from toolkit.facts.probe import PROBES
from toolkit.judge.part import blames_hardware, first_cause
from toolkit.judge.verdict import Answer, Finding, Verdict, merge
from toolkit.ledger import EventKind, NewEvent, Run
from toolkit.pool.policy import PoolKind
from toolkit.rack.gate import WIDE, Gate
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.model import Suite, Unit
from toolkit.report.certificate_record import check_clock, last_issued
from toolkit.report.standing import standings
from toolkit.stages import fabric, fabric_look
from toolkit.stages.burnin_collectives import judge_burnin
from toolkit.stages.burnin_records import last_burnin, seats_on_record
from toolkit.stages.context import Context, Result, Work, error, passed
from toolkit.stages.identity import identity_of
from toolkit.stages.level_records import not_asked, of_levels, unproven
from toolkit.stages.measured_levels import measured_levels, unmeasured_levels
from toolkit.stages.peer_records import comparisons
from toolkit.stages.readback import Reading, failed, gpu_seats, judge_node, record, take, undecided
from toolkit.stages.same_parts import OTHER_PARTS, changed_since, unmeasured

FACT_STAGES = tuple(s for s in Stage if s is not Stage.BURNIN)


@dataclass(frozen=True, slots=True)
class _Proven:
    """What a node's certificate rests on. `idle` names compute units that nothing ran on."""

    facts: NodeFacts
    findings: tuple[Finding, ...]
    idle: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Judged:
    reading: Reading
    verdict: Verdict
    idle: frozenset[str]


def run(context: Context, work: Work) -> None:
    """Every node gets its verdict; those that pass share one certificate, with those certified before them."""
    proven: dict[str, _Proven] = {}
    lock = Lock()
    cables = fabric.evidence(context, work.runs, fabric_look.earlier(context.ledger, context.rack))

    def one(node: Unit) -> Result | None:
        judged = _judge(context, work.runs[node.name], node, cables)
        verdict = judged.verdict
        record(context, node, verdict)
        if verdict.answer is not Answer.PASS:
            ended = _failed if verdict.answer is Answer.FAIL else _undecided
            result = ended(context, node, judged, _of_cables(context, node, verdict, cables))
            # What was ours to configure is measured again once it is mended.
            return result if result.outcome is Outcome.FAILED else replace(result, move=Move.RETEST)
        facts = identity_of(context, node, judged.reading)
        if foreign := unmeasured(context, node, facts):
            # Measured again, in the place where it is now.
            told = error(OTHER_PARTS, f"{node.name}: {foreign}", f"rackproof bringup {context.rack.name}")
            return replace(told, move=Move.RETEST)
        with lock:
            proven[node.name] = _Proven(facts, verdict.findings, judged.idle)
        return None

    work.each(work.nodes, one)
    if proven:
        digest = _issue(context, proven | _still_proven(context, work.runs).proven, cables)
        for node in proven:
            work.finish(node, passed(f"certificate {digest[:12]}"))


def again(context: Context) -> None:
    """Judges the rack's certified nodes anew and issues one certificate for those that pass, under the key of today.

    Facts are read now; burn-in's evidence is that on record, as old as gates let it be. A node that does not pass
    moves nowhere, and its run says why: the certificate that it had stays what it is.
    """
    still = _still_proven(context, {})
    if still.proven:
        _issue(context, still.proven, still.cables)


def _judge(context: Context, run: Run, node: Unit, cables: fabric.Evidence) -> _Judged:
    """The verdict of all gates: facts as they are now, burn-in as it was last measured."""
    reading = take(context, run, node, PROBES)
    now = (*reading.measurements, *cables.measured.get(node.name, ()))
    asked = [s for s in FACT_STAGES if s is not Stage.KUBERNETES or not _has_no_kubelet(context)]
    of_facts = judge_node(context, node, asked, now, cables.silent)
    burnin = last_burnin(context, node)
    measured = context.ledger.measurements(context.rack.name, node.name, burnin.id) if burnin else ()
    compared = comparisons(context, node, burnin) if burnin else ()
    of_burnin = judge_burnin(context, node, measured, compared=compared)
    together = of_levels(context, node, burnin)
    idle = frozenset(str(m.value) for m in measured if m.metric == "gemm_units_not_exercised") - {"none"}
    # The run's own findings first: what it left behind (a reset that is asked for) is read once more among the facts.
    return _Judged(reading, merge(of_burnin, *([together] if together else []), of_facts), idle)


def _has_no_kubelet(context: Context) -> bool:
    """In Slurm nodes are kept from jobs by its drain, and there is no kubelet to ask for its taint."""
    return context.hands.policy.kind is PoolKind.SLURM


def _of_kubelets(context: Context) -> tuple[Gate, ...]:
    """The required gates that nobody was asked for want of a kubelet."""
    if not _has_no_kubelet(context):
        return ()
    return tuple(g for g in context.rack.profile.gates if g.stage == Stage.KUBERNETES and g.required)


def _of_cables(context: Context, node: Unit, verdict: Verdict, cables: fabric.Evidence) -> Result | None:
    """What the fabric has against the node, where the verdict is not content with its cables: both ends, and a setting
    before any cable. The gate alone knows neither.
    """
    if cables.report is None or all(f.answer is Answer.PASS for f in verdict.findings if _is_cable(f)):
        return None
    return fabric.result_of(context, cables.report, node)


def _is_cable(finding: Finding) -> bool:
    return finding.gate.metric == fabric.METRIC


def _failed(context: Context, node: Unit, judged: _Judged, cables: Result | None) -> Result:
    """`cables` stand for their own findings. Where they are an ERROR, no part is blamed by those findings."""
    verdict, findings = judged.verdict, judged.verdict.of(Answer.FAIL)
    seats = seats_on_record(context, node) | {g: s for g, s in gpu_seats(judged.reading).items() if s.serial}
    others = tuple(f for f in findings if not _is_cable(f))
    if cables is None or len(others) == len(findings):
        return failed(context, node, verdict, seats)
    setting = cables.outcome is Outcome.ERROR
    if setting and any(blames_hardware(f) for f in others):
        return failed(context, node, replace(verdict, findings=others), seats)
    if not setting and not _is_cable(first_cause(findings)):
        return failed(context, node, verdict, seats)
    more = f"; also {', '.join(sorted({f.code for f in others}))}" if others else ""
    return replace(cables, message=cables.message + more)


def _undecided(context: Context, node: Unit, judged: _Judged, cables: Result | None) -> Result:
    """An ERROR, whatever `cables` are: where no gate failed, nothing is blamed."""
    verdict, doubts = judged.verdict, judged.verdict.of(Answer.INCONCLUSIVE)
    others = tuple(f for f in doubts if not _is_cable(f))
    if cables is not None and not others and not verdict.unplanned:
        return error(cables.code, cables.message, cables.next)
    words = undecided(verdict)
    if cables is not None and len(others) < len(doubts):
        words = "; ".join((cables.message, *([undecided(replace(verdict, findings=others))] if others else ())))
    return error("EVIDENCE_INCONCLUSIVE", words, f"rackproof bringup {context.rack.name}")


@dataclass(frozen=True, slots=True)
class _Still:
    """Nodes certified before that pass again today, and the cables they were judged by."""

    proven: dict[str, _Proven]
    cables: fabric.Evidence


def _still_proven(context: Context, runs: Mapping[str, Run]) -> _Still:
    """Nodes certified before: named again if they pass again today, else their own certificate stays theirs."""
    states = context.ledger.node_states(context.rack.name)
    found: dict[str, _Proven] = {}
    certified = {name for name, row in states.items() if row.state in (NodeState.CERTIFIED, NodeState.ADMITTED)}
    nodes = [n for n in context.rack.nodes if n.name in certified - runs.keys()]
    started = {n.name: context.ledger.start_run(context.rack.name, n.name, Stage.CERTIFY) for n in nodes}
    cables = fabric.evidence(context, started, fabric_look.earlier(context.ledger, context.rack))
    for node in nodes:
        begun = started[node.name]
        try:
            judged = _judge(context, begun, node, cables)
            verdict = judged.verdict
            if verdict.answer is Answer.PASS:
                facts = identity_of(context, node, judged.reading)
                doubt = unmeasured(context, node, facts) or changed_since(context, node, facts)
            else:
                doubt = _doubt(verdict, _of_cables(context, node, verdict, cables))
        except RackproofError as failure:
            doubt = failure.message
        if doubt:
            look = f"look at {node.name}; to take it out of the pool: rackproof quarantine {node.name} --reason ..."
            context.ledger.finish_run(begun, Outcome.ERROR, code="EVIDENCE_INCONCLUSIVE", message=doubt, next=look)
        else:
            found[node.name] = _Proven(facts, verdict.findings, judged.idle)
            context.ledger.finish_run(begun, Outcome.PASSED)
    return _Still(found, cables)


def _doubt(verdict: Verdict, cables: Result | None) -> str:
    bad = verdict.of(Answer.FAIL)
    if cables is not None and (not bad or _is_cable(bad[0])):
        return f"{cables.code}: {cables.message}"
    return f"{bad[0].code} on {bad[0].subject}: {bad[0].detail}" if bad else undecided(verdict)


def _issue(context: Context, proven: dict[str, _Proven], cables: fabric.Evidence) -> str:
    """Signs, keeps and records the certificate; answers its sha256. UndecidedError where the clock went backwards."""
    rack, ledger = context.rack, context.ledger
    left_out = tuple(
        (s.node, f"{s.state}: {s.code} {s.part}".strip(" :")) for s in standings(ledger, rack) if s.node not in proven
    )
    now, before = context.clock(), last_issued(ledger, rack.name)
    check_clock(ledger, rack.name, now)
    plans = ledger.events(rack.name, kind=EventKind.PLAN_STORED, limit=100_000)
    findings = tuple(f for p in proven.values() for f in p.findings)
    silent, kubelets = not_asked(rack.profile, (f.gate for f in findings)), _of_kubelets(context)
    grounds = Grounds(
        rack=rack,
        nodes=tuple(p.facts for p in proven.values()),
        findings=findings,
        left_out=left_out,
        plan_digest=str(plans[-1].body["digest"]),
        not_verified=(
            *of_kind(Unverified.LEVELS, unmeasured_levels(rack.profile, measured_levels(findings))),
            *of_kind(Unverified.LEVELS, unproven(silent) if any(f.subject.scope in WIDE for f in findings) else ()),
            *of_kind(Unverified.CABLES, fabric.unproven(cables.report, tuple(proven))),
            *of_kind(Unverified.LEFT_OUT, (f"{g.code}: the pool is Slurm, no kubelet is there" for g in kubelets)),
            *_unproven(context, proven.values()),
            *_rented(context, proven),
        ),
        not_asked=(*silent, *kubelets),
        supersedes=before.what if before else "",
    )
    statement = issue(grounds, now, rack.profile.certificate_lifetime, __version__)
    envelope = sign(statement, signing_key(context.settings.keys, os.environ))
    stamp = stamped(envelope, os.environ)
    digest = ledger.artifacts.put(envelope)
    file = context.settings.certificate(rack.name)
    beside = file.with_name(f"{file.name}.tsr")
    beside.unlink(missing_ok=True)  # of the certificate before
    write_whole(file, envelope)
    if stamp is not None:
        write_whole(beside, stamp)
    expires = (now + rack.profile.certificate_lifetime).isoformat()
    body = {
        "artifact": digest, "nodes": sorted(proven), "left_out": [node for node, _ in left_out], "expires": expires,
        "supersedes": grounds.supersedes, **({"timestamp": ledger.artifacts.put(stamp)} if stamp else {}),
    }  # fmt: skip
    ledger.append(NewEvent(EventKind.CERTIFICATE_ISSUED, rack.name, body=body, what=digest))
    return digest


def _unproven(context: Context, proven: Iterable[_Proven]) -> list[NotVerified]:
    """What this profile's burn-in leaves out, and what it could not reach."""
    profile = context.rack.profile
    rehearsal = ["the burn-in was a rehearsal: every workload once, on a virtual rack"]
    idle = sorted({words for p in proven for words in p.idle})
    left_out = [f"{code} was not asked: {why}" for code, why in profile.left_out]
    return [
        *of_kind(Unverified.REHEARSAL, rehearsal if profile.suite is Suite.REHEARSAL else []),
        *of_kind(Unverified.IDLE_UNITS, [f"compute units not exercised: {words}" for words in idle]),
        *of_kind(Unverified.LEFT_OUT, left_out),
    ]


def _rented(context: Context, proven: Iterable[str]) -> list[NotVerified]:
    bare = sorted(name for name in proven if context.rack.unit(name).bmc is None)
    words = "is rented: its image, BIOS, BMC and slot are its owner's word"
    return [NotVerified(Unverified.RENTED, f"{name} {words}", (name,)) for name in bare]
