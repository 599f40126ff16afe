"""What a ledger has on record for the criteria of a contract: measurements that certificates in force rest on.

It reads the ledger and the artifacts alone: no node is asked, so a report can be made of a rack that is off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from toolkit.certificate.reading import Verified
from toolkit.judge.believed import believed
from toolkit.judge.contract import NodeEvidence, RackEvidence
from toolkit.judge.evidence import Measurement
from toolkit.judge.verdict import CLOCK_SKEW
from toolkit.ledger import ArtifactError, EventKind, Ledger
from toolkit.rack.contract import Annex, Asked, asked
from toolkit.rack.gate import WIDE, Operator
from toolkit.rack.metric import COLLECTIVES, WIDE_PREFIXES, collective_metric, wide_metric
from toolkit.rack.model import Rack
from toolkit.report.in_force import InForce
from toolkit.report.measured import newest, repaired
from toolkit.stages.peer_records import comparisons_on_record

_EVENT = re.compile(r"event (\d{1,18})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def evidence_of(ledger: Ledger, rack: Rack, annex: Annex, held: InForce, now: datetime) -> RackEvidence:
    """All that the annex's criteria ask for, of every planned node.

    Of a node that a certificate vouches for, what that certificate rests on and nothing else; of another, what was
    measured last since it was repaired.
    """
    gates = [a.gate for c in annex.criteria for a in asked(c, "", rack.profile) if isinstance(a, Asked)]
    told = _told(ledger, rack, sorted(_with_proofs({gate.metric for gate in gates})))
    peers = any(gate.operator is Operator.PEERS for gate in gates)
    nodes = []
    for unit in rack.nodes:
        of = _of_node(ledger, rack, unit.name, held, told[unit.name], now)
        runs = {m.run for metric in of.told.values() for m in metric} if peers else set()
        compared = (c for run in sorted(runs) for c in comparisons_on_record(ledger, rack.name, unit.name, run))
        nodes.append(replace(of, compared=tuple(compared)))
    wide, issued = _of_many(told, held, now)
    read = {m.origin for n in nodes for of in n.told.values() for m in of} | {m.origin for m in wide}
    read |= {c.origin for n in nodes for c in n.compared}
    lost = {origin: why for origin in sorted(read) if (why := _lost(ledger, rack.name, origin))}
    return RackEvidence(tuple(nodes), wide, issued, rack.profile.certificate_lifetime, lost)


def _told(ledger: Ledger, rack: Rack, metrics: Iterable[str]) -> Mapping[str, list[Measurement]]:
    """All that was ever measured of these, by unit; by "" what is of the rack. A rack's past is millions of rows, and
    by unit and metric the ledger finds them at once.
    """
    names = [*(unit.name for unit in rack.units), ""]
    wanted = tuple(metrics)
    return {name: [m for w in wanted for m in ledger.measurements(rack.name, name, metric=w)] for name in names}


def _of_many(
    told: Mapping[str, list[Measurement]], held: InForce, now: datetime
) -> tuple[tuple[Measurement, ...], datetime]:  # fmt: skip
    """What was measured of many nodes together, by certificates in force, and when the last of these was issued."""
    origins = frozenset().union(*(_origins(c) for c in held.certificates))
    issued = max((c.issued_at for c in held.certificates), default=now)
    wide = [m for of in told.values() for m in of if m.subject.scope in WIDE and m.origin in origins]
    return tuple(_before(wide, issued)), issued


def _of_node(
    ledger: Ledger, rack: Rack, node: str, held: InForce, measurements: Iterable[Measurement], now: datetime
) -> NodeEvidence:  # fmt: skip
    certificate = held.vouched.get(node)
    if certificate is not None:
        origins = _origins(certificate)
        told = _before([m for m in measurements if m.origin in origins], certificate.issued_at)
        # How old evidence may be was certify's to say: nothing is older than the longest a certificate lives.
        at, max_age = certificate.issued_at, rack.profile.certificate_lifetime
    else:
        since = repaired(ledger, rack.name, node)
        told = [m for m in measurements if m.at > since]
        at, max_age = max((m.at for m in told), default=now), rack.profile.evidence_max_age
    return NodeEvidence(node, held.doubts.get(node, ""), at, max_age, _by_metric(believed(newest(told))))


def _with_proofs(metrics: Iterable[str]) -> set[str]:
    """Beside what is asked, what shows whether it may be believed: the way of a collective, and its ranks."""
    ways = {collective_metric(c, "path") for c in COLLECTIVES}
    ranks = {wide_metric(scope, c, "ranks") for scope in WIDE_PREFIXES for c in COLLECTIVES}
    return {*metrics, *ways, *ranks}


def _origins(certificate: Verified) -> frozenset[str]:
    """Of the evidence that a certificate rests on, as it is signed."""
    return frozenset(digest for digest, _ in certificate.evidence)


def _before(measurements: Iterable[Measurement], issued: datetime) -> list[Measurement]:
    """The same bytes may have been read again later: what a certificate rests on was there before it."""
    return [m for m in measurements if m.at <= issued + CLOCK_SKEW]


def _by_metric(measurements: Iterable[Measurement]) -> Mapping[str, tuple[Measurement, ...]]:
    found: dict[str, list[Measurement]] = {}
    for m in measurements:
        found.setdefault(m.metric, []).append(m)
    return {metric: tuple(of) for metric, of in found.items()}


def _lost(ledger: Ledger, rack: str, origin: str) -> str:
    """Why evidence cannot be read back; empty where it can."""
    if event := _EVENT.fullmatch(origin):
        number = int(event[1])
        found = ledger.events(rack, after=number - 1, limit=1)
        known = found and found[0].id == number and found[0].kind is EventKind.JUDGED
        return "" if known else f"its evidence is {origin} of the ledger, which is not there"
    if not _SHA256.fullmatch(origin):
        return f"its evidence is {origin[:40]!a}, which names nothing" if origin else "it names no evidence"
    try:
        ledger.artifacts.verify(origin)
    except ArtifactError as gone:
        return gone.message
    return ""
