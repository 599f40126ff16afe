"""Gathers a rack's report from the ledger: no node is asked, and what is not on record is shown as not on record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from toolkit import __version__
from toolkit.errors import RackproofError
from toolkit.judge.believed import believed
from toolkit.judge.evidence import Measurement
from toolkit.judge.verdict import Answer
from toolkit.ledger import EventKind, Ledger
from toolkit.rack.lifecycle import Outcome
from toolkit.rack.metric import COLLECTIVES, collective_metric
from toolkit.rack.model import LinkKind, Rack
from toolkit.report.html.findings import findings_of
from toolkit.report.html.series import CHARTED, Ceilings, Seats, series_of
from toolkit.report.html.traces import Trace, trace_name, trace_of
from toolkit.report.html.values import (
    Bar,
    CableCell,
    CertificateRow,
    EvidenceRow,
    FabricLine,
    Look,
    RackReport,
    Seat,
)
from toolkit.report.in_force import InForce
from toolkit.report.measured import MAX_EVENTS, repaired
from toolkit.report.standing import Standing, standings

MAX_FINDINGS = 400
MAX_TRACES = 6  # a trace of hours is megabytes
CABLE_METRIC = "hca_link_fault"
BURNIN = "burnin"  # what the ledger files a node's own burn-in under


def gather(ledger: Ledger, rack: Rack, held: InForce, ceilings: Ceilings, now: datetime) -> RackReport:
    """The report of the rack as it stands on record now."""
    stood = standings(ledger, rack)
    told = _measured(ledger, rack)
    findings = findings_of(ledger, rack, stood)
    failed = frozenset((f.code, subject) for f in findings if f.answer is Answer.FAIL for subject in f.subjects)
    series = series_of(rack, told, _seats(ledger, rack), ceilings, failed)
    bars, earlier = _bars(ledger, rack)
    traces, untraced = _traces(ledger, rack, stood)
    troubled = next((s for s in stood if s.trouble and s.next), None)
    return RackReport(
        rack=rack.name,
        site=rack.site,
        sku=rack.profile.sku,
        profile=rack.profile.name,
        topology=rack.digest,
        made_at=now,
        tool_version=__version__,
        answer=_answer(stood, held),
        seats=_elevation(rack, stood, held),
        certificates=_certificates(held),
        doubts=tuple(sorted(held.doubts.items())),
        not_verified=tuple(dict.fromkeys(line.what for c in held.certificates for line in c.not_verified)),
        findings=findings[:MAX_FINDINGS],
        traces=traces,
        untraced=untraced,
        unlisted=max(0, len(findings) - MAX_FINDINGS),
        series=series,
        cables=_cables(rack, told),
        look=_look(ledger, rack),
        bars=bars,
        earlier=earlier,
        evidence=_evidence(m for m in told if m.metric in {s.metric for s in series} | {CABLE_METRIC}),
        next=troubled.next if troubled else f"rackproof {'status' if not held.doubts else 'bringup'} {rack.name}",
    )


def _answer(stood: Iterable[Standing], held: InForce) -> Answer:
    if any(s.outcome is Outcome.FAILED for s in stood):
        return Answer.FAIL
    return Answer.INCONCLUSIVE if held.doubts or not held.vouched else Answer.PASS


def _elevation(rack: Rack, stood: Iterable[Standing], held: InForce) -> tuple[Seat, ...]:
    of = {s.node: s for s in stood}
    seats = []
    for unit in rack.units:
        s = of.get(unit.name)
        seat = Seat(unit.slot, unit.name, unit.kind, unit.serial)
        if s is not None:
            seat = Seat(
                unit.slot, unit.name, unit.kind, unit.serial, s.state, unit.name in held.vouched, s.outcome, s.stage,
                s.code, s.part, s.message, s.next if s.trouble else "",
            )  # fmt: skip
        seats.append(seat)
    return tuple(sorted(seats, key=lambda seat: seat.slot))


def _certificates(held: InForce) -> tuple[CertificateRow, ...]:
    return tuple(
        CertificateRow(
            c.digest, c.keyid, c.issued_at, c.expires_at,
            tuple(sorted(n for n, of in held.vouched.items() if of.digest == c.digest)), c.result,
        )
        for c in held.certificates
    )  # fmt: skip


def _measured(ledger: Ledger, rack: Rack) -> tuple[Measurement, ...]:
    """What counts now of the metrics that are shown: bandwidths only where their way is proven."""
    proofs = {collective_metric(c, "path") for c in COLLECTIVES}
    metrics = sorted({chart.metric for chart in CHARTED} | proofs | {CABLE_METRIC})
    found: list[Measurement] = []
    for unit in rack.nodes:
        since = repaired(ledger, rack.name, unit.name)
        told = ledger.newest_measurements(rack.name, unit.name, metrics)
        found += believed(m for m in told if m.at > since)
    return tuple(found)


def _seats(ledger: Ledger, rack: Rack) -> Seats:
    """Serial and PCI address of each GPU, as the node's last burn-in found them."""
    found: Seats = {}
    for unit in rack.nodes:
        event = ledger.find(rack.name, unit.name, EventKind.OBSERVED, BURNIN)
        gpus: Mapping[str, tuple[str, str]] = event.body["details"]["gpus"] if event else {}
        found |= {(unit.name, int(gpu)): (str(serial), str(pci)) for gpu, (serial, pci) in gpus.items()}
    return found


def _traces(ledger: Ledger, rack: Rack, stood: Iterable[Standing]) -> tuple[tuple[Trace, ...], int]:
    """Of some nodes, those in trouble first, the trace of the last burn-in; and of how many there is another."""
    kept: list[tuple[str, str]] = []
    for standing in sorted(stood, key=lambda s: not s.trouble):
        event = ledger.find(rack.name, standing.node, EventKind.OBSERVED, BURNIN)
        if event is None or event.at <= repaired(ledger, rack.name, standing.node):
            continue
        artifacts: Mapping[str, str] = event.body["details"].get("artifacts", {})
        if name := trace_name(artifacts):
            kept.append((standing.node, artifacts[name]))
    drawn = []
    for node, digest in kept[:MAX_TRACES]:
        try:
            drawn.append(trace_of(node, digest, ledger.artifacts.get(digest), rack.profile.gpus_per_node))
        except RackproofError as gone:  # deleted, damaged, or words in its place why the node did not send it
            drawn.append(Trace(node, "", None, 0.0, (), gone.message))
    return tuple(drawn), len(kept) - len(drawn)


def _cables(rack: Rack, told: Iterable[Measurement]) -> tuple[CableCell, ...]:
    faults = {m.subject: str(m.value) for m in told if m.metric == CABLE_METRIC}
    by_name = {(s.node, s.hca): fault for s, fault in faults.items()}
    far: dict[tuple[str, str], str] = {}
    for link in rack.links:
        if link.kind is LinkKind.INFINIBAND:
            far[link.a.unit, link.a.port] = str(link.b)
            far[link.b.unit, link.b.port] = str(link.a)
    return tuple(
        CableCell(unit.name, hca.name, hca.rail, far[unit.name, hca.name], by_name.get((unit.name, hca.name), ""))
        for unit in rack.nodes
        for hca in unit.hcas
        if (unit.name, hca.name) in far
    )


def _look(ledger: Ledger, rack: Rack) -> Look | None:
    judged = ledger.events(rack.name, "", kind=EventKind.JUDGED, limit=MAX_EVENTS)
    event = next((e for e in reversed(judged) if e.what.startswith("fabric ")), None)
    if event is None:
        return None
    counted = tuple(map(int, event.body.get("links", ())))
    links = (counted[0], counted[1], counted[2]) if len(counted) == 3 else None
    lines = tuple(
        FabricLine(
            str(line["code"]), Answer(line["answer"]), str(line["text"]), tuple(map(str, line["ends"])),
            tuple(map(str, line["evidence"])),
        )
        for line in event.body.get("lines", ())
    )  # fmt: skip
    answer = Answer(event.body["answer"])
    doubts = tuple(map(str, event.body.get("doubts", ())))
    return Look(event.at, answer, links, lines, doubts)


def _bars(ledger: Ledger, rack: Rack) -> tuple[tuple[Bar, ...], int]:
    """Runs since the newest plan that any were started for, and how many there were before."""
    runs = ledger.runs(rack.name)
    plans = ledger.events(rack.name, "", kind=EventKind.PLAN_STORED, limit=MAX_EVENTS)
    last = runs[-1].event if runs else 0
    since = max((plan.id for plan in plans if plan.id < last), default=0)
    shown = [run for run in runs if run.event > since]
    bars = tuple(Bar(r.node, r.stage, r.started, r.finished, r.outcome, r.code, r.message) for r in shown)
    return bars, len(runs) - len(shown)


def _evidence(told: Iterable[Measurement]) -> tuple[EvidenceRow, ...]:
    """Each artifact once, by node."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for m in told:
        groups.setdefault((m.subject.node, m.origin), []).append(m)
    rows = (
        EvidenceRow(origin, node, ms[-1].run, max(m.at for m in ms), len(ms)) for (node, origin), ms in groups.items()
    )
    return tuple(sorted(rows, key=lambda row: (row.node, row.at, row.digest)))
