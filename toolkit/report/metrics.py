"""A snapshot of the ledger as Prometheus metric families. Pure, but for the library that writes the text.

What is not on record has no sample: a missing number is never 0. Series are bounded: see MAX_NODES, MAX_GATE_VALUES and
`rackproof_exporter_left_out`, which counts what the bounds kept out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from toolkit.pool.wave_log import WaveEnd
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.report.metrics_snapshot import NodeNow, RackNow, Snapshot
from toolkit.report.text import printable

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

MAX_NODES = 5_000  # times some 15 series, and the values of gates
MAX_GATE_VALUES = 20_000
MAX_LABEL = 120  # characters
OPEN = "OPEN"  # in place of an outcome: the run goes on, or its process died
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

HELP = {
    "rackproof_build_info": "The rackproof that wrote these metrics; always 1.",
    "rackproof_exporter_snapshot_timestamp_seconds": "When the ledger was read. Everything else here is of that time.",
    "rackproof_exporter_snapshot_duration_seconds": "How long reading the ledger took.",
    "rackproof_exporter_left_out": "What the bounds of the exporter kept out of this scrape: racks, nodes, gates; and "
    "series whose labels another one has.",
    "rackproof_rack_design_readable": "1 where the rack file could be read, else 0: limits, values of gates and nodes "
    "that were never worked on are then missing.",
    "rackproof_node_state": "1 with the state that the node rests in; the other states have no sample.",
    "rackproof_node_state_since_timestamp_seconds": "When the node moved to its state. No sample: it never moved.",
    "rackproof_node_trouble": "1 with the code of what stands against the node (rackproof explain CODE). No sample: "
    "its last run passed, or goes on.",
    "rackproof_certificate_expiry_timestamp_seconds": "When the newest certificate that names the node, and is not "
    "revoked for it, expires. No sample: there is none.",
    "rackproof_certificate_issued_timestamp_seconds": "When that certificate was issued.",
    "rackproof_certificates_issued_total": "Certificates issued for nodes of the rack.",
    "rackproof_certificate_revocations_total": "Revocations, each counted once for every node that it names.",
    "rackproof_run_last_timestamp_seconds": "When the node's newest run of the stage ended, with its outcome. OPEN: "
    "when it began; it goes on, or its process died.",
    "rackproof_runs_total": "Runs that ended, by stage and outcome.",
    "rackproof_evidence_timestamp_seconds": "When the newest run that passed of a stage that measures ended, since the "
    "node's last repair: evidence is as old as that. A burn-in passes when it measured everything; certify judges it. "
    "No sample: there is none.",
    "rackproof_evidence_limit_seconds": "How old evidence may become before re-certification renews it whatever it "
    "pays, by the site's recert.yml. No sample: that file cannot be read.",
    "rackproof_gate_value": "The worst number of the gate's metric on the node in its newest run of the gate's stage, "
    "in the gate's unit, of all parts that were measured (rackproof why NODE names the part). No sample: not measured, "
    "or not over the fabric that was meant.",
    "rackproof_gate_limit": "The gate's limit by the rack's profile, in the gate's unit; operator says which side "
    "fails.",
    "rackproof_admission_waves_total": "Waves of admission that ended, by how.",
    "rackproof_admission_halts_total": "Waves that were halted at a bad sign.",
    "rackproof_admission_wave_open": "1 while a wave that was begun has no end on record, else 0.",
}  # fmt: skip
_RACK, _NODE = ("rack",), ("rack", "node")
LABELS = {name: _NODE for name in HELP} | {
    "rackproof_build_info": ("version",),
    "rackproof_exporter_snapshot_timestamp_seconds": (),
    "rackproof_exporter_snapshot_duration_seconds": (),
    "rackproof_exporter_left_out": ("kind",),
    "rackproof_rack_design_readable": _RACK,
    "rackproof_node_state": (*_NODE, "state"),
    "rackproof_node_trouble": (*_NODE, "code"),
    "rackproof_certificates_issued_total": _RACK,
    "rackproof_certificate_revocations_total": _RACK,
    "rackproof_run_last_timestamp_seconds": (*_NODE, "stage", "outcome"),
    "rackproof_runs_total": (*_RACK, "stage", "outcome"),
    "rackproof_evidence_timestamp_seconds": (*_NODE, "stage"),
    "rackproof_evidence_limit_seconds": (),
    "rackproof_gate_value": (*_NODE, "gate", "metric", "unit"),
    "rackproof_gate_limit": (*_RACK, "gate", "metric", "unit", "operator"),
    "rackproof_admission_waves_total": (*_RACK, "end"),
    "rackproof_admission_halts_total": _RACK,
    "rackproof_admission_wave_open": _RACK,
}


def families(snapshot: Snapshot, version: str) -> tuple[Metric, ...]:
    """Every metric of the snapshot, in the order of HELP; those without a sample are left out."""
    scrape = _Scrape()
    scrape.add("rackproof_build_info", (_text(version),), 1.0)
    scrape.add("rackproof_exporter_snapshot_timestamp_seconds", (), snapshot.at.timestamp())
    scrape.add("rackproof_exporter_snapshot_duration_seconds", (), snapshot.took_s)
    if snapshot.evidence_limit_s is not None:
        scrape.add("rackproof_evidence_limit_seconds", (), snapshot.evidence_limit_s)
    shown = tuple(_with_room(snapshot.racks))
    for rack in shown:
        _rack(scrape, rack)
        for node in rack.nodes:
            _node(scrape, rack, node)
    names = {rack.name for rack in shown}
    away = [rack for rack in snapshot.racks if rack.name not in names]
    left_out = {"rack": len(away), "node": sum(len(rack.nodes) for rack in away), "gate": snapshot.gates_left_out}
    for kind, count in (left_out | {"series": scrape.twice}).items():
        scrape.add("rackproof_exporter_left_out", (kind,), float(count))
    return tuple(_family(name, samples) for name, samples in scrape.samples.items() if samples)


def exposition(families_: Iterable[Metric], *, openmetrics: bool = False) -> bytes:
    """The text that Prometheus reads: its own format 0.0.4, or OpenMetrics 1.0."""
    from prometheus_client.exposition import generate_latest
    from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

    held: Collector = _Held(tuple(families_))
    if openmetrics:
        return bytes(generate_openmetrics(held))  # type: ignore[no-untyped-call]
    return generate_latest(held)


@dataclass(frozen=True, slots=True)
class _Held:
    """Families as prometheus_client asks for them."""

    families: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self.families


class _Scrape:
    """Samples by metric and labels. One series with two values is no exposition: the first stays, `twice` counts."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in HELP}
        self.twice = 0

    def add(self, name: str, labels: tuple[str, ...], value: float) -> None:
        """Takes a sample in; its labels in the order of LABELS."""
        held = self.samples[name]
        if labels in held:
            self.twice += 1
        else:
            held[labels] = value


def _family(name: str, samples: Mapping[tuple[str, ...], float]) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    labels = LABELS[name]
    if name.endswith("_info"):
        info = InfoMetricFamily(name.removesuffix("_info"), HELP[name], labels=labels)
        for values in samples:
            info.add_metric(values, {})
        return info
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, HELP[name], labels=labels)
    for values, value in samples.items():
        family.add_metric(values, value)
    return family


def _with_room(racks: Iterable[RackNow]) -> Iterator[RackNow]:
    """Racks whole, in the order of their names, as long as their nodes fit."""
    room = MAX_NODES
    for rack in sorted(racks, key=lambda r: r.name):
        if len(rack.nodes) <= room:
            room -= len(rack.nodes)
            yield rack


def _rack(scrape: _Scrape, rack: RackNow) -> None:
    of = (_text(rack.name),)
    scrape.add("rackproof_rack_design_readable", of, float(rack.designed))
    scrape.add("rackproof_certificates_issued_total", of, float(rack.certificates))
    scrape.add("rackproof_certificate_revocations_total", of, float(rack.revocations))
    scrape.add("rackproof_admission_halts_total", of, float(rack.waves.halts))
    scrape.add("rackproof_admission_wave_open", of, float(rack.waves.open))
    for end in WaveEnd:
        count = rack.waves.ended.get(end, 0)
        scrape.add("rackproof_admission_waves_total", (*of, end.value.replace(" ", "_")), float(count))
    for stage in Stage:
        for outcome in Outcome:
            count = rack.totals.get((stage, outcome), 0)
            scrape.add("rackproof_runs_total", (*of, stage.value, outcome.value), float(count))
    for limit in rack.limits:
        gate = (_text(limit.code), _text(limit.metric), _text(limit.unit), limit.operator.value)
        scrape.add("rackproof_gate_limit", (*of, *gate), limit.limit)


def _node(scrape: _Scrape, rack: RackNow, node: NodeNow) -> None:
    of = (_text(rack.name), _text(node.name))
    scrape.add("rackproof_node_state", (*of, node.state.value), 1.0)
    if node.since:
        scrape.add("rackproof_node_state_since_timestamp_seconds", of, node.since.timestamp())
    if node.code:
        code = node.code if _CODE.fullmatch(node.code) else "OTHER"
        scrape.add("rackproof_node_trouble", (*of, code), 1.0)
    if node.certificate:
        scrape.add("rackproof_certificate_expiry_timestamp_seconds", of, node.certificate.expires.timestamp())
        scrape.add("rackproof_certificate_issued_timestamp_seconds", of, node.certificate.issued.timestamp())
    for run in node.runs:
        labels = (*of, run.stage.value, run.outcome.value if run.outcome else OPEN)
        scrape.add("rackproof_run_last_timestamp_seconds", labels, (run.finished or run.started).timestamp())
    for stage, at in node.evidence.items():
        scrape.add("rackproof_evidence_timestamp_seconds", (*of, stage.value), at.timestamp())
    for value in node.values:
        gate = (_text(value.code), _text(value.metric), _text(value.unit))
        scrape.add("rackproof_gate_value", (*of, *gate), value.value)


@lru_cache(65_536)
def _text(text: str) -> str:
    """A label's value: no control characters, bounded; prometheus_client escapes quotes and backslashes."""
    return printable(text, MAX_LABEL)
