"""What the ledger says of every rack at one moment, for metrics: value objects, and the reader that fills them.

A reader lives as long as the process that serves metrics: what a finished run measured never changes, so it is read
once. Nothing here is a default: what is not on record is None or absent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from toolkit.judge.believed import PATHS, doubted
from toolkit.ledger import Event, EventKind, Ledger, NodeRow, Run
from toolkit.pool.admission import revocations
from toolkit.pool.wave_log import Tally, tally
from toolkit.rack.gate import WIDE, Gate, Operator
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.metric import METRICS, Unit
from toolkit.rack.model import Rack
from toolkit.report.standing import first_state, set_aside

_ALL = 1_000_000
OPERATOR = "OPERATOR"  # the code of a node that was set aside by hand
# What a certificate rests on: the stages that measure.
EVIDENCE_STAGES = (Stage.NVLINK, Stage.INFINIBAND, Stage.BURNIN)
# A flag or a vendor's code has no distance to its limit; a word has no number.
_NO_DISTANCE = (Unit.FLAG, Unit.CODE)
# Which gates stay where there are too many: rates and temperatures tell of a slow decline, counts are 0 or a finding.
_FIRST_UNITS = (
    Unit.GB_PER_S, Unit.TFLOP_PER_S, Unit.CELSIUS, Unit.WATT, Unit.MHZ, Unit.FRACTION, Unit.SECOND, Unit.MS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CertificateNow:
    """The newest certificate that names a node and was not revoked for it. It may have expired."""

    issued: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class GateValue:
    """A gate's worst number on a node, of all its subjects that the run measured."""

    code: str
    metric: str
    unit: str
    value: float


@dataclass(frozen=True, slots=True)
class GateLimit:
    """A gate's limit, in its own unit."""

    code: str
    metric: str
    unit: str
    operator: Operator
    limit: float


@dataclass(frozen=True, slots=True)
class NodeNow:
    """A node.

    since     None: it never moved
    code      what stands against it; empty where its last run passed, or is going on
    runs      the newest of each stage
    evidence  when the newest pass of each stage that measures ended, since the last repair
    """

    name: str
    state: NodeState
    since: datetime | None
    code: str
    certificate: CertificateNow | None
    runs: tuple[Run, ...]
    evidence: Mapping[Stage, datetime]
    values: tuple[GateValue, ...]


@dataclass(frozen=True, slots=True)
class RackNow:
    """A rack on record.

    designed      whether its rack file could be read: limits, and nodes that were never worked on, come from there
    certificates  how many were issued
    revocations   of nodes, all certificates together
    """

    name: str
    designed: bool
    nodes: tuple[NodeNow, ...]
    limits: tuple[GateLimit, ...]
    totals: Mapping[tuple[Stage, Outcome], int]
    certificates: int
    revocations: int
    waves: Tally


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All racks on record.

    took_s            seconds that reading took
    gates_left_out    gates whose values were not read, because they would have been too many
    evidence_limit_s  how old evidence may become, by the site's policy; None: nobody says
    """

    at: datetime
    took_s: float
    racks: tuple[RackNow, ...]
    gates_left_out: int = 0
    evidence_limit_s: float | None = None


# By a run's id and the gates asked of it, as they stood then.
_Key = tuple[str, tuple[str, ...]]
_Known = Mapping[_Key, tuple[GateValue, ...]]
# The gates of each stage, and how they stand now.
_Asked = Mapping[Stage, tuple[Sequence[Gate], tuple[str, ...]]]


@dataclass(slots=True)
class Reader:
    """Reads snapshots, one at a time.

    designs      the rack as designed by its name; None where its file cannot be read, or is not there
    most_values  of gates of all nodes together: over it gates are left out whole, so that those left are of all nodes
    limit_s      see Snapshot.evidence_limit_s
    """

    ledger: Ledger
    designs: Callable[[str], Rack | None]
    clock: Callable[[], datetime]
    most_values: int
    limit_s: float | None = None
    _measured: dict[_Key, tuple[GateValue, ...]] = field(default_factory=dict)

    def snapshot(self) -> Snapshot:
        """What is on record now. Raises what the ledger raises: half a snapshot is none."""
        at, began = self.clock(), time.monotonic()
        names = self.ledger.racks()
        designs = {name: self.designs(name) for name in names}
        nodes = sum(len(rack.nodes) for rack in designs.values() if rack)
        chosen = {name: tuple(asked(rack)) for name, rack in designs.items() if rack}
        keep = self.most_values // nodes if nodes else 0
        known, self._measured = self._measured, {}
        racks = tuple(self._rack(name, designs[name], chosen.get(name, ())[:keep], known) for name in names)
        dropped = len({gate.code for gates in chosen.values() for gate in gates[keep:]})
        return Snapshot(at, time.monotonic() - began, racks, dropped, self.limit_s)

    def _rack(self, name: str, design: Rack | None, gates: Sequence[Gate], known: _Known) -> RackNow:
        ledger = self.ledger
        issued = ledger.events(name, kind=EventKind.CERTIFICATE_ISSUED, limit=_ALL)
        revoked = ledger.events(name, kind=EventKind.CERTIFICATE_REVOKED, limit=_ALL)
        newest = ledger.newest_runs(name)
        told = _Told(
            ledger.node_states(name),
            _by_node(newest),
            _by_node(_passes(ledger, name, newest)),
            _repairs(ledger, name),
            _certificates(issued, revoked),
        )
        by_stage = {stage: [gate for gate in gates if gate.stage == stage] for stage in Stage}
        asked_of = {stage: (of, tuple(map(_worded, of))) for stage, of in by_stage.items() if of}
        nodes = []
        first = {unit.name: first_state(unit) for unit in design.nodes} if design else {}
        for node in told.names(design):
            runs = told.runs.get(node, ())
            nodes.append(told.node(node, first.get(node, NodeState.PLANNED), self._values(node, runs, asked_of, known)))
        return RackNow(
            name,
            design is not None,
            tuple(nodes),
            tuple(_limit(gate) for gate in gates),
            ledger.run_totals(name),
            len(issued),
            sum(len(event.body.get("nodes") or ()) for event in revoked),
            tally(ledger, name),
        )

    def _values(self, node: str, runs: Iterable[Run], asked_of: _Asked, known: _Known) -> tuple[GateValue, ...]:
        """By the newest run of each gate's stage, once it has ended."""
        found: list[GateValue] = []
        for run in runs:
            if run.stage not in asked_of or run.outcome is None:
                continue
            gates, worded = asked_of[run.stage]
            key = (run.id, worded)
            values = known.get(key)
            self._measured[key] = tuple(self._read(node, run, gates)) if values is None else values
            found += self._measured[key]
        return tuple(found)

    def _read(self, node: str, run: Run, gates: Sequence[Gate]) -> Iterator[GateValue]:
        ledger = self.ledger
        spread = {(e.metric, e.unit): e for e in ledger.extremes(run.id, sorted({g.metric for g in gates}))}
        away: frozenset[str] = frozenset()
        if run.stage is Stage.BURNIN:
            paths = ledger.measured_by(run.id, PATHS)
            away = doubted({m.metric: m.value for m in paths if m.subject.node == node})
        for gate in gates:
            seen = spread.get((gate.metric, gate.unit))
            if seen is not None and gate.metric not in away:
                yield GateValue(gate.code, gate.metric, gate.unit, _worst(gate, seen.lowest, seen.highest))


def asked(rack: Rack) -> Iterator[Gate]:
    """The rack's gates whose values and limits are numbers to be shown, those first that tell most over time."""
    gates = [g for g in rack.profile.gates if g.required and g.scope not in WIDE and _is_number(g)]
    ranks = {unit: rank for rank, unit in enumerate(_FIRST_UNITS)}
    gates.sort(key=lambda gate: ranks.get(METRICS[gate.metric].unit, len(ranks)))
    yield from gates


def _is_number(gate: Gate) -> bool:
    """A floor, a ceiling or an exact number. A share below one's siblings is no number of the node's own."""
    if gate.operator not in (Operator.AT_LEAST, Operator.AT_MOST, Operator.EQUALS):
        return False
    metric = METRICS.get(gate.metric)
    unit = metric.unit if metric else None
    return unit is not None and not unit.is_text and unit not in _NO_DISTANCE and isinstance(gate.limit, int | float)


def _limit(gate: Gate) -> GateLimit:
    assert isinstance(gate.limit, int | float)  # noqa: S101 - `asked` leaves out all others
    return GateLimit(gate.code, gate.metric, gate.unit, gate.operator, float(gate.limit))


def _worst(gate: Gate, lowest: float, highest: float) -> float:
    """The number that decides the gate: of a floor the lowest, of a ceiling the highest, else the farther one."""
    if gate.operator is Operator.AT_LEAST:
        return lowest
    if gate.operator is Operator.AT_MOST:
        return highest
    limit = _limit(gate).limit
    return lowest if abs(lowest - limit) > abs(highest - limit) else highest


def _worded(gate: Gate) -> str:
    return f"{gate.code} {gate.metric} {gate.operator} {gate.limit}"


def _passes(ledger: Ledger, rack: str, newest: Iterable[Run]) -> Iterable[Run]:
    """The newest pass of every stage that measures. Mostly the newest run is one: then the ledger is not asked."""
    of_evidence = [run for run in newest if run.stage in EVIDENCE_STAGES]
    if all(run.outcome is Outcome.PASSED for run in of_evidence):
        return of_evidence
    return ledger.newest_runs(rack, Outcome.PASSED)


def _by_node(runs: Iterable[Run]) -> dict[str, tuple[Run, ...]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.node, []).append(run)
    return {node: tuple(of) for node, of in found.items()}


def _repairs(ledger: Ledger, rack: str) -> dict[str, int]:
    """The event of each node's last repair: what passed before it was of another machine."""
    what = f"{NodeState.QUARANTINED} {Move.REPAIR} {NodeState.PLANNED}"
    moves = ledger.events(rack, kind=EventKind.NODE_MOVED, limit=_ALL, what=what)
    return {event.node: event.id for event in moves}


def _certificates(issued: Iterable[Event], revoked: Iterable[Event]) -> dict[str, CertificateNow]:
    gone = revocations(event.body for event in revoked)
    newest: dict[str, tuple[str, CertificateNow | None]] = {}
    for event in issued:
        found = _certificate(event)
        newest |= {str(node): (event.what, found) for node in event.body.get("nodes") or ()}
    return {node: held for node, (digest, held) in newest.items() if held and (digest, node) not in gone}


def _certificate(event: Event) -> CertificateNow | None:
    try:
        expires = datetime.fromisoformat(str(event.body.get("expires", "")))
    except ValueError:
        return None
    return CertificateNow(event.at, expires) if expires.tzinfo else None


@dataclass(frozen=True, slots=True)
class _Told:
    """One rack's rows, by node."""

    states: Mapping[str, NodeRow]
    runs: Mapping[str, tuple[Run, ...]]
    passes: Mapping[str, tuple[Run, ...]]
    repairs: Mapping[str, int]
    certificates: Mapping[str, CertificateNow]

    def names(self, design: Rack | None) -> tuple[str, ...]:
        """As designed, then those on record that the rack file does not have any more."""
        planned = [node.name for node in design.nodes] if design else []
        others = sorted({*self.states, *self.runs} - {"", *planned})
        return (*planned, *others)

    def node(self, name: str, first: NodeState, values: tuple[GateValue, ...]) -> NodeNow:
        """All of one node."""
        row = self.states.get(name)
        repaired = self.repairs.get(name, 0)
        fresh = [run for run in self.passes.get(name, ()) if run.event > repaired and run.stage in EVIDENCE_STAGES]
        return NodeNow(
            name,
            row.state if row else first,
            row.since if row else None,
            self._code(name, row),
            self.certificates.get(name),
            self.runs.get(name, ()),
            {run.stage: run.finished for run in fresh if run.finished},
            values,
        )

    def _code(self, name: str, row: NodeRow | None) -> str:
        """As `status` has it, but for a run that goes on: that is no trouble yet."""
        runs = self.runs.get(name, ())
        last = runs[-1] if runs else None
        if row and set_aside(row, last):
            return OPERATOR
        if last is None or last.outcome in (None, Outcome.PASSED):
            return ""
        return last.code
