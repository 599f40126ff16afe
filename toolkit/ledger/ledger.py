"""The ledger: one object that records what happened and answers what is known."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from toolkit.errors import RackproofError
from toolkit.judge.evidence import Measurement
from toolkit.ledger import events, holder, leases, nodes, runs
from toolkit.ledger.artifacts import Artifacts
from toolkit.ledger.errors import ArtifactError
from toolkit.ledger.events import Stamp
from toolkit.ledger.migrations import migrate, require_newest, shipped
from toolkit.ledger.records import (
    KEPT_KINDS,
    Body,
    Change,
    Event,
    EventKind,
    Extremes,
    Lease,
    NewEvent,
    NodeRow,
    Run,
)
from toolkit.ledger.store import Session, Store
from toolkit.ledger.url import dialect_of
from toolkit.rack.lifecycle import Moved, NodeState, Outcome, Stage


class Ledger:
    """Evidence and state of every rack of an installation.

    Every method that records is one transaction: all of it is kept, or nothing. Safe for threads; a process
    that forks opens the ledger in the child. Raises LedgerError, LedgerFullError and BusyError from any method.
    """

    def __init__(self, store: Store, artifacts: Artifacts, actor: str, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._artifacts = artifacts
        self._actor = actor
        self._clock = clock
        self._lease: Lease | None = None

    @classmethod
    def open(cls, url: str, artifacts: Path, actor: str, clock: Callable[[], datetime]) -> Self:
        """Opens the ledger, making it or bringing its tables up to date first.

        url       `sqlite:///ABSOLUTE/PATH` or `postgresql://...`
        artifacts folder of the raw evidence
        actor     who is written into every event
        clock     answers the time, with a zone
        Raises UsageError for a wrong URL and for a ledger made by a newer version.
        """
        dialect = dialect_of(url)
        store = Store(dialect)
        try:
            migrate(store, shipped(dialect.name), clock())
        except BaseException:
            store.close()
            raise
        return cls(store, Artifacts(artifacts), actor, clock)

    @classmethod
    def open_to_read(cls, url: str, artifacts: Path, clock: Callable[[], datetime]) -> Self:
        """Opens a ledger that is there and up to date; its connections can change nothing, nor is a file made.

        Raises LedgerError where there is none, UsageError for a wrong URL and for tables of another version.
        """
        dialect = dialect_of(url, read_only=True)
        store = Store(dialect)
        try:
            require_newest(store, shipped(dialect.name))
        except BaseException:
            store.close()
            raise
        return cls(store, Artifacts(artifacts), "reader", clock)

    def close(self) -> None:
        """Closes the connections; views made by `under` are closed with it."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def artifacts(self) -> Artifacts:
        """The raw evidence."""
        return self._artifacts

    def under(self, lease: Lease) -> Self:
        """The same ledger, whose every write carries the lease's token and is refused once the lease is lost."""
        view = copy.copy(self)
        view._lease = lease
        return view

    @contextmanager
    def _write(self) -> Iterator[tuple[Session, Stamp]]:
        with self._store.write() as session:
            if self._lease is not None:
                leases.check(session, self._lease)
            token = None if self._lease is None else self._lease.token
            yield session, Stamp(self._clock(), self._actor, token)

    # Events

    def append(self, new: NewEvent) -> Event:
        """Records one event."""
        return self.append_all([new])[0]

    def append_all(self, new: Sequence[NewEvent]) -> tuple[Event, ...]:
        """Records events in order, in one transaction."""
        for event in new:
            if event.kind in KEPT_KINDS:
                raise RackproofError(f"an event of kind '{event.kind}' is recorded by its own method, not appended")
        with self._write() as (session, stamp):
            return events.append(session, stamp, new)

    def events(
        self,
        rack: str | None = None,
        node: str | None = None,
        kind: EventKind | None = None,
        after: int = 0,
        limit: int = 1000,
        what: str | None = None,
    ) -> tuple[Event, ...]:
        """Events with an id over `after`, oldest first, at most `limit`."""
        with self._store.read() as session:
            return events.select(session, rack=rack, node=node, kind=kind, what=what, after=after, limit=limit)

    def last_event(self) -> int:
        """The id of the newest event; 0 where there is none."""
        with self._store.read() as session:
            return events.last(session)

    def story(self, rack: str, node: str, limit: int = 1000) -> tuple[Event, ...]:
        """The newest events of a node, oldest of them first."""
        with self._store.read() as session:
            return events.story(session, rack, node, limit)

    def recent(
        self, kinds: Collection[EventKind], rack: str | None = None, node: str | None = None, limit: int = 100
    ) -> tuple[Event, ...]:
        """The newest events of these kinds, oldest of them first."""
        with self._store.read() as session:
            return events.recent(session, kinds, rack, node, limit)

    def find(self, rack: str, node: str, kind: EventKind, what: str) -> Event | None:
        """The newest event of that kind and key."""
        with self._store.read() as session:
            return events.newest(session, rack, node, kind, what)

    def intent(self, rack: str, node: str, what: str, details: Body) -> Event:
        """Records that something outside is about to be changed: before the act, so that a retry knows."""
        return self.append(NewEvent(EventKind.INTENT, rack, node, {"what": what, "details": details}, what))

    def observed(self, rack: str, node: str, what: str, details: Body) -> Event:
        """Records what was seen after an act, or instead of one."""
        return self.append(NewEvent(EventKind.OBSERVED, rack, node, {"what": what, "details": details}, what))

    def store_plan(self, rack: str, digest: str, plan_json: str) -> Event:
        """Keeps a plan under its digest; storing the same again answers the first event."""
        artifact = self._artifacts.put(plan_json.encode())
        with self._write() as (session, stamp):
            known = events.newest(session, rack, "", EventKind.PLAN_STORED, digest)
            if known is not None and known.body.get("artifact") == artifact:
                return known
            body = {"digest": digest, "artifact": artifact}
            return events.append(session, stamp, [NewEvent(EventKind.PLAN_STORED, rack, "", body, digest)])[0]

    def plan(self, rack: str, digest: str) -> str:
        """The JSON of a stored plan. Raises ArtifactError if there is none."""
        event = self.find(rack, "", EventKind.PLAN_STORED, digest)
        if event is None:
            raise ArtifactError(f"the ledger has no plan {digest} of {rack}", "see rackproof plan, then bringup")
        return self._artifacts.get(str(event.body["artifact"])).decode()

    def store_artifact(self, rack: str, node: str, what: str, source: bytes | Path) -> str:
        """Keeps raw evidence and records that it is there; answers its sha256."""
        digest = self._artifacts.put(source)
        size = self._artifacts.path(digest).stat().st_size
        body = {"sha256": digest, "bytes": size}
        self.append(NewEvent(EventKind.ARTIFACT_STORED, rack, node, body, what))
        return digest

    # Nodes

    def racks(self) -> tuple[str, ...]:
        """Racks that have a node or a run on record, sorted."""
        with self._store.read() as session:
            return nodes.racks(session)

    def node_states(self, rack: str) -> dict[str, NodeRow]:
        """Where the rack's nodes rest. A node that is not in it is PLANNED."""
        with self._store.read() as session:
            return nodes.states(session, rack)

    def history(self, rack: str, node: str) -> tuple[Moved, ...]:
        """Every move the node made, oldest first."""
        with self._store.read() as session:
            return nodes.history(session, rack, node)

    def enter(self, rack: str, states: Mapping[str, NodeState], reason: str) -> None:
        """Gives nodes their first state (a rented node enters at IMAGED). Raises StaleMoveError."""
        with self._write() as (session, stamp):
            nodes.enter(session, stamp, rack, states, reason)

    def move(self, rack: str, node: str, change: Change, reason: str) -> NodeRow:
        """Moves a node outside of a run: the operator's quarantine, a repair, a lapse.

        Raises StaleMoveError if the node is no longer in `change.before`, IllegalMoveError for a move that
        the lifecycle does not have.
        """
        with self._write() as (session, stamp):
            return nodes.move(session, stamp, rack, node, change, reason=reason, run="")

    # Runs

    def start_run(self, rack: str, node: str, stage: Stage) -> Run:
        """Opens the next attempt of a stage on a node; `node` is empty for the whole rack."""
        with self._write() as (session, stamp):
            return runs.start(session, stamp, rack, node, stage)

    def finish_run(
        self,
        run: Run,
        outcome: Outcome,
        *,
        code: str = "",
        part: str = "",
        message: str = "",
        next: str = "",
        change: Change | None = None,
    ) -> Run:
        """Closes a run and, with `change`, moves its node in the same transaction.

        Raises StaleMoveError if the run is closed already or the node is no longer in `change.before`.
        """
        with self._write() as (session, stamp):
            ended = replace(run, finished=stamp.at, outcome=outcome, code=code, part=part, message=message, next=next)
            runs.finish(session, stamp, ended)
            if change is not None:
                nodes.move(session, stamp, run.rack, run.node, change, reason=code or outcome.value, run=run.id)
        return ended

    def runs(self, rack: str, node: str | None = None, stage: Stage | None = None) -> tuple[Run, ...]:
        """Runs in the order they were started."""
        with self._store.read() as session:
            return runs.select(session, rack, node, stage)

    def last_run(self, rack: str, node: str, stage: Stage | None = None) -> Run | None:
        """The run of a node (and stage) that was started last."""
        with self._store.read() as session:
            found = runs.select(session, rack, node, stage, newest_only=True)
        return found[0] if found else None

    def newest_runs(self, rack: str, outcome: Outcome | None = None) -> tuple[Run, ...]:
        """The newest run of every node and stage, or the newest that ended so; in the order they were started."""
        with self._store.read() as session:
            return runs.newest(session, rack, outcome)

    def newest_passes(self, racks: Sequence[str], stage: Stage, limit: int) -> tuple[Run, ...]:
        """The newest passes of a stage on these racks, newest first, at most `limit`."""
        with self._store.read() as session:
            return runs.newest_passes(session, racks, stage, limit)

    def run_totals(self, rack: str) -> dict[tuple[Stage, Outcome], int]:
        """How many runs of each stage ended each way; what never happened is left out."""
        with self._store.read() as session:
            return runs.totals(session, rack)

    def extremes(self, run: str, metrics: Sequence[str]) -> tuple[Extremes, ...]:
        """The lowest and the highest number of each of these metrics that a run measured; words are passed over."""
        with self._store.read() as session:
            return runs.extremes(session, run, metrics)

    def record_measurements(self, run: Run, measurements: Sequence[Measurement]) -> None:
        """Records what a run measured. Each measurement's `run` is the run's id, and each number is finite."""
        with self._write() as (session, stamp):
            runs.record(session, stamp, run, measurements)

    def measurements(
        self, rack: str, node: str | None = None, run: str | None = None, metric: str | None = None
    ) -> tuple[Measurement, ...]:
        """Measurements in the order they were recorded; `node` is the subject's."""
        with self._store.read() as session:
            return runs.measured(session, rack, node, run, metric)

    def measured_by(self, run: str, metrics: Sequence[str]) -> tuple[Measurement, ...]:
        """What a run measured of these metrics, in the order it was recorded."""
        with self._store.read() as session:
            return runs.measured_by(session, run, metrics)

    def newest_measurements(self, rack: str, node: str, metrics: Sequence[str]) -> tuple[Measurement, ...]:
        """Of each of these metrics and each part of the node (of the rack, where it is empty) the one recorded last."""
        with self._store.read() as session:
            return runs.newest_measured(session, rack, node, metrics)

    # Leases

    def acquire(
        self, name: str, holder_name: str, ttl: timedelta, gone: Callable[[str], bool] = holder.is_gone
    ) -> Lease:
        """Takes a lease that is free, expired, given back, or whose holder is `gone`.

        Raises BusyError that names the holder and the expiry. Name the holder by `holder.this_process()`.
        """
        with self._store.write() as session:
            stamp = Stamp(self._clock(), self._actor, None)
            return leases.acquire(session, stamp, name, holder=holder_name, ttl=ttl, gone=gone)

    def leases(self) -> tuple[Lease, ...]:
        """Leases that were not given back, by name; one may have expired, or its holder be gone."""
        with self._store.read() as session:
            return leases.held(session)

    def renew(self, lease: Lease, ttl: timedelta) -> Lease:
        """The same lease with a later end. Raises LeaseLostError."""
        with self._store.write() as session:
            return leases.renew(session, Stamp(self._clock(), self._actor, lease.token), lease, ttl)

    def release(self, lease: Lease) -> None:
        """Gives a lease back. Raises LeaseLostError."""
        with self._store.write() as session:
            leases.release(session, Stamp(self._clock(), self._actor, lease.token), lease)
