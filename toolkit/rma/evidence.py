"""What the ledger has of a failed node and of the part that is blamed. Read as it was recorded; no machine is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from toolkit.errors import UsageError
from toolkit.facts import kernel_events, nvidia_smi, xml_tree
from toolkit.facts.unreadable import UnreadableError
from toolkit.judge.evidence import Measurement
from toolkit.judge.lemons import Removal
from toolkit.judge.part import GpuSeat, NamedPart, named_parts
from toolkit.ledger import ArtifactError, Event, EventKind, Ledger, Run
from toolkit.rack.lifecycle import NodeState, Outcome, Stage
from toolkit.rack.model import Rack, Unit
from toolkit.report.lemons import removals_on_record
from toolkit.rma.certificates import Certified, certificates_of
from toolkit.stages import gpu_reset
from toolkit.stages.burnin_records import PIPELINE
from toolkit.stages.failure import FILED, Failure, end_of, failure_in, seats_before, verdict_of

_MOST_EVENTS = 100_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HEALTHY = (NodeState.TESTED, NodeState.CERTIFIED, NodeState.ADMITTED)
AROUND = (
    "hw_slowdown_ms_delta", "sw_thermal_ms_delta", "gpu_celsius_max", "hbm_celsius_max", "gpu_watts_max",
    "pcie_width_loaded", "pcie_generation_loaded", "pcie_replays_delta",
)  # fmt: skip
_FACTS = ("fact gpus", "fact kernel_log", "fact nvlink", "fact ibstat", "fact identity")


@dataclass(frozen=True, slots=True)
class Raw:
    """A raw output by its sha256, and what it is: `burn-in records`, `fact gpus`, ..."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class GpuRead:
    """What nvidia-smi last said of the GPU in question, before the failed run ended.

    numbers  part numbers and InfoROM version as printed, by the XML's own names; what is absent is not there
    """

    at: datetime
    artifact: str
    gpu: nvidia_smi.Gpu
    driver: str | None
    numbers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it. `until`: when the newest event of the node was recorded.

    parts     what is blamed; `seat`: the GPU among it, by index, where it is one
    findings  the verdict that failed, every finding of it that is no pass
    run       that failed; `burnin`: the one whose numbers it rests on
    control   the failing metrics on the node's other parts and on healthy neighbours
    around    power, cooling and host link of the blamed part during its burn-in
    rungs     what was tried: rungs of the ladder, and resets within a burn-in
    """

    rack: Rack
    node: Unit
    run: Run
    burnin: Run | None
    until: datetime
    failure: Failure
    parts: tuple[NamedPart, ...]
    seat: int | None
    seats: Mapping[int, GpuSeat]
    findings: tuple[Mapping[str, Any], ...]
    read: GpuRead | None
    xids: tuple[Mapping[str, Any], ...]
    log_doubt: str
    failing: tuple[Measurement, ...]
    control: tuple[Measurement, ...]
    around: tuple[Measurement, ...]
    neighbours: tuple[str, ...]
    rungs: tuple[Event, ...]
    removals: tuple[Removal, ...]
    elsewhere: tuple[Run, ...]
    certificates: tuple[Certified, ...]
    moves: tuple[Event, ...]
    raw: tuple[Raw, ...]

    @property
    def serials(self) -> tuple[str, ...]:
        """Of the blamed parts, as far as they are known."""
        return tuple(p.serial for p in self.parts if p.serial)


def gather(ledger: Ledger, rack: Rack, node: Unit, neighbours: int) -> Evidence:
    """The evidence of the node's last failure. UsageError where none is on record."""
    failed = [r for r in ledger.runs(rack.name, node.name) if r.outcome is Outcome.FAILED]
    if not failed:
        raise UsageError(
            f"{node.name} never failed on evidence: there is nothing to return a part for",
            f"rackproof why {node.name}",
        )
    run = failed[-1]
    failure, seats = failure_in(ledger, rack, node, run), seats_before(ledger, run)
    parts = named_parts(run.part)
    seat = failure.gpus[0] if len(failure.gpus) == 1 else None
    verdict = verdict_of(ledger, run)
    findings = tuple(verdict.body["findings"]) if verdict else ()
    burnin, kept = _burnin(ledger, run), _kept(ledger, run)
    metrics = {g.metric for g in rack.profile.gates if g.code in failure.codes}
    own = _measured(ledger, rack.name, node.name, (run, burnin), metrics)
    sound = tuple(_sound(ledger, rack, node, neighbours))
    logs = [raw.digest for raw in kept if raw.name in ("kernel_log.txt", "fact kernel_log")]
    logs += [str(f["artifact"]) for f in findings if str(f["code"]).startswith("XID") and f.get("artifact")]
    xids, doubt = _xids(ledger, dict.fromkeys(logs), seats.get(seat, GpuSeat()).pci if seat is not None else "")
    serials = {p.serial for p in parts if p.serial}
    story = ledger.story(rack.name, node.name, _MOST_EVENTS)
    rungs = tuple(e for e in story if e.what in (FILED, gpu_reset.WHAT) and e.kind == EventKind.OBSERVED)
    return Evidence(
        rack=rack, node=node, run=run, burnin=burnin, until=story[-1].at, failure=failure, parts=parts, seat=seat,
        seats=seats, findings=findings, read=_read(ledger, run, seat), xids=xids, log_doubt=doubt,
        failing=tuple(m for m in own if _is_blamed(m, seat)),
        control=(*(m for m in own if not _is_blamed(m, seat)), *_of_others(ledger, rack, sound, metrics)),
        around=tuple(
            m for m in _measured(ledger, rack.name, node.name, (burnin,), set(AROUND)) if _is_blamed(m, seat)
        ),
        neighbours=tuple(name for name, _ in sound),
        rungs=rungs,
        removals=tuple(r for r in removals_on_record(ledger).told if r.serial in serials),
        elsewhere=tuple(
            r for r in ledger.runs(rack.name)
            if r.outcome is Outcome.FAILED and r.code == run.code and r.node != node.name
        ),
        certificates=certificates_of(ledger, serials or {node.serial}),
        moves=tuple(e for e in story if e.kind in (EventKind.NODE_MOVED, EventKind.NODE_ENTERED)),
        raw=tuple(_raw(ledger, kept, findings, rungs)),
    )  # fmt: skip


def tried(event: Event) -> tuple[str, str]:
    """What was tried, and how it ended, in words."""
    told = event.body["details"]
    said = f": {told['said']}" if told.get("said") else ""
    if event.what == FILED:
        return str(told["rung"]), f"({told['means']}) {told['outcome']}{said}"
    return "gpu_reset", f"{'done' if told['done'] else 'not done'} within a burn-in{said}"


def _burnin(ledger: Ledger, run: Run) -> Run | None:
    """The burn-in that ended before the failed run did: the run itself, where it is one."""
    if run.stage is Stage.BURNIN:
        return run
    before = [r for r in ledger.runs(run.rack, run.node, Stage.BURNIN) if r.event < run.event and r.outcome]
    return before[-1] if before else None


def _kept(ledger: Ledger, run: Run) -> tuple[Raw, ...]:
    """Raw outputs of the node's last burn-in and last facts before the run's end."""
    ended = end_of(ledger, run)
    found: list[Raw] = []
    for what in (PIPELINE, *_FACTS):
        events = ledger.events(run.rack, run.node, EventKind.OBSERVED, limit=_MOST_EVENTS, what=what)
        before = [e for e in events if e.id < ended]
        if before and what == PIPELINE:
            kept = before[-1].body["details"].get("artifacts") or {}
            found += [Raw(str(name), str(digest)) for name, digest in sorted(kept.items())]
        elif before and before[-1].body.get("artifact"):
            found.append(Raw(what, str(before[-1].body["artifact"])))
    return tuple(raw for raw in found if _DIGEST.fullmatch(raw.digest))


def _raw(
    ledger: Ledger, kept: Sequence[Raw], findings: Sequence[Mapping[str, Any]], rungs: Sequence[Event]
) -> Iterator[Raw]:
    """Each digest once, under its first name."""
    seen: set[str] = set()
    named = [*kept, *(Raw(f"evidence of {f['code']}", str(f.get("artifact", ""))) for f in findings)]
    named += [Raw(f"after {tried(e)[0]}", str(e.body["details"].get("artifact", ""))) for e in rungs]
    for raw in named:
        if _DIGEST.fullmatch(raw.digest) and raw.digest not in seen and ledger.artifacts.path(raw.digest).exists():
            seen.add(raw.digest)
            yield raw


def _measured(
    ledger: Ledger, rack: str, node: str, runs: Sequence[Run | None], metrics: set[str]
) -> tuple[Measurement, ...]:
    ids = dict.fromkeys(r.id for r in runs if r is not None)
    return tuple(m for run in ids for m in ledger.measurements(rack, node, run) if m.metric in metrics)


def _is_blamed(measured: Measurement, seat: int | None) -> bool:
    """Whether it is of the GPU in question; all of the node's are, where it is none of them."""
    return seat is None or measured.subject.gpu in (seat, -1)


def _sound(ledger: Ledger, rack: Rack, node: Unit, most: int) -> Iterator[tuple[str, Run]]:
    """Other nodes that stand on a burn-in they passed, and that burn-in."""
    states = ledger.node_states(rack.name)
    found = 0
    for other in rack.nodes:
        if other.name == node.name or other.name not in states or states[other.name].state not in _HEALTHY:
            continue
        passed = [r for r in ledger.runs(rack.name, other.name, Stage.BURNIN) if r.outcome is Outcome.PASSED]
        if passed and found < most:
            found += 1
            yield other.name, passed[-1]


def _of_others(
    ledger: Ledger, rack: Rack, sound: Sequence[tuple[str, Run]], metrics: set[str]
) -> Iterator[Measurement]:
    for name, run in sound:
        yield from _measured(ledger, rack.name, name, (run,), metrics)


def _xids(
    ledger: Ledger, logs: Mapping[str, object] | dict[str, None], pci: str
) -> tuple[tuple[Mapping[str, Any], ...], str]:
    """Events of the kernel's logs on record, of this GPU or of all, and why that may not be all of them."""
    found: dict[str, Mapping[str, Any]] = {}
    doubts = [] if logs else ["no kernel log is on record"]
    for digest in logs:
        try:
            text = ledger.artifacts.get(digest).decode("utf-8", "replace")
        except ArtifactError as gone:
            doubts.append(gone.message)
            continue
        told = kernel_events.parse(text)
        doubts += told.doubts
        for event in told.events:
            if not pci or kernel_events.same_address(event.pci, pci) or event.pci is None:
                found.setdefault(str(event), event.as_json())
    return tuple(found.values()), "; ".join(dict.fromkeys(doubts))


def _read(ledger: Ledger, run: Run, seat: int | None) -> GpuRead | None:
    """The newest reading of the GPU that can be read; None where there is none, or the part is no single GPU."""
    events = ledger.events(run.rack, run.node, EventKind.OBSERVED, limit=_MOST_EVENTS, what="fact gpus")
    ended = end_of(ledger, run)
    for event in reversed([e for e in events if e.id < ended and not e.body.get("problem") and seat is not None]):
        try:
            text = ledger.artifacts.get(str(event.body["artifact"])).decode("utf-8", "replace")
            report = nvidia_smi.parse(text)
            numbers = _numbers(text, seat or 0)
        except (ArtifactError, UnreadableError):
            continue
        gpu = next((g for g in report.gpus if g.index == seat and not g.lost), None)
        if gpu is not None:
            at = datetime.fromisoformat(str(event.body["at"]))
            return GpuRead(at, str(event.body["artifact"]), gpu, report.driver, numbers)
    return None


def _numbers(text: str, seat: int) -> dict[str, str]:
    start = text.find("<nvidia_smi_log")
    log = xml_tree.parse(text[start : text.find("</nvidia_smi_log>") + len("</nvidia_smi_log>")])
    gpu = [c for c in log.children if c.tag == "gpu"][seat]
    names = ("board_part_number", "gpu_part_number", "inforom_version/img_version", "uuid", "product_name")
    return {name: word for name in names if (word := gpu.word(name))}
