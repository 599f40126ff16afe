"""The certificate's text: an in-toto Statement v1 with the test-result predicate. Pure.

https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md (read 2026-11). Our own fields
stand under one extension key; readers of the plain predicate ignore it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from toolkit.certificate.canonical import digest
from toolkit.certificate.fingerprint import Fingerprint, NodeFacts, fingerprint_of
from toolkit.certificate.unverified import NotVerified, Unverified, of_kind
from toolkit.errors import EvidenceError, RackproofError
from toolkit.judge.evidence import Value
from toolkit.judge.subjects import planned_subjects
from toolkit.judge.verdict import Answer, Finding
from toolkit.rack.gate import WIDE, Gate, WithoutPeers
from toolkit.rack.metric import RAIL_METRIC
from toolkit.rack.model import Profile, Rack

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
EXTENSION = "rackproof.dev/certificate"
VERSION = 3
# What a reader accepts. Version 2 says neither what it supersedes nor where its lifetime comes from, and is otherwise
# the same: certificates that were in force when version 3 came stay in force until they expire. Version 1 did not say
# what was not verified in kinds that a pool's policy can name.
READABLE = (2, VERSION)
PASSED, WARNED = "PASSED", "WARNED"
AS_DESIGNED = "serials of switches and parts of cables are the rack file's; they were not read back"
SHOWN = 8
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a certificate rests on.

    nodes         facts of the nodes to be certified
    findings      every finding on them, of every stage's gates, and the rack's own; none on other nodes
    left_out      (node, reason) of each other node of the rack: a certificate of some is a named partial
    plan_digest   sha256 of the plan that was carried out
    not_verified  what a reader might take for proven and is not
    not_asked     gates of tests among many nodes that these nodes had none of, and of a kubelet where none is;
                  `not_verified` says so
    supersedes    sha256 of the certificate issued before this one for the rack; empty: it is the first on record.
                  For the nodes that both name this one holds; for others that one goes on
    """

    rack: Rack
    nodes: tuple[NodeFacts, ...]
    findings: tuple[Finding, ...]
    left_out: tuple[tuple[str, str], ...]
    plan_digest: str
    not_verified: tuple[NotVerified, ...] = ()
    not_asked: tuple[Gate, ...] = ()
    supersedes: str = ""


def issue(grounds: Grounds, now: datetime, lifetime: timedelta, tool_version: str) -> dict[str, object]:
    """The statement.

    Raises EvidenceError unless every required gate has a pass with evidence on every planned part of every
    node named, and UndecidedError where a node's facts do not make a fingerprint.
    """
    if now.tzinfo is None or lifetime <= timedelta():
        raise RackproofError("a certificate needs a time with a zone and a lifetime")
    _check_nodes(grounds)
    _check_evidence(grounds)
    fingerprint = fingerprint_of(grounds.rack, grounds.nodes)
    warned = tuple(f for f in grounds.findings if f.answer is Answer.FAIL)
    unsure = tuple(f for f in grounds.findings if f.answer is Answer.INCONCLUSIVE)
    unclean = {f.code for f in (*warned, *unsure)}
    extension: dict[str, object] = {
        **_header(grounds, now, lifetime, tool_version),
        "notVerified": [line.document() for line in _not_verified(grounds, unsure)],
        "fingerprint": fingerprint.document(),
        "gates": [_gate(gate, found) for gate, found in _by_gate(grounds.findings)],
        "warnings": [f"{f.code} on {f.subject}: {f.detail}" for f in warned],
        "evidence": [{"digest": {"sha256": origin}} for origin in _origins(grounds.findings)],
    }
    predicate: dict[str, object] = {
        "result": WARNED if warned else PASSED,
        "configuration": [
            _resource("rack", grounds.rack.digest),
            _resource("profile", profile_digest(grounds.rack.profile)),
            _resource("plan", grounds.plan_digest),
        ],
        "passedTests": sorted({f.code for f in grounds.findings} - unclean),
        "warnedTests": sorted({f.code for f in warned}),
        "failedTests": [],
        EXTENSION: extension,
    }
    return {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(fingerprint),
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }


def profile_digest(profile: Profile) -> str:
    """sha256 of a profile's values: its gates and expected facts, whatever file they were written in."""
    return digest(_plain(asdict(profile)))


def _header(grounds: Grounds, now: datetime, lifetime: timedelta, tool_version: str) -> dict[str, object]:
    issued = now.astimezone(UTC).replace(microsecond=0)
    rack = grounds.rack
    return {
        "version": VERSION,
        "toolVersion": tool_version,
        "rack": rack.name,
        "site": rack.site,
        "profile": rack.profile.name,
        "mode": rack.profile.mode.value,
        "issuedAt": _zulu(issued),
        "expiresAt": _zulu(issued + lifetime),
        "lifetimeSource": rack.profile.certificate_lifetime_source,
        "supersedes": grounds.supersedes,
        "coverage": "named partial" if grounds.left_out else "whole",
        "nodes": sorted(facts.node for facts in grounds.nodes),
        "leftOut": [{"node": node, "reason": reason} for node, reason in sorted(grounds.left_out)],
    }


def _check_nodes(grounds: Grounds) -> None:
    """Planned, certified and left out are compared, always."""
    named = sorted(facts.node for facts in grounds.nodes)
    away = sorted(node for node, _ in grounds.left_out)
    planned = sorted(unit.name for unit in grounds.rack.nodes)
    if not named:
        raise EvidenceError(
            f"no node of {grounds.rack.name} passed: there is nothing to certify",
            f"see rackproof why {grounds.rack.name}",
        )
    if sorted([*named, *away]) != planned:
        raise RackproofError(f"certified {named} and left out {away} together are not the planned {planned}, each once")
    strangers = sorted({f.subject.node for f in grounds.findings if f.subject.scope not in WIDE} - {"", *named})
    if strangers:
        raise RackproofError(f"findings on {strangers} are given for a certificate of {named}")


def _check_evidence(grounds: Grounds) -> None:
    missing = list(_missing(grounds))
    if missing:
        more = f", and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise EvidenceError(
            f"{grounds.rack.name} cannot be certified: " + "; ".join(missing[:SHOWN]) + more,
            f"measure what is missing or leave the node out: rackproof why {grounds.rack.name}",
        )


def _missing(grounds: Grounds) -> Iterator[str]:
    profile = grounds.rack.profile
    # Rails that the profile does not have measured are named among what is not verified.
    silent = () if profile.rail_test else (RAIL_METRIC,)
    required = [gate for gate in profile.gates if gate.required and gate.metric not in silent]
    if not required:
        yield f"profile {profile.name} has no required gate"
    # One code may stand for two gates: a flag before the burn-in and the same flag after it.
    found = {(f.code, f.gate.metric, f.gate.stage, f.subject): f for f in grounds.findings}
    for facts in grounds.nodes:
        unit = grounds.rack.unit(facts.node)
        subjects = tuple(planned_subjects(unit, profile))
        for gate in required:
            if gate.scope not in WIDE and gate in grounds.not_asked:
                continue
            asked = [s for s in subjects if s.scope is gate.scope]
            if not asked and gate.scope not in WIDE:
                yield f"{gate.code} could be asked of nothing on {facts.node}"
            yield from _unproven(gate, [(str(s), found.get((gate.code, gate.metric, gate.stage, s))) for s in asked])
    for gate in required:
        if gate.scope in WIDE and gate not in grounds.not_asked:
            on_rack = [(str(f.subject), f) for f in grounds.findings if f.gate == gate]
            yield from _unproven(gate, on_rack or [("the rack", None)])


def _unproven(gate: Gate, asked: Sequence[tuple[str, Finding | None]]) -> Iterator[str]:
    for subject, finding in asked:
        if finding is None:
            yield f"{gate.code} has no answer on {subject}"
        elif finding.excused and finding.gate == gate and gate.without_peers is WithoutPeers.NOT_ASKED:
            continue  # named among what is not verified
        elif finding.answer is not Answer.PASS:
            yield f"{gate.code} is {finding.answer} on {subject}: {finding.detail}"
        elif finding.gate != gate:
            yield f"{gate.code} on {subject} was judged by another limit than the profile's"
        elif not finding.origin:
            yield f"{gate.code} passed on {subject} without naming its evidence"
        elif not SHA256.fullmatch(finding.origin):
            yield f"{gate.code} passed on {subject} by {finding.origin[:40]!a}, which is the sha256 of no evidence"


def _subjects(fingerprint: Fingerprint) -> list[dict[str, object]]:
    nodes = [_resource(f"{fingerprint.rack}/{facts.node}", facts.digest) for facts in fingerprint.nodes]
    return [_resource(fingerprint.rack, fingerprint.digest), *nodes]


def _resource(name: str, sha256: str) -> dict[str, object]:
    return {"name": name, "digest": {"sha256": sha256}}


def _not_verified(grounds: Grounds, unsure: Iterable[Finding]) -> tuple[NotVerified, ...]:
    as_designed = of_kind(Unverified.AS_DESIGNED, [AS_DESIGNED])
    return (*grounds.not_verified, *as_designed, *of_kind(Unverified.OPTIONAL, _doubts(unsure)))


def _doubts(unsure: Iterable[Finding]) -> list[str]:
    """What optional gates could not answer, once for each gate."""
    by_code: dict[str, list[Finding]] = {}
    for finding in unsure:
        by_code.setdefault(finding.code, []).append(finding)
    return [f"{code} on {len(found)} subjects: {found[0].detail}" for code, found in sorted(by_code.items())]


def _by_gate(findings: Iterable[Finding]) -> list[tuple[Gate, list[Finding]]]:
    by_code: dict[str, tuple[Gate, list[Finding]]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, (finding.gate, []))[1].append(finding)
    return [by_code[code] for code in sorted(by_code)]


def _gate(gate: Gate, findings: Sequence[Finding]) -> dict[str, object]:
    """A gate with its limit and source, on how many subjects it was asked, what was seen, and by which evidence.

    Subjects are counted, not listed: a rack of 72 GPUs with 18 links each would make megabytes.
    """
    passed = [f for f in findings if f.answer is Answer.PASS]
    return {
        "code": gate.code,
        "metric": gate.metric,
        "unit": gate.unit,
        "scope": gate.scope.value,
        "operator": gate.operator.value,
        "limit": list(gate.limit) if isinstance(gate.limit, tuple) else gate.limit,
        "required": gate.required,
        "stage": gate.stage,
        "source": gate.source,
        "date": gate.date,
        "asked": len(findings),
        "passed": len(passed),
        "seen": _seen([f.value for f in passed if f.value is not None]),
        "evidence": _origins(findings),
    }


def _seen(values: Sequence[Value]) -> dict[str, object]:
    """Lowest and highest number, or the distinct words."""
    numbers = [v for v in values if not isinstance(v, str)]
    words = sorted({v for v in values if isinstance(v, str)})
    seen: dict[str, object] = {}
    if numbers:
        seen.update(lowest=min(numbers), highest=max(numbers))
    if words:
        seen["words"] = words[:SHOWN]
    return seen


def _origins(findings: Iterable[Finding]) -> list[str]:
    """What can be looked up. Of a required gate there is nothing else: `_unproven` sees to it."""
    return sorted({f.origin for f in findings if SHA256.fullmatch(f.origin)})


def _zulu(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(value: Mapping[str, object]) -> dict[str, object]:
    """JSON's types only: enum members are strings already, durations are seconds, also in what is nested."""
    return {
        key: item.total_seconds() if isinstance(item, timedelta) else _plain(item) if isinstance(item, dict) else item
        for key, item in value.items()
    }
