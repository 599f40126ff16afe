"""What a node's burn-in wrote, taken in: whole lines only, the last attempt only, each number with its subject."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from burnin.record import (
    MAX_LINE_BYTES,
    Artifact,
    End,
    Measured,
    Outcome,
    Record,
    RecordError,
    Start,
    WorkloadEnded,
    attempts,
    load,
)
from toolkit.errors import UndecidedError
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.part import GpuSeat
from toolkit.ledger import EventKind, Run
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Move
from toolkit.rack.model import Unit
from toolkit.stages.context import Context

MAX_ARTIFACTS = 256
PIPELINE: Final = "burnin"  # the ledger's key of the stage's own burn-ins; an operator's have others
KERNEL_LOG = "kernel_log"  # the workload that keeps the kernel's log as an artifact


@dataclass(slots=True)
class Followed:
    """What the node wrote so far. A last line without its end may be cut off and written anew: it is not taken."""

    raw: bytearray = field(default_factory=bytearray)
    records: list[Record] = field(default_factory=list)

    def take(self, more: bytes) -> list[Record]:
        """New records of the whole lines in `more`. Raises RecordError on anything that is not one."""
        whole = more[: more.rfind(b"\n") + 1]
        if not whole and len(more) > MAX_LINE_BYTES:
            raise RecordError(f"line over {MAX_LINE_BYTES} bytes")
        self.raw += whole
        fresh = list(load(whole.decode("ascii", "replace").split("\n")))
        self.records += fresh
        return fresh

    @property
    def last(self) -> list[Record]:
        """Records of the last attempt: one that was cut measured what counts no more."""
        found = attempts(self.records)
        return found[-1] if found else []

    @property
    def end(self) -> End | None:
        """The end record of the last attempt, if it came."""
        return next((r for r in reversed(self.last) if isinstance(r, End)), None)

    @property
    def runs(self) -> set[str]:
        """Ids of the runs the records say they are of."""
        return {r.run for r in self.last if isinstance(r, Start)}

    @property
    def missing(self) -> tuple[str, ...]:
        """Workloads that were planned and did not end; `nothing planned` where there was no plan."""
        if self.end is None or not self.end.planned:
            return ("nothing planned",)
        return tuple(w for w in self.end.planned if w not in self.end.ended)

    @property
    def cells(self) -> tuple[str, ...]:
        """Workloads that came to an end on every GPU that was found, however they ended: what a cut run leaves."""
        gpus = {g.index for r in self.last if isinstance(r, Start) for g in r.gpus}
        ends: dict[str, set[int | None]] = {}
        for record in self.last:
            if isinstance(record, WorkloadEnded):
                ends.setdefault(record.workload, set()).add(record.gpu)
        return tuple(name for name, told in ends.items() if None in told or (gpus and told >= gpus))

    @property
    def poor(self) -> str:
        """Workloads that ended otherwise than well, in words."""
        ends = [r for r in self.last if isinstance(r, WorkloadEnded) and r.outcome is not Outcome.COMPLETED]
        return "; ".join(f"{r.workload}{'' if r.gpu is None else f' gpu{r.gpu}'} {r.outcome.value}" for r in ends[:8])

    @property
    def artifacts(self) -> list[Artifact]:
        """Raw outputs the node kept; each name once, the newest."""
        return list({r.name: r for r in self.last if isinstance(r, Artifact)}.values())[:MAX_ARTIFACTS]

    @property
    def seats(self) -> dict[int, GpuSeat]:
        """The GPUs that were found before the load, by index."""
        starts = [r for r in self.last if isinstance(r, Start)]
        return {g.index: GpuSeat(g.serial, g.pci) for start in starts for g in start.gpus}

    @property
    def log_is_whole(self) -> bool:
        """Whether the kernel's log was read from the beginning of the load to its end."""
        ends = [r for r in self.last if isinstance(r, WorkloadEnded) and r.workload == KERNEL_LOG]
        return any(r.outcome is Outcome.COMPLETED for r in ends)


def measurements_of(node: Unit, run: str, origin: str, records: Iterable[Record]) -> Iterator[Measurement]:
    """Every number with its subject. UndecidedError for a time that is none."""
    for record in records:
        if isinstance(record, Measured):
            subject = _subject(node, record)
            yield Measurement(record.metric, record.unit, record.value, subject, _when(node, record), run, origin)


def seats_on_record(context: Context, node: Unit) -> dict[int, GpuSeat]:
    """The GPUs the node's last burn-in found before its load: a GPU that is lost since says nothing any more."""
    event = context.ledger.find(context.rack.name, node.name, EventKind.OBSERVED, PIPELINE)
    gpus = event.body["details"]["gpus"] if event else {}
    return {int(gpu): GpuSeat(serial, pci) for gpu, (serial, pci) in gpus.items()}


def last_burnin(context: Context, node: Unit) -> Run | None:
    """The burn-in that made the node TESTED last, in the suite that its profile asks for; an operator's own counts for
    nothing here, and one from before a repair proves nothing.
    """
    rack = context.rack.name
    moves = context.ledger.events(rack, node.name, kind=EventKind.NODE_MOVED, limit=100_000)
    since = [e for e in moves if e.body["move"] in (Move.TEST, Move.REPAIR)]
    if not since or since[-1].body["move"] == Move.REPAIR:
        return None
    return next((r for r in context.ledger.runs(rack, node.name) if r.id == since[-1].body["run"]), None)


# A safety stop names its GPUs and why: "gpu 3: GPU at 93 celsius, its limit is 92 in 3 samples; gpu 5: Xid 79: ..."
_STOPPED = re.compile(r"gpu (\d{1,3}): (.*?)(?=; gpu \d|$)")


def overheated(measurements: Sequence[Measurement], gpus: Iterable[int]) -> dict[int, int]:
    """1 for each GPU whose load was taken off for its temperature, else 0; empty where nobody watched.

    A stop for an Xid is the Xid's: its own gate speaks of it.
    """
    words = [str(m.value) for m in measurements if m.metric == "safety_stop"]
    hot = {int(f[1]) for word in words for f in _STOPPED.finditer(word) if "Xid" not in f[2]}
    return {gpu: int(gpu in hot) for gpu in gpus} if words else {}


def _when(node: Unit, record: Measured) -> datetime:
    try:
        at = datetime.fromisoformat(record.at)
    except ValueError as problem:
        raise UndecidedError(
            f"burn-in record of {node.name}: {problem}", "look at the records on the node"
        ) from problem
    if at.tzinfo is None:
        raise UndecidedError(f"burn-in record of {node.name}: {record.at} has no time zone", "look at the records")
    return at


def _subject(node: Unit, record: Measured) -> Subject:
    if record.gpu is None:
        return Subject(Scope.NODE, node.name)
    if record.link is None:
        return Subject(Scope.GPU, node.name, gpu=record.gpu)
    return Subject(Scope.LINK, node.name, gpu=record.gpu, link=record.link)
