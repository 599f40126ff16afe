"""The metrics that a rack's report charts: each over every planned part, with its gates and its ceiling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from toolkit.judge.ceilings import Ceiling
from toolkit.judge.contract import overall
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.verdict import Answer, judge
from toolkit.rack.gate import Gate, Operator, Scope
from toolkit.rack.metric import METRICS
from toolkit.rack.model import Rack, Unit
from toolkit.report.html.values import Limits, Point, Series

Ceilings = Mapping[str, Ceiling]  # by metric
Seats = dict[tuple[str, int], tuple[str, str]]  # (node, GPU) -> serial, PCI address
_ORDERS = (Operator.AT_LEAST, Operator.AT_MOST)
# Whether a reading is in time is certify's to say; a chart shows how it stands to its limit.
_ANY_AGE = timedelta(days=36_500)
OF_PEAK = "hbm_sweep_fraction_of_peak"
Failed = frozenset[tuple[str, str]]  # (code, subject) of findings on record


@dataclass(frozen=True, slots=True)
class Chart:
    """A metric that is shown. `heat`: as a map of the GPUs or HCAs in their places; `strip`: as a distribution."""

    metric: str
    title: str
    heat: bool = False
    strip: bool = False


CHARTED = (
    Chart("hbm_sweep_gb_per_s_median", "HBM bandwidth, median sweep", heat=True),
    Chart(OF_PEAK, "HBM bandwidth over the peak computed on the node", strip=True),
    Chart("rail_busbw_gb_per_s", "bus bandwidth of each rail", heat=True, strip=True),
    Chart("nccl_busbw_gb_per_s", "all_reduce bus bandwidth of each node", strip=True),
    Chart("gemm_bf16_tflop_per_s", "bf16 matrix products", strip=True),
    Chart("h2d_gb_per_s", "host to device", strip=True),
    Chart("hbm_corrected_errors_delta", "corrected HBM errors over the burn-in", heat=True),
    Chart("hbm_uncorrected_errors_delta", "uncorrected HBM errors over the burn-in", heat=True),
    Chart("gpu_celsius_max", "highest GPU temperature", heat=True, strip=True),
    Chart("hbm_celsius_max", "highest HBM temperature", heat=True, strip=True),
    Chart("gpu_watts_max", "highest power", heat=True, strip=True),
)


def series_of(
    rack: Rack, told: Iterable[Measurement], seats: Seats, ceilings: Ceilings, failed: Failed
) -> tuple[Series, ...]:  # fmt: skip
    """One for each chart of which anything could be measured on this rack, in their order."""
    by_metric: dict[str, dict[Subject, Measurement]] = {}
    for m in told:
        by_metric.setdefault(m.metric, {})[m.subject] = m
    found = (_series(rack, chart, by_metric.get(chart.metric, {}), seats, ceilings, failed) for chart in CHARTED)
    return tuple(series for series in found if series.points)


def _series(
    rack: Rack, chart: Chart, measured: Mapping[Subject, Measurement], seats: Seats, ceilings: Ceilings, failed: Failed
) -> Series:  # fmt: skip
    metric = METRICS[chart.metric]
    gates = tuple(g for g in rack.profile.gates if g.metric == chart.metric)
    ordered = tuple(g for g in gates if g.operator in _ORDERS and g.limit is not None)
    points = tuple(
        _point(unit, column, subject, measured.get(subject), seats, gates, failed)
        for unit in rack.nodes
        for column, subject in enumerate(_subjects(rack, unit, metric.scope))
    )
    limits = tuple(Limits(g.code, g.operator, g.limit, g.source) for g in ordered)
    top = ceilings.get(chart.metric)
    ceiling = ("computed peak", 1.0) if chart.metric == OF_PEAK else (top.name, top.gb_per_s) if top else None
    unjudged = "" if ordered else _unjudged(rack, gates)
    return Series(chart.metric, chart.title, str(metric.unit), metric.scope, points, limits, ceiling, unjudged)


def _unjudged(rack: Rack, gates: Iterable[Gate]) -> str:
    """Why no limit is drawn."""
    for gate in gates:
        if gate.operator is Operator.PEERS and isinstance(gate.limit, float):
            return f"{gate.code} compares it with its peers, {gate.limit:.0%}"
        return f"{gate.code} has no sourced limit: measured, not judged"
    return f"no gate of {rack.profile.name} reads it"


def _point(
    unit: Unit, column: int, subject: Subject, m: Measurement | None, seats: Seats, gates: tuple[Gate, ...],
    failed: Failed,
) -> Point:  # fmt: skip
    who = _who(unit, subject, seats)
    if m is None:
        return Point(subject, column, who, None)
    return Point(subject, column, who, m.value, _answer(gates, subject, m, failed), m.at, m.origin)


def _answer(gates: Iterable[Gate], subject: Subject, m: Measurement, failed: Failed) -> Answer | None:
    """By limits, what the value says; relative to peers, what is on record."""
    found = [Answer.FAIL for g in gates if (g.code, str(subject)) in failed]
    for gate in gates:
        if gate.operator in _ORDERS and gate.limit is not None:
            found += [f.answer for f in judge([gate], [subject], [m], m.at, _ANY_AGE).findings]
    return overall(found) if found else None


def _subjects(rack: Rack, unit: Unit, scope: Scope) -> Iterator[Subject]:
    if scope is Scope.NODE:
        yield Subject(scope, unit.name)
    elif scope is Scope.GPU:
        yield from (Subject(scope, unit.name, gpu=gpu) for gpu in range(rack.profile.gpus_per_node))
    elif scope is Scope.HCA:
        yield from (Subject(scope, unit.name, hca=h.name) for h in sorted(unit.hcas, key=lambda h: h.rail))


def _who(unit: Unit, subject: Subject, seats: Seats) -> str:
    if subject.gpu >= 0:
        serial, pci = seats.get((unit.name, subject.gpu), ("", ""))
        return f"{unit.name} GPU {subject.gpu}, serial {serial or 'unknown'}" + (f" at {pci}" if pci else "")
    where = f"slot {unit.slot}, serial {unit.serial}"
    return f"{unit.name} {subject.hca}, {where}" if subject.hca else f"{unit.name}, {where}"
