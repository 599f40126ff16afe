"""A rack's page: who drives it, its elevation, a row a node, what stands against them, what happened last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from toolkit.ledger import EventKind, Lease, Run
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.model import Unit
from toolkit.report.eta import usual_times
from toolkit.report.html.findings import findings_of
from toolkit.report.html.values import FindingRow
from toolkit.report.progress import Line
from toolkit.serve.activity import Happened, happened
from toolkit.serve.board import Node, Summary
from toolkit.serve.seats import BURNIN, gpus_of, names
from toolkit.serve.site import Site

# What a reader of a rack wants to see pass by; what was read and measured stands on the nodes' pages.
TOLD = frozenset(
    {
        EventKind.PLAN_STORED, EventKind.RUN_STARTED, EventKind.RUN_FINISHED, EventKind.NODE_ENTERED,
        EventKind.NODE_MOVED, EventKind.CERTIFICATE_ISSUED, EventKind.CERTIFICATE_REVOKED, EventKind.ADMISSION,
        EventKind.LEASE_TAKEN, EventKind.LEASE_RELEASED, EventKind.NOTE,
    }
)  # fmt: skip
_HAPPENED = 24
MAX_GPU_LINES = 16
MAX_FINDINGS = 40


@dataclass(frozen=True, slots=True)
class GpuCell:
    """A GPU in a node's row. `blamed`: the node's last word names its serial."""

    index: int
    serial: str
    blamed: bool


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node. `said`: its newest word of the run that goes on; `gpus_said`: those of its GPUs."""

    node: Node
    unit: Unit | None
    last: Run | None
    gpus: tuple[GpuCell, ...]
    said: Line | None
    gpus_said: tuple[Line, ...]

    @property
    def done(self) -> float | None:
        """How much of its stage is done, where anybody says: the node itself, or its GPUs together."""
        if self.said is not None and self.said.done is not None:
            return self.said.done
        told = [line.done for line in self.gpus_said if line.done is not None]
        return sum(told) / max(len(told), len(self.gpus)) if told else None


@dataclass(frozen=True, slots=True)
class Slot:
    """A line of the elevation: a unit (with its node, if it is one), or what is empty above it."""

    slot: int
    unit: Unit | None
    row: NodeRow | None
    empty: str = ""


@dataclass(frozen=True, slots=True)
class StageNow:
    """A stage that goes on: of how many nodes it has ended since its first began, and on how many it still runs.

    left  how long it may still take by earlier runs, in words
    """

    stage: Stage
    began: datetime
    ended: int
    running: int
    left: str = ""


@dataclass(frozen=True, slots=True)
class RackPage:
    """All of it. `told_here`: whether the driver's progress can be read on this machine."""

    rack: Summary
    slots: tuple[Slot, ...]
    rows: tuple[NodeRow, ...]
    stages: tuple[StageNow, ...]
    told_here: bool
    findings: tuple[FindingRow, ...]
    more_findings: int
    happened: tuple[Happened, ...]


def rack_page(site: Site, rack: Summary) -> RackPage:
    """The rack as the ledger has it now."""
    ledger = site.ledger
    newest = ledger.newest_runs(rack.name)
    last = {run.node: run for run in newest}
    progress = site.progress(rack.name, rack.driver)
    said: dict[str, list[Line]] = {}
    for line in progress.lines if progress else ():
        said.setdefault(line.node, []).append(line)
    units = {unit.name: unit for unit in rack.design.nodes} if rack.design else {}
    rows = tuple(
        _row(site, rack, node, units.get(node.name), last.get(node.name), said.get(node.name, ()))
        for node in sorted(rack.nodes, key=lambda node: (not node.failed, not node.doubtful))
    )
    findings = findings_of(ledger, rack.design, [n.stood for n in rack.nodes if n.code]) if rack.design else ()
    blamed = [row for row in findings if row.blamed]
    events = ledger.recent(TOLD, rack=rack.name, limit=_HAPPENED)
    return RackPage(
        rack, _slots(rack, rows), rows, _with_left(site, rack, stages_now(newest, rack.driver)), progress is not None,
        tuple(blamed[:MAX_FINDINGS]), len(findings) - min(len(blamed), MAX_FINDINGS),
        tuple(happened(event) for event in reversed(events)),
    )  # fmt: skip


def _row(
    site: Site, rack: Summary, node: Node, unit: Unit | None, last: Run | None, said: Sequence[Line]
) -> NodeRow:  # fmt: skip
    now = [line for line in said if node.running and line.stage == node.running and last and line.at >= last.started]
    gpus = tuple(line for line in now if line.gpu is not None)
    return NodeRow(
        node, unit, last, gpu_cells(site, rack, node, unit),
        next((line for line in now if line.gpu is None), None), gpus[:MAX_GPU_LINES],
    )  # fmt: skip


def gpu_cells(site: Site, rack: Summary, node: Node, unit: Unit | None) -> tuple[GpuCell, ...]:
    """The node's GPUs as its last burn-in found them; else as they were designed, with the serials that are known."""
    event = site.ledger.find(rack.name, node.name, EventKind.OBSERVED, BURNIN)
    found = {gpu: serial for gpu, serial, _ in gpus_of(event)} if event else {}
    if unit and rack.design:
        designed = {} if found else {gpu.index: gpu.serial or "" for gpu in unit.gpus}
        found = {index: designed.get(index, "") for index in range(rack.design.profile.gpus_per_node)} | found
    part = node.stood.part if node.code else ""
    return tuple(GpuCell(i, serial, bool(serial) and names(part, serial)) for i, serial in sorted(found.items()))


def _slots(rack: Summary, rows: Iterable[NodeRow]) -> tuple[Slot, ...]:
    """The highest slot on top; slots without a unit are one line."""
    if rack.design is None:
        return ()
    of = {row.node.name: row for row in rows}
    found: list[Slot] = []
    above: int | None = None
    for unit in sorted(rack.design.units, key=lambda unit: -unit.slot):
        if above is not None and above - unit.slot > 1:
            few = above - unit.slot == 2
            empty = f"slot {above - 1}" if few else f"slots {unit.slot + 1} to {above - 1}"
            found.append(Slot(above - 1, None, None, f"{empty}: nothing is planned"))
        found.append(Slot(unit.slot, unit, of.get(unit.name)))
        above = unit.slot
    return tuple(found)


def stages_now(newest: Iterable[Run], driver: Lease | None) -> tuple[StageNow, ...]:
    """Stages that some node is in now, where somebody drives the rack."""
    if driver is None:
        return ()
    by_stage: dict[Stage, list[Run]] = {}
    for run in newest:
        by_stage.setdefault(run.stage, []).append(run)
    found = []
    for stage, runs in by_stage.items():
        going = [run for run in runs if run.outcome is None]
        if going:
            began = min(run.started for run in going)
            ended = [run for run in runs if isinstance(run.outcome, Outcome) and run.started >= began]
            found.append(StageNow(stage, began, len(ended), len(going)))
    return tuple(found)


def _with_left(site: Site, rack: Summary, stages: tuple[StageNow, ...]) -> tuple[StageNow, ...]:
    """With how long earlier runs took that passed, on racks of the same profile."""
    design, now = rack.design, site.clock()
    if design is None or not stages:
        return stages
    others = (site.designs.rack(name) for name in site.designs.names())
    alike = [other.name for other in others if other and other.profile.name == design.profile.name]
    took = usual_times(site.ledger, design, alike, design.profile.suite, [one.stage for one in stages])
    return tuple(
        replace(one, left=took[one.stage].left((now - one.began).total_seconds()) if one.stage in took else "")
        for one in stages
    )  # fmt: skip
