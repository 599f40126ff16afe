"""What put a node aside, as the ledger has it, and which rungs of the ladder were tried for it and before it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.facts.kernel_events import rules_on
from toolkit.judge.ladder import BY_EVENTS, Cause, Rung, Tried
from toolkit.judge.part import BLAMELESS, GpuSeat, named_parts
from toolkit.judge.xids import Rule
from toolkit.ledger import ArtifactError, Event, EventKind, Ledger, Run
from toolkit.rack.lifecycle import NodeState, Outcome
from toolkit.rack.model import Rack, Unit
from toolkit.stages.burnin_records import PIPELINE

FILED = "recovery"  # the ledger's key of rungs: intent and what was seen after it
NOT_DONE = "not_done"  # proven: the rung was cut off before it touched anything
_MOST_EVENTS = 100_000
_GPU = re.compile(r"[^/]+/gpu(\d{1,3})(?:/|$)")
# ERRORs that a restart can end. They are no verdict on hardware: a rung for them counts for that failure alone.
_ERRORS = frozenset({"GPU_RESET_FAILED", "GPU_RESET_BY_HAND", "NODE_UNREACHABLE"})


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure of a node. `incident`: id of its run; `gpus`: those its causes name, sorted."""

    incident: str
    code: str
    part: str
    causes: tuple[Cause, ...]
    gpus: tuple[int, ...]

    @property
    def codes(self) -> list[str]:
        """Of the causes, each once."""
        return sorted({c.code for c in self.causes})

    @property
    def boards(self) -> list[str]:
        """Serials of the causes' boards, as far as they are known."""
        return sorted({c.board for c in self.causes if c.board})


def failure_of(ledger: Ledger, rack: Rack, node: Unit) -> Failure | None:
    """The failure that rungs are for: evidence that set the node aside, or an ERROR that a restart can end.

    None where the node's last word is neither: it passed, it is new, or an operator set it aside.
    """
    run = _failed_run(ledger, rack, node)
    return None if run is None else failure_in(ledger, rack, node, run)


def failure_in(ledger: Ledger, rack: Rack, node: Unit, run: Run) -> Failure:
    """The failure of that run."""
    seats = seats_before(ledger, run)
    found = tuple(_causes(ledger, rack, run, seats, node)) if run.outcome is Outcome.FAILED else ()
    causes = found or (Cause(run.code, node.name, _board(run, seats, None, node)),)
    gpus = {int(m[1]) for c in causes if (m := _GPU.match(c.subject))}
    gpus |= {int(p.place.split()[1]) for p in named_parts(run.part) if p.kind == "gpu"}
    return Failure(run.id, run.code, run.part, causes, tuple(sorted(gpus)))


def verdict_of(ledger: Ledger, run: Run) -> Event | None:
    """The last verdict with a failure that was recorded while the run was open."""
    told = ledger.events(run.rack, run.node, EventKind.JUDGED, after=run.event, limit=_MOST_EVENTS)
    ended = end_of(ledger, run)
    return next((e for e in reversed(told) if e.id < ended and any(_failed(f) for f in e.body["findings"])), None)


def end_of(ledger: Ledger, run: Run) -> int:
    """Id of the event that ended the run; past all ids where it is open."""
    ends = ledger.events(run.rack, run.node, EventKind.RUN_FINISHED, after=run.event, limit=_MOST_EVENTS)
    return next((e.id for e in ends if e.body["run"] == run.id), 1 << 62)


def seats_before(ledger: Ledger, run: Run) -> Mapping[int, GpuSeat]:
    """The GPUs of the node by its last burn-in before the run's end, before its load: a lost one says nothing."""
    events = ledger.events(run.rack, run.node, EventKind.OBSERVED, limit=_MOST_EVENTS, what=PIPELINE)
    ended = end_of(ledger, run)
    before = [e for e in events if e.id < ended and e.body["details"].get("gpus")]
    gpus = before[-1].body["details"]["gpus"] if before else {}
    return {int(gpu): GpuSeat(serial, pci) for gpu, (serial, pci) in gpus.items()}


def rungs_on_record(ledger: Ledger) -> tuple[Tried, ...]:
    """Every rung that was tried, on whichever rack: a board takes its history along."""
    events = ledger.events(kind=EventKind.OBSERVED, what=FILED, limit=_MOST_EVENTS)
    return tuple(_tried(e) for e in events if e.body["details"]["outcome"] != NOT_DONE)


def unfinished(ledger: Ledger, rack: str, node: str) -> Event | None:
    """The rung that was begun and of which nothing was seen since: whoever began it was killed."""
    intent = ledger.find(rack, node, EventKind.INTENT, FILED)
    seen = ledger.find(rack, node, EventKind.OBSERVED, FILED)
    return intent if intent is not None and (seen is None or seen.id < intent.id) else None


def _tried(event: Event) -> Tried:
    """One that was refused, or that was for an ERROR of ours, holds nothing against a board."""
    told = event.body["details"]
    codes = frozenset(told["codes"]) - _ERRORS if told["happened"] is not False else frozenset[str]()
    return Tried(Rung(told["rung"]), told["incident"], codes, frozenset(told["boards"]), event.at)


def _failed_run(ledger: Ledger, rack: Rack, node: Unit) -> Run | None:
    """The run that quarantined the node, else its last one if a restart can end its ERROR."""
    row = ledger.node_states(rack.name).get(node.name)
    if row is not None and row.state is NodeState.QUARANTINED:
        (moved,) = ledger.events(rack.name, node.name, after=row.event - 1, limit=1)
        by = str(moved.body.get("run", ""))
        return next((r for r in ledger.runs(rack.name, node.name) if r.id == by), None) if by else None
    last = ledger.last_run(rack.name, node.name)
    return last if last is not None and last.outcome is Outcome.ERROR and last.code in _ERRORS else None


def _causes(ledger: Ledger, rack: Rack, run: Run, seats: Mapping[int, GpuSeat], node: Unit) -> Iterator[Cause]:
    """The failed findings of the run's last verdict that speak of hardware, by the profile's gates."""
    verdict = verdict_of(ledger, run)
    blameless = {g.code for g in rack.profile.gates if g.part in BLAMELESS}
    for found in verdict.body["findings"] if verdict else ():
        if _failed(found) and found["code"] not in blameless:
            board = _board(run, seats, _GPU.match(found["subject"]), node)
            value = found["value"] if isinstance(found["value"], int | float | str) else None
            yield Cause(found["code"], found["subject"], board, value, _rules(ledger, rack, found, seats))


def _failed(found: Mapping[str, Any]) -> bool:
    return found["answer"] == "FAIL" and bool(found["required"])


def _board(run: Run, seats: Mapping[int, GpuSeat], gpu: re.Match[str] | None, node: Unit) -> str:
    """Serial of the GPU that the finding is of; of a finding on the whole node, of the one GPU its part names."""
    if gpu is not None:
        return seats.get(int(gpu[1]), GpuSeat()).serial
    gpus = [p.serial for p in named_parts(run.part) if p.kind == "gpu"]
    return gpus[0] if len(gpus) == 1 else node.serial


def _rules(ledger: Ledger, rack: Rack, found: Mapping[str, Any], seats: Mapping[int, GpuSeat]) -> tuple[Rule, ...]:
    """What the kernel's log asks for, where the finding counts its events; nothing where the log is not to be had."""
    gpu, origin = _GPU.match(found["subject"]), str(found.get("artifact", ""))
    if found["code"] not in BY_EVENTS or gpu is None or not origin:
        return ()
    pci = seats.get(int(gpu[1]), GpuSeat()).pci
    try:
        text = ledger.artifacts.get(origin).decode("utf-8", "replace")
    except ArtifactError:
        return ()
    return rules_on(text, pci, dict(rack.profile.expected).get("driver_version")) if pci else ()
