"""certify: judge all evidence of a node, take its identity afresh, issue a signed certificate for those that passed.

Facts are read again here, so that what is judged is what stands there now; burn-in's evidence is the last burn-in's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
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
from toolkit.rack.model import Unit
from toolkit.report.standing import standings
from toolkit.stages.context import Context, Result, Work, passed
from toolkit.stages.identity import identity_of
from toolkit.stages.readback import Reading, failed, gpu_serials, judge_node, record, take, undecided

FACT_STAGES = tuple(s for s in Stage if s is not Stage.BURNIN)


@dataclass(frozen=True, slots=True)
class _Proven:
    facts: NodeFacts
    findings: tuple[Finding, ...]


def run(context: Context, work: Work) -> None:
    """Every node gets its verdict; those that pass share one certificate, with those certified before them."""
    proven: dict[str, _Proven] = {}
    lock = Lock()

    def one(node: Unit) -> Result | None:
        reading, verdict = _judge(context, work.runs[node.name], node)
        record(context, node, verdict)
        if verdict.answer is Answer.FAIL:
            result = failed(context, node, verdict, gpu_serials(reading))
            # What was ours to configure is measured again once it is mended.
            return result if result.outcome is Outcome.FAILED else replace(result, move=Move.RETEST)
        if verdict.answer is Answer.INCONCLUSIVE:
            return _undecided(context, verdict)
        facts = identity_of(context, node, reading)
        with lock:
            proven[node.name] = _Proven(facts, verdict.findings)
        return None

    work.each(work.nodes, one)
    if proven:
        digest = _issue(context, proven | _still_proven(context, work.runs))
        for node in proven:
            work.finish(node, passed(f"certificate {digest[:12]}"))


def _judge(context: Context, run: Run, node: Unit) -> tuple[Reading, Verdict]:
    """The verdict of all gates: facts as they are now, burn-in as it was last measured."""
    reading = take(context, run, node, PROBES)
    of_facts = judge_node(context, node, FACT_STAGES, reading.measurements)
    burnin = _last_burnin(context, node)
    measured = context.ledger.measurements(context.rack.name, node.name, burnin.id) if burnin else ()
    of_burnin = judge_node(context, node, (Stage.BURNIN,), measured)
    return reading, merge(of_facts, of_burnin)


def _last_burnin(context: Context, node: Unit) -> Run | None:
    """The burn-in that ended last; one from before a repair proves nothing."""
    rack = context.rack.name
    repaired = [m.at for m in context.ledger.history(rack, node.name) if m.move is Move.REPAIR]
    runs = [r for r in context.ledger.runs(rack, node.name, Stage.BURNIN) if r.outcome is Outcome.PASSED]
    if not runs or (repaired and runs[-1].started < datetime.fromisoformat(repaired[-1])):
        return None
    return runs[-1]


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
            reading, verdict = _judge(context, again, node)
            if verdict.answer is Answer.PASS:
                found[node.name] = _Proven(identity_of(context, node, reading), verdict.findings)
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
        not_verified=(*NOT_VERIFIED, *_rented(context, proven)),
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


def _rented(context: Context, proven: Iterable[str]) -> list[str]:
    bare = sorted(name for name in proven if context.rack.unit(name).bmc is None)
    return [f"{name} is rented: its image, BIOS, BMC and slot are its owner's word" for name in bare]


NOT_VERIFIED = (
    "no collective over more than one node was measured",
    "cabling was not compared with the design",
    "HBM was filled and read back over PCIe; no kernel swept it at full bandwidth",
    "no compute unit was checked for silent data corruption",
)
