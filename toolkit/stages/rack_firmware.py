"""Brings firmware to a rack's lock through its BMCs: never twice, whenever the one who does it is killed.

The intent is on record before a BMC is asked, the task's path as soon as it is known, what became of it at the end.
Whoever comes back reads first: the inventory, then the task on record, then what the BMC says is under way. Only where
all three say that nothing happened is it asked again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from toolkit.errors import EvidenceError, UndecidedError, UsageError
from toolkit.ledger import Event, EventKind, Ledger
from toolkit.rack.firmware_plan import FirmwareRow, Inventory, Standing, blocked_by, firmware_rows
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.model import Rack, Unit
from toolkit.redfish import BmcAnswerError, Wire
from toolkit.redfish.inventory import Component, read_inventory
from toolkit.redfish.sessions import dialogue
from toolkit.redfish.tasks import Task, TaskEnd, TaskPatience, all_tasks, follow
from toolkit.redfish.text import printable
from toolkit.redfish.update import push, simple_update, update_service
from toolkit.stages.bmc_reach import Reach

FIRMWARE = "firmware"  # the ledger's keys begin with it
AT_ONCE = 16
_SETTLE_POLLS = 3
_EVERYTHING = 100_000


class UpdateEnd(StrEnum):
    """How one component ended."""

    AS_LOCKED = "as locked"
    UPDATED = "updated"
    STAGED = "staged"  # taken, and in force after the next (AC) power cycle
    FAILED = "failed"
    UNKNOWN = "unknown"  # the BMC lost the task, or fell silent: nobody can tell what the flash holds
    BLOCKED = "blocked"
    REFUSED = "refused"  # by the BMC, with its words: the file is for something else, or it cannot now
    SILENT = "does not answer"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the firmware comes from: a file that is pushed, or a URI that BMCs fetch. One of the two."""

    file: Path | None = None
    uri: str = ""

    def digest(self) -> str:
        """sha256 of the file; of a URI nothing is known here, and it is empty."""
        if self.file is None:
            return ""
        with self.file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class UpdateDone:
    """One component of one unit, as it went."""

    unit: str
    component: str
    before: str
    locked: str
    end: UpdateEnd
    said: str = ""


@dataclass(frozen=True, slots=True)
class FirmwareDone:
    """What became of one component on a rack's units."""

    rack: str
    updates: tuple[UpdateDone, ...]

    @property
    def exit_code(self) -> int:
        """0 all as locked, updated or staged; 1 one failed; 3 nobody can tell of one, or it waits for another."""
        ends = {done.end for done in self.updates}
        if UpdateEnd.FAILED in ends:
            return EvidenceError.exit_code
        undecided = {UpdateEnd.UNKNOWN, UpdateEnd.BLOCKED, UpdateEnd.REFUSED, UpdateEnd.SILENT}
        return UndecidedError.exit_code if ends & undecided else 0


@dataclass(frozen=True, slots=True)
class Flashing:
    """Everything reached outside, and time. `again`: what is staged or unknown on record is asked for once more."""

    rack: Rack
    reach: Reach
    ledger: Ledger
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    progress: Callable[[str, str], None]
    patience: TaskPatience = field(default_factory=TaskPatience)
    again: bool = False
    at_once: int = 4


def read_rack(rack: Rack, reach: Reach, names: Iterable[str] | None = None) -> tuple[FirmwareRow, ...]:
    """Every locked component of every unit with a BMC, or of those named, against the lock."""
    kinds = {pin.kind for pin in rack.profile.bmc.firmware}
    wanted = None if names is None else set(names)
    units = [
        u for u in rack.units if u.bmc is not None and u.kind in kinds and (wanted is None or u.name in wanted)
    ]  # fmt: skip
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip((u.name for u in units), pool.map(lambda u: _inventory(reach, u), units), strict=True))
    return firmware_rows(rack, found)


def update(flashing: Flashing, component: str, source: Source, names: Iterable[str]) -> FirmwareDone:
    """Brings that component to the lock on the units named, at most `at_once` side by side.

    Raises UsageError, and nothing touched, where none of them locks it or one takes jobs.
    """
    chosen = tuple(names)
    _refuse_admitted(flashing, chosen)
    rows = read_rack(flashing.rack, flashing.reach)
    mine = [row for row in rows if row.component == component and row.unit in chosen]
    if not mine:
        known = ", ".join(sorted({row.component for row in rows})) or "nothing"
        raise UsageError(
            f"the lock of {flashing.rack.profile.name} has no {component} for {', '.join(chosen[:8])}",
            f"it has {known}; add it to `bmc: firmware:` of the profile, with its source",
        )
    digest = source.digest()
    with ThreadPoolExecutor(flashing.at_once) as pool:
        done = pool.map(lambda row: _one(flashing, rows, row, source, digest), mine)
        return FirmwareDone(flashing.rack.name, tuple(done))


def _refuse_admitted(flashing: Flashing, names: tuple[str, ...]) -> None:
    states = flashing.ledger.node_states(flashing.rack.name)
    live = [name for name in names if name in states and states[name].state is NodeState.ADMITTED]
    if live:
        raise UsageError(f"{', '.join(live[:8])} take jobs", f"rackproof drain {live[0]}, then the same command again")


def _one(
    flashing: Flashing, rows: tuple[FirmwareRow, ...], row: FirmwareRow, source: Source, digest: str
) -> UpdateDone:  # fmt: skip
    before = blocked_by(rows, row)
    if row.standing is Standing.UNREAD:
        return _done(row, UpdateEnd.SILENT, "its BMC was not read")
    if row.standing is Standing.NOT_THERE:
        return _done(row, UpdateEnd.UNKNOWN, "its BMC lists no such component")
    if row.standing is not Standing.AS_LOCKED and before is not None:
        return _done(row, UpdateEnd.BLOCKED, f"{before.unit} {before.component} {before.standing}: that comes first")
    unit = flashing.rack.unit(row.unit)
    try:
        wire = flashing.reach.wire(unit)
        with dialogue(wire, flashing.reach.sessions):
            return _Update(flashing, unit, wire, row).run(source, digest)
    except BmcAnswerError as refusal:
        return _done(row, UpdateEnd.REFUSED, printable(refusal.message, 300))
    except UndecidedError as problem:
        return _done(row, UpdateEnd.SILENT, printable(problem.message, 300))


def _done(row: FirmwareRow, end: UpdateEnd, said: str = "") -> UpdateDone:
    return UpdateDone(row.unit, row.component, row.found, row.locked, end, said)


@dataclass(frozen=True, slots=True)
class _Update:
    """One component of one unit, and its way into the ledger."""

    flashing: Flashing
    unit: Unit
    wire: Wire
    row: FirmwareRow

    @property
    def key(self) -> str:
        """Of intents and ends."""
        return f"{FIRMWARE} {self.row.component}"

    def run(self, source: Source, digest: str) -> UpdateDone:
        """Reads first; asks only where nothing is under way, staged or unknown."""
        begun, ended = self._last(EventKind.INTENT, self.key), self._last(EventKind.OBSERVED, self.key)
        is_open = begun is not None and (ended is None or ended.id < begun.id)
        ours = begun is not None and begun.body["details"].get("version") == self.row.locked
        if self._component().version == self.row.locked:
            return self._end(UpdateEnd.AS_LOCKED, "") if not is_open else self._end(UpdateEnd.UPDATED, "was cut off")
        if is_open and begun is not None:
            path = self._task_of(begun)
            if path:
                return self._follow(path)
            if self._component().version == self.row.locked:  # it ended between the two looks
                return self._end(UpdateEnd.UPDATED, "was cut off")
        elif ours and ended is not None and not self.flashing.again:
            told = self._standing(ended)
            if told is not None:
                return told
        return self._begin(source, digest)

    def _standing(self, ended: Event) -> UpdateDone | None:
        """What an earlier run left: nothing is asked for on top of it by itself."""
        end = ended.body["details"].get("end")
        if end == UpdateEnd.STAGED:
            return _done(self.row, UpdateEnd.STAGED, "taken before; power-cycle it. If that was done: --again")
        if end == UpdateEnd.UNKNOWN:
            return _done(self.row, UpdateEnd.UNKNOWN, "an earlier update ended unknown; power-cycle it, then --again")
        return None

    def _task_of(self, begun: Event) -> str:
        """The task of an update that was cut off: on record, else what the BMC says is under way; empty for none."""
        noted = self._last(EventKind.OBSERVED, f"{self.key} task")
        if noted is not None and noted.id > begun.id:
            return str(noted.body["details"]["task"])
        known = self._noted()
        strange = [task for task in all_tasks(self.wire) if task.path not in known]
        if len(strange) > 1:
            raise UndecidedError(
                f"{self.unit.name}: {len(strange)} tasks of its BMC are not on record, and one of them may be ours",
                "wait until they have ended and clear the BMC's tasks, then run the same command again",
            )
        return strange[0].path if strange else ""

    def _noted(self) -> frozenset[str]:
        """Paths of tasks that earlier updates of this unit have on record."""
        f = self.flashing
        events = f.ledger.events(f.rack.name, self.unit.name, kind=EventKind.OBSERVED, limit=_EVERYTHING)
        return frozenset(str(e.body["details"]["task"]) for e in events if "task" in e.body.get("details", {}))

    def _begin(self, source: Source, digest: str) -> UpdateDone:
        service = update_service(self.wire)
        target = self._component()
        self.flashing.ledger.intent(
            self.flashing.rack.name, self.unit.name, self.key,
            {"version": self.row.locked, "before": self.row.found, "sha256": digest, "uri": source.uri},
        )  # fmt: skip
        self.flashing.progress(self.unit.name, f"{self.row.component}: sending")
        if source.file is not None:
            path = push(self.wire, service, source.file, [target.path])
        else:
            path = simple_update(self.wire, service, source.uri, [target.path])
        return self._follow(path)

    def _follow(self, path: str) -> UpdateDone:
        f = self.flashing
        f.ledger.observed(f.rack.name, self.unit.name, f"{self.key} task", {"task": path})
        task = follow(self.wire, path, f.patience, f.clock, f.sleep, self._say)
        if task.end in (TaskEnd.LATE, TaskEnd.SILENT):
            return _done(self.row, UpdateEnd.UNKNOWN, f"{task.end}: {task.said}; the same command follows it further")
        if task.end is TaskEnd.FAILED:
            return self._end(UpdateEnd.FAILED, task.said)
        if self._took():
            return self._end(UpdateEnd.UPDATED, "")
        if task.end is TaskEnd.LOST:
            return self._end(UpdateEnd.UNKNOWN, "the BMC knows its task no more, and shows the old version")
        return self._end(UpdateEnd.STAGED, "in force after the next AC power cycle; run the same command after it")

    def _took(self) -> bool:
        """Whether the inventory shows the new version, which may take it a moment."""
        for poll in range(_SETTLE_POLLS):
            if poll:
                self.flashing.sleep(self.flashing.patience.poll_s)
            if self._component().version == self.row.locked:
                return True
        return False

    def _component(self) -> Component:
        found = {c.id: c for c in read_inventory(self.wire)}
        if self.row.component not in found:
            raise UndecidedError(f"{self.unit.name}: its BMC lists no {self.row.component} any more", "look at its log")
        return found[self.row.component]

    def _last(self, kind: EventKind, what: str) -> Event | None:
        return self.flashing.ledger.find(self.flashing.rack.name, self.unit.name, kind, what)

    def _say(self, task: Task) -> None:
        at = f" {task.percent} %" if task.percent is not None else ""
        self.flashing.progress(self.unit.name, f"{self.row.component}:{at} {task.said}".strip())

    def _end(self, end: UpdateEnd, said: str) -> UpdateDone:
        told: Mapping[str, Any] = {"end": end, "version": self.row.locked, "before": self.row.found, "said": said[:500]}
        if end is not UpdateEnd.AS_LOCKED:
            self.flashing.ledger.observed(self.flashing.rack.name, self.unit.name, self.key, told)
        return _done(self.row, end, said)


def _inventory(reach: Reach, unit: Unit) -> Inventory | None:
    try:
        return {component.id: component.version for component in read_inventory(reach.wire(unit))}
    except UndecidedError:
        return None
