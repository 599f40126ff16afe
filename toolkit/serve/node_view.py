"""A node's page: why it is where it is, its runs and states, findings, facts, certificates, what its GPUs measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from toolkit.certificate.fingerprint import NodeFacts
from toolkit.certificate.reading import Verified
from toolkit.errors import UsageError
from toolkit.judge.believed import believed
from toolkit.judge.evidence import Measurement
from toolkit.judge.verdict import Answer
from toolkit.ledger import EventKind, Run
from toolkit.rack.gate import Scope
from toolkit.rack.metric import COLLECTIVES, METRICS, collective_metric
from toolkit.rack.metric import Unit as MetricUnit
from toolkit.rack.model import Rack, Unit
from toolkit.repair import plan
from toolkit.report.html.findings import findings_of
from toolkit.report.html.series import CHARTED, series_of
from toolkit.report.html.values import FindingRow, Series
from toolkit.report.measured import repaired
from toolkit.report.why import Why, drifting, why
from toolkit.serve.activity import Happened, happened
from toolkit.serve.board import Node, Summary
from toolkit.serve.certified import Record
from toolkit.serve.rack_view import NodeRow, rack_page
from toolkit.serve.seats import BURNIN, gpus_of
from toolkit.serve.site import Site

RUNS_SHOWN = 40
MAX_FINDINGS = 30
_HAPPENED = 16
_CERTIFICATES = 12
_MOVES = 40
_FACTS = tuple(
    m.name
    for m in METRICS.values()
    if m.scope is Scope.NODE and m.unit in (MetricUnit.WORD, MetricUnit.VERSION, MetricUnit.FLAG)
    and not m.name.startswith(("nccl_", "rack_", "leaf_", "domain_"))
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fact:
    """What the node said of itself last. `meaning`: the metric's."""

    name: str
    value: str
    meaning: str
    at: datetime
    evidence: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A move of the node, with why."""

    at: datetime
    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """A certificate that names the node. `standing`: in force, superseded, revoked and why, expired, or not."""

    record: Record
    standing: str


@dataclass(frozen=True, slots=True)
class NodePage:
    """All of it.

    proof      the newest certificate, verified, where it holds for the node; or why none does
    bound      what that certificate is bound to of this node: firmware, driver, serials
    series     what was measured since its last repair: a row a metric
    runs       the newest first; `more_runs`: older ones that are not among them
    """

    rack: Summary
    node: Node
    unit: Unit | None
    row: NodeRow
    why: Why
    findings: tuple[FindingRow, ...]
    facts: tuple[Fact, ...]
    proof: Verified | str
    bound: NodeFacts | None
    certificates: tuple[NodeCertificate, ...]
    series: tuple[Series, ...]
    runs: tuple[Run, ...]
    more_runs: int
    moves: tuple[Moved, ...]
    happened: tuple[Happened, ...]

    @property
    def of_gpus(self) -> tuple[Series, ...]:
        """What was measured of every GPU, where anything was."""
        return tuple(s for s in self.series if s.scope is Scope.GPU and s.numbers)

    @property
    def of_others(self) -> tuple[Series, ...]:
        """What was measured of the node and of its HCAs."""
        return tuple(s for s in self.series if s.scope is not Scope.GPU and s.numbers)


def node_page(site: Site, rack: Summary, node: Node, *, all_runs: bool = False) -> NodePage:
    """The node as the ledger has it now."""
    ledger = site.ledger
    unit = next((u for u in rack.design.nodes if u.name == node.name), None) if rack.design else None
    (row,) = rack_page(site, replace(rack, nodes=(node,))).rows
    runs = ledger.runs(rack.name, node.name)
    shown = runs if all_runs else runs[-RUNS_SHOWN:]
    findings = findings_of(ledger, rack.design, [node.stood]) if rack.design and node.code else ()
    proof, bound = _proof(site, rack, node)
    return NodePage(
        rack, node, unit, row, _why(site, rack, node, unit, runs), findings[:MAX_FINDINGS], _facts(site, rack, node),
        proof, bound, certificates_of(site, rack, node), _series(site, rack.design, unit, findings),
        tuple(reversed(shown)), len(runs) - len(shown), _moves(site, rack, node),
        tuple(happened(event) for event in reversed(ledger.story(rack.name, node.name, _HAPPENED))),
    )  # fmt: skip


def _why(site: Site, rack: Summary, node: Node, unit: Unit | None, runs: tuple[Run, ...]) -> Why:
    ledger = site.ledger
    events = ledger.events(rack.name, node.name, after=runs[-1].event, limit=1000) if runs else ()
    answer = why(rack.name, node.stood, events)
    rungs: tuple[str, ...] = ()
    if node.code and rack.design and unit:
        try:
            rungs = tuple(rung for rung, _ in plan(ledger, rack.design, unit).left.rungs)
        except UsageError:
            rungs = ()
    warnings = drifting(ledger.find(rack.name, node.name, EventKind.OBSERVED, "trend"))
    return replace(answer, rungs=rungs, warnings=warnings)


def _facts(site: Site, rack: Summary, node: Node) -> tuple[Fact, ...]:
    told = site.ledger.newest_measurements(rack.name, node.name, _FACTS)
    return tuple(
        Fact(m.metric, _word(m), METRICS[m.metric].meaning, m.at, m.origin)
        for m in sorted(told, key=lambda m: m.metric)
    )  # fmt: skip


def _word(m: Measurement) -> str:
    if METRICS[m.metric].unit is MetricUnit.FLAG:
        return {0: "no", 1: "yes"}.get(int(m.value), str(m.value)) if isinstance(m.value, int | float) else m.value
    return str(m.value)


def _proof(site: Site, rack: Summary, node: Node) -> tuple[Verified | str, NodeFacts | None]:
    of = node.certificate
    if of is None:
        return "no certificate on record names it", None
    found = site.proof(of.digest)
    if isinstance(found, str):
        return found, None
    bound = found.fingerprint.node(node.name)
    if of.revoked:
        return f"revoked: {of.revoked}", bound
    if rack.design and found.fingerprint.topology != rack.design.digest:
        return "it is of the rack as it was designed before its file was changed", bound
    if str(node.state) not in ("CERTIFIED", "ADMITTED"):
        return f"the node is {node.state}", bound
    return found, bound


def certificates_of(site: Site, rack: Summary, node: Node) -> tuple[NodeCertificate, ...]:
    """Certificates that name the node, the newest first."""
    now = site.clock()
    found = []
    for record in site.board.certified.records():
        if record.rack == rack.name and node.name in record.nodes:
            found.append(NodeCertificate(record, _standing(site, record, node, now)))
        if len(found) == _CERTIFICATES:
            break
    return tuple(found)


def _standing(site: Site, record: Record, node: Node, now: datetime) -> str:
    revoked = site.board.certified.revoked(record).get(node.name)
    if revoked is not None:
        return f"revoked: {revoked}"
    if node.certificate and node.certificate.digest != record.digest:
        return "superseded"
    if record.expires is None or record.expires <= now:
        return "expired"
    return "in force" if str(node.state) in ("CERTIFIED", "ADMITTED") else f"does not hold: it is {node.state}"


def _series(site: Site, design: Rack | None, unit: Unit | None, findings: Iterable[FindingRow]) -> tuple[Series, ...]:
    """As the rack's report has it, of this node alone."""
    if design is None or unit is None:
        return ()
    proofs = {collective_metric(c, "path") for c in COLLECTIVES}
    metrics = sorted({chart.metric for chart in CHARTED} | proofs)
    since = repaired(site.ledger, design.name, unit.name)
    told = site.ledger.newest_measurements(design.name, unit.name, metrics)
    event = site.ledger.find(design.name, unit.name, EventKind.OBSERVED, BURNIN)
    seats = {(unit.name, gpu): (serial, pci) for gpu, serial, pci in gpus_of(event)} if event else {}
    failed = frozenset((f.code, subject) for f in findings if f.answer is Answer.FAIL for subject in f.subjects)
    alone = replace(design, units=(unit,))
    return series_of(alone, believed(m for m in told if m.at > since), seats, {}, failed)


def _moves(site: Site, rack: Summary, node: Node) -> tuple[Moved, ...]:
    kinds = (EventKind.NODE_MOVED, EventKind.NODE_ENTERED)
    found = []
    for event in reversed(site.ledger.recent(kinds, rack.name, node.name, _MOVES)):
        body: Mapping[str, object] = event.body
        after = str(body.get("after", body.get("state", "")))
        found.append(Moved(event.at, str(body.get("before", "")), after, str(body.get("reason", ""))))
    return tuple(found)
