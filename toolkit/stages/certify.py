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
from toolkit.certificate.sign import load_or_create, passphrase, sign
from toolkit.certificate.statement import Grounds, issue
from toolkit.durable import write_whole
from toolkit.errors import RackproofError
from toolkit.facts.probe import PROBES
from toolkit.judge.verdict import Answer, Finding, Verdict, merge
from toolkit.ledger import EventKind, NewEvent, Run
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.model import Suite, Unit
from toolkit.report.standing import standings
from toolkit.stages.burnin_collectives import judge_burnin
from toolkit.stages.burnin_records import seats_on_record
from toolkit.stages.context import Context, Result, Work, passed
from toolkit.stages.identity import identity_of
from toolkit.stages.readback import Reading, failed, gpu_seats, judge_node, record, take, undecided

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

    def one(node: Unit) -> Result | None:
        judged = _judge(context, work.runs[node.name], node)
        verdict = judged.verdict
        record(context, node, verdict)
        if verdict.answer is Answer.FAIL:
            seats = seats_on_record(context, node) | {g: s for g, s in gpu_seats(judged.reading).items() if s.serial}
            result = failed(context, node, verdict, seats)
            # What was ours to configure is measured again once it is mended.
            return result if result.outcome is Outcome.FAILED else replace(result, move=Move.RETEST)
        if verdict.answer is Answer.INCONCLUSIVE:
            return _undecided(context, verdict)
        facts = identity_of(context, node, judged.reading)
        with lock:
            proven[node.name] = _Proven(facts, verdict.findings, judged.idle)
        return None

    work.each(work.nodes, one)
    if proven:
        digest = _issue(context, proven | _still_proven(context, work.runs))
        for node in proven:
            work.finish(node, passed(f"certificate {digest[:12]}"))


def _judge(context: Context, run: Run, node: Unit) -> _Judged:
    """The verdict of all gates: facts as they are now, burn-in as it was last measured."""
    reading = take(context, run, node, PROBES)
    of_facts = judge_node(context, node, FACT_STAGES, reading.measurements)
    burnin = _last_burnin(context, node)
    measured = context.ledger.measurements(context.rack.name, node.name, burnin.id) if burnin else ()
    of_burnin = judge_burnin(context, node, measured)
    idle = frozenset(str(m.value) for m in measured if m.metric == "gemm_units_not_exercised") - {"none"}
    # The run's own findings first: what it left behind (a reset that is asked for) is read once more among the facts.
    return _Judged(reading, merge(of_burnin, of_facts), idle)


def _last_burnin(context: Context, node: Unit) -> Run | None:
    """The burn-in that made the node TESTED last, in the suite that its profile asks for; an operator's own counts for
    nothing here, and one from before a repair proves nothing.
    """
    rack = context.rack.name
    moves = context.ledger.events(rack, node.name, kind=EventKind.NODE_MOVED, limit=100_000)
    since = [e for e in moves if e.body["move"] in (Move.TEST, Move.REPAIR)]
    if not since or since[-1].body["move"] == Move.REPAIR:
        return None
    return next((r for r in context.ledger.runs(rack, node.name) if r.id == since[-1].body["run"]), None)


def _undecided(context: Context, verdict: Verdict) -> Result:
    again = f"rackproof bringup {context.rack.name}"
    return Result(Outcome.ERROR, "EVIDENCE_INCONCLUSIVE", undecided(verdict), next=again, move=Move.RETEST)


def _still_proven(context: Context, runs: Mapping[str, Run]) -> dict[str, _Proven]:
    """Nodes certified before: named again if they pass again today, else their own certificate stays theirs."""
    states = context.ledger.node_states(context.rack.name)
    found: dict[str, _Proven] = {}
    certified = (NodeState.CERTIFIED, NodeState.ADMITTED)
    for node in context.rack.nodes:
        row = states.get(node.name)
        if node.name in runs or row is None or row.state not in certified:
            continue
        again = context.ledger.start_run(context.rack.name, node.name, Stage.CERTIFY)
        try:
            judged = _judge(context, again, node)
            verdict = judged.verdict
            if verdict.answer is Answer.PASS:
                found[node.name] = _Proven(identity_of(context, node, judged.reading), verdict.findings, judged.idle)
            doubt = "" if verdict.answer is Answer.PASS else _doubt(verdict)
        except RackproofError as failure:
            doubt = failure.message
        if doubt:
            look = f"look at {node.name}; to take it out of the pool: rackproof quarantine {node.name} --reason ..."
            context.ledger.finish_run(again, Outcome.ERROR, code="EVIDENCE_INCONCLUSIVE", message=doubt, next=look)
        else:
            context.ledger.finish_run(again, Outcome.PASSED)
    return found


def _doubt(verdict: Verdict) -> str:
    bad = verdict.of(Answer.FAIL)
    return f"{bad[0].code} on {bad[0].subject}: {bad[0].detail}" if bad else undecided(verdict)


def _issue(context: Context, proven: dict[str, _Proven]) -> str:
    """Signs, keeps and records the certificate; answers its sha256."""
    rack, ledger = context.rack, context.ledger
    left_out = tuple(
        (s.node, f"{s.state}: {s.code} {s.part}".strip(" :")) for s in standings(ledger, rack) if s.node not in proven
    )
    plans = ledger.events(rack.name, kind=EventKind.PLAN_STORED, limit=100_000)
    grounds = Grounds(
        rack=rack,
        nodes=tuple(p.facts for p in proven.values()),
        findings=tuple(f for p in proven.values() for f in p.findings),
        left_out=left_out,
        plan_digest=str(plans[-1].body["digest"]),
        not_verified=(*NOT_VERIFIED, *_unproven(context, proven.values()), *_rented(context, proven)),
    )
    now = context.clock()
    statement = issue(grounds, now, rack.profile.certificate_lifetime, __version__)
    envelope = sign(statement, load_or_create(context.settings.keys, passphrase(os.environ)))
    digest = ledger.artifacts.put(envelope)
    write_whole(context.settings.certificate(rack.name), envelope)
    expires = (now + rack.profile.certificate_lifetime).isoformat()
    body = {
        "artifact": digest, "nodes": sorted(proven), "left_out": [node for node, _ in left_out], "expires": expires,
    }  # fmt: skip
    ledger.append(NewEvent(EventKind.CERTIFICATE_ISSUED, rack.name, body=body, what=digest))
    return digest


def _unproven(context: Context, proven: Iterable[_Proven]) -> list[str]:
    """What this profile's burn-in leaves out, and what it could not reach."""
    profile = context.rack.profile
    rehearsal = ["the burn-in was a rehearsal: every workload once, on a virtual rack"]
    idle = sorted({words for p in proven for words in p.idle})
    return [
        *(rehearsal if profile.suite is Suite.REHEARSAL else []),
        *(f"compute units not exercised: {words}" for words in idle),
        *(f"{code} was not asked: {why}" for code, why in profile.left_out),
    ]


def _rented(context: Context, proven: Iterable[str]) -> list[str]:
    bare = sorted(name for name in proven if context.rack.unit(name).bmc is None)
    return [f"{name} is rented: its image, BIOS, BMC and slot are its owner's word" for name in bare]


NOT_VERIFIED = (
    "no collective over more than one node was measured",
    "cabling was not compared with the design",
)
