"""What is on record of the levels of a node's burn-in, for its certificate: their gates, and what was left out.

A level that the nodes at hand could not have is no evidence and keeps nobody back: the certificate says so in words. A
level of which nothing at all is on record was not measured, and that is no pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.verdict import Answer, Finding, Verdict, judge, merge
from toolkit.ledger import Run
from toolkit.rack.gate import WIDE, Gate, Operator, Scope
from toolkit.rack.lifecycle import Stage
from toolkit.rack.metric import COLLECTIVES, METRICS, wide_metric
from toolkit.rack.model import Profile, Unit
from toolkit.stages.context import Context

LEFT_OUT = "levels_left_out"
NONE = "none"
# No gate of a profile: what every profile that names levels asks.
_UNMEASURED = Gate(
    "LEVELS_UNMEASURED", LEFT_OUT, "word", Scope.NODE, Operator.EQUALS, None, Stage.BURNIN, True, "evidence",
    "The profile asks for tests among many nodes, and this burn-in has none on record.",
    "policy of this project: missing evidence is no pass", "2026-11-23",
)  # fmt: skip
_AMONG = {
    Scope.LEAF: "nodes of a leaf",
    Scope.DOMAIN: "all GPUs of the NVLink domain",
    Scope.RACK: "all GPUs of the unit",
}


def left_out(node: str, absent: Iterable[tuple[str, str]], run: str, at: datetime, origin: str) -> Measurement:
    """The levels that this node's burn-in left out, with why."""
    words = "; ".join(f"{level}: {why}" for level, why in absent) or NONE
    return Measurement(LEFT_OUT, METRICS[LEFT_OUT].unit, words[:400], Subject(Scope.NODE, node), at, run, origin)


def of_levels(context: Context, node: Unit, burnin: Run | None) -> Verdict | None:
    """The verdict of the levels' gates on what this burn-in measured; None where the profile names no level."""
    profile = context.rack.profile
    if not profile.levels:
        return None
    told = context.ledger.measurements(context.rack.name, None, burnin.id) if burnin else ()
    said = [m for m in told if m.metric == LEFT_OUT]
    if not said:
        nothing = f"{node.name}: nothing among many nodes is on record of its burn-in"
        finding = Finding(_UNMEASURED, Subject(Scope.NODE, node.name), Answer.INCONCLUSIVE, None, nothing)
        return Verdict(Answer.INCONCLUSIVE, (finding,))
    return wide_verdict(profile, tuple(m for m in told if m.subject.scope in WIDE), context.clock())


def wide_verdict(profile: Profile, told: tuple[Measurement, ...], now: datetime) -> Verdict | None:
    """The gates of the collectives that were run, subject by subject; None where no required one is asked."""
    verdicts = []
    for subject in dict.fromkeys(m.subject for m in told):
        mine = [m for m in told if m.subject == subject]
        prefixes = [wide_metric(subject.scope, kind, "") for kind in COLLECTIVES]
        ran = tuple(p for p in prefixes if any(m.metric.startswith(p) for m in mine))
        gates = [g for g in profile.gates if g.scope is subject.scope and g.metric.startswith(ran)]
        if any(g.required for g in gates):
            verdicts.append(judge(gates, [subject], mine, now, profile.evidence_max_age))
    return merge(*verdicts) if verdicts else None


def not_asked(profile: Profile, asked: Iterable[Gate]) -> tuple[Gate, ...]:
    """The required gates of levels that no node's burn-in was asked: it did not run their collective."""
    known = set(asked)
    return tuple(g for g in profile.gates if g.scope in WIDE and g.required and g not in known)


def unproven(gates: Iterable[Gate]) -> list[str]:
    """What the certificate says of gates that were not asked: a line for each collective."""
    lines: dict[str, list[str]] = {}
    for gate in gates:
        kind = next((c for c in COLLECTIVES if gate.metric.startswith(wide_metric(gate.scope, c, ""))), "collective")
        lines.setdefault(f"no {kind} among {_AMONG[gate.scope]} was measured", []).append(gate.code)
    return [f"{words}: {', '.join(dict.fromkeys(codes))} not asked" for words, codes in lines.items()]
