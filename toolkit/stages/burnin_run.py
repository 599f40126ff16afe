"""A run of the burn-in's program on a node: started detached, followed by its records, its outputs fetched.

It belongs to the node, and to the carrier that took it there (systemd over SSH, a Kubernetes Job, a Slurm job): a
controller that was killed finds it again by its id and neither starts a second one nor loses the first. What it
measured is for `burnin` and `peers` to take, the same whoever brought it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from burnin.record import Artifact, Progress, Record, RecordError
from toolkit.errors import UndecidedError, UnreachableError
from toolkit.judge.believed import believed
from toolkit.judge.evidence import Measurement
from toolkit.ledger import EventKind, Run
from toolkit.rack.again import AGAIN_SECONDS, Again
from toolkit.rack.lifecycle import Stage
from toolkit.rack.model import Suite, Unit
from toolkit.rack.power import Begin
from toolkit.runners.carrier import RECORDS, Carrier, Task
from toolkit.stages import context as ctx
from toolkit.stages.burnin_collectives import measured, ways
from toolkit.stages.burnin_records import PIPELINE, Followed, measurements_of
from toolkit.stages.context import Context

CHUNK_BYTES = 1024 * 1024
MAX_RECORDS_BYTES = 64 * 1024 * 1024
MAX_ARTIFACT_BYTES = 64 * 1024 * 1024
# How long a suite may take before we stop waiting: about three times what it plans, for a slow node is still a node.
SUITE_SECONDS: Mapping[Suite | Again, float] = {
    Suite.REHEARSAL: 1500.0, Suite.QUICK: 900.0, Suite.STANDARD: 3600.0, Suite.LONG: 4 * 3600.0,
    **dict.fromkeys(Again, AGAIN_SECONDS),
}  # fmt: skip
_DIGEST_LENGTH = 64  # of a sha256 in hexadecimal
SILENT_POLLS = 10  # a unit that is gone this many polls without an end record will not write one any more
NEARLY = 0.99  # a workload that is done is not yet the stage's end, which is what 1.0 means to a watcher


# Between two questions who wants a node that is being burnt in: a job that waits shall not wait for a suite.
WANTED_SECONDS = 2.0
STOPPED_SECONDS = 20.0  # to its proof: SIGTERM, two seconds, SIGKILL, and what the node takes to say so

Wanted = Callable[[str], str | None]
"""Who has a use for the node of that name, in words; None: nobody. UndecidedError where nobody can tell now."""


class YieldedError(UndecidedError):
    """Somebody wants the node: its burn-in was stopped, and what had ended of it is on record."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of the nodes.

    filed      the ledger's key: an operator's own burn-in neither resumes the pipeline's nor is taken for it
    begin_at   the rack's common beginning; None: each node begins when it is ready
    only       of the suite's workloads, these; empty: all
    take_over_s  how old workloads of a run that was cut may be that are not run again; 0: all are run again
    wanted     asked while it runs; whoever has a use for a node gets it back: YieldedError
    """

    suite: Suite | Again
    filed: str = PIPELINE
    begin_at: datetime | None = None
    begins: Mapping[str, Begin] | None = None
    only: tuple[str, ...] = ()
    take_over_s: float = 0.0
    wanted: Wanted | None = None

    def arguments(self, node: str) -> list[str]:
        """When the node's program takes up the load, and what of the suite it does."""
        some = ["--only", ",".join(self.only)] if self.only else []
        some += ["--take-over", f"{self.take_over_s:.0f}"] if self.take_over_s else []
        return [*some, *self._begin(node)]

    def _begin(self, node: str) -> list[str]:
        begin = (self.begins or {}).get(node, Begin())
        at = [] if self.begin_at is None else [
            "--begin-at", f"{self.begin_at.timestamp() + begin.after_s:.3f}"
        ]  # fmt: skip
        return at + (["--gpu-stagger", f"{begin.gpu_stagger_s:.3f}"] if begin.gpu_stagger_s else [])

    def longest_s(self, node: str, now: datetime) -> float:
        """How long to wait for the end."""
        wait = 0.0 if self.begin_at is None else max(0.0, (self.begin_at - now).total_seconds())
        return SUITE_SECONDS[self.suite] + wait + (self.begins or {}).get(node, Begin()).after_s


def start(context: Context, node: Unit, order: Order, identity: str) -> None:
    """Starts the run on the node. Nothing is begun anew for an id that has ended."""
    carrier = context.hands.carrier(node)
    if carrier.is_active(node, identity):
        return
    again = "the same command again, when it has ended"
    for other in carrier.others(node, identity):
        raise UndecidedError(f"{node.name} is busy with another burn-in: {other}", again)
    gpus = context.rack.profile.gpus_per_node
    asked = ("--suite", str(order.suite), "--gpus", str(gpus), *order.arguments(node.name))
    carrier.start(node, Task(identity, gpus, asked, order.longest_s(node.name, context.clock())))


def follow(context: Context, node: Unit, order: Order, identity: str) -> Followed:
    """Reads the records as they come, until the end record, the deadline, or a run that died without one.

    Raises YieldedError once somebody wants the node, with the run stopped and what it wrote on record.
    """
    carrier, longest_s = context.hands.carrier(node), order.longest_s(node.name, context.clock())
    followed, deadline, silent = Followed(), context.clock().timestamp() + longest_s, 0
    demand = _Demand(context, node, order.wanted)
    while followed.end is None and context.clock().timestamp() < deadline and silent < SILENT_POLLS:
        more = _more(carrier, node, identity, len(followed.raw))
        if len(followed.raw) + len(more) > MAX_RECORDS_BYTES:
            raise UndecidedError(
                f"burn-in on {node.name} wrote more than {MAX_RECORDS_BYTES} bytes of records",
                f"look at {carrier.where(node, identity)}",
            )
        try:
            fresh = followed.take(more)
        except RecordError as problem:
            context.ledger.artifacts.put(bytes(followed.raw))
            raise UndecidedError(
                f"burn-in records of {node.name}: {problem}", f"look at {carrier.where(node, identity)}"
            ) from problem
        _show(context, node, fresh)
        if followed.end is None and (why := demand.heard()):
            _yield(context, node, order, identity, followed)
            raise YieldedError(f"burn-in {identity} was stopped on {node.name}: {why}", "the next run goes on with it")
        if not fresh:
            silent = 0 if carrier.is_active(node, identity) else silent + 1
            if waits := carrier.waits_for(node, identity):
                context.progress(ctx.Progress(node.name, Stage.BURNIN, waits))
            context.sleep(carrier.poll_s)
    return followed


@dataclass(slots=True)
class _Demand:
    """Asks who wants the node, now and then."""

    context: Context
    node: Unit
    wanted: Wanted | None
    asked: float = 0.0

    def heard(self) -> str:
        """Who does; empty: nobody. A pool that does not answer gives the node to nobody meanwhile."""
        now = self.context.clock().timestamp()
        if self.wanted is None or now - self.asked < WANTED_SECONDS:
            return ""
        self.asked = now
        try:
            return self.wanted(self.node.name) or ""
        except UndecidedError:
            return ""


def _yield(context: Context, node: Unit, order: Order, identity: str, followed: Followed) -> None:
    """Stops the run, sees that it is gone, and keeps what it wrote. UndecidedError where it may still run."""
    stop_run(context, node, identity)
    carrier = context.hands.carrier(node)
    with suppress(RecordError, UnreachableError, UndecidedError):  # what cannot be had is measured again
        while more := _more(carrier, node, identity, len(followed.raw)):
            if not followed.take(more):
                break
    _observe(context, node, order, identity, followed, {}, complete=False)


def stop_run(context: Context, node: Unit, identity: str) -> None:
    """Stops a run on its node, and sees that it is gone. UndecidedError where it may still run."""
    carrier = context.hands.carrier(node)
    carrier.stop(node, identity)
    until = context.clock().timestamp() + STOPPED_SECONDS
    while carrier.is_active(node, identity):
        if context.clock().timestamp() >= until:
            raise UndecidedError(
                f"burn-in {identity} on {node.name} was told to stop, and may still run",
                f"look at {carrier.where(node, identity)}; then the same command again",
            )
        context.sleep(carrier.poll_s)


def _more(carrier: Carrier, node: Unit, identity: str, offset: int) -> bytes:
    try:
        return carrier.read(node, identity, RECORDS, offset, CHUNK_BYTES)
    except FileNotFoundError:
        return b""  # not written yet


def _show(context: Context, node: Unit, records: Iterable[Record]) -> None:
    for told in records:
        if isinstance(told, Progress):
            text = f"{told.workload} {told.text}".strip()
            done = min(told.done, NEARLY)
            context.progress(ctx.Progress(node.name, Stage.BURNIN, text, done, told.gpu))


@dataclass(frozen=True, slots=True)
class Brought:
    """What a run wrote, as it lies on record.

    kept   digests by the artifact's name, or words why we have none; `records` is the record file itself
    doubt  why it may not be all, or not of this node, as far as its carrier tells; empty where it is
    """

    followed: Followed
    kept: Mapping[str, str]
    doubt: str = ""


def brought(context: Context, node: Unit, order: Order, identity: str) -> Brought:
    """The run's evidence: from the record where it is whole there, else started if need be, followed and kept."""
    found = on_record(context, node, order, identity)
    if found is not None and found["complete"]:
        return _from_record(context, node, identity, found["artifacts"])
    start(context, node, order, identity)
    followed = follow(context, node, order, identity)
    return keep(context, node, order, identity, followed)


def on_record(context: Context, node: Unit, order: Order, identity: str) -> Mapping[str, Any] | None:
    """What the ledger has of the run, once it came to an end that we saw."""
    event = context.ledger.find(context.rack.name, node.name, EventKind.OBSERVED, order.filed)
    details = event.body["details"] if event is not None else None
    return details if isinstance(details, dict) and details["id"] == identity else None


def _from_record(context: Context, node: Unit, identity: str, kept: Mapping[str, str]) -> Brought:
    """The evidence out of our own store: what is whole is not asked for again. What could not be fetched then is."""
    followed = Followed()
    followed.take(context.ledger.artifacts.get(kept["records"]))
    lacking = [a for a in followed.artifacts if len(kept.get(a.name, "")) != _DIGEST_LENGTH]
    return Brought(followed, {**kept, **{a.name: _fetch(context, node, identity, a) for a in lacking}})


def keep(context: Context, node: Unit, order: Order, identity: str, followed: Followed) -> Brought:
    """Puts records and raw outputs on record. UndecidedError for another's records."""
    carrier = context.hands.carrier(node)
    kept = {a.name: _fetch(context, node, identity, a) for a in followed.artifacts}
    strangers = followed.runs - {identity}
    if strangers:
        raise UndecidedError(
            f"burn-in {identity} on {node.name}: its records are of run {', '.join(strangers)}", "look at the node"
        )
    doubt = carrier.doubt(node, identity)
    complete = followed.end is not None and not followed.missing and not doubt
    kept = _observe(context, node, order, identity, followed, kept, complete=complete)
    if complete:
        carrier.forget(node, identity)
    return Brought(followed, kept, doubt)


def _observe(
    context: Context, node: Unit, order: Order, identity: str, followed: Followed, kept: Mapping[str, str], *,
    complete: bool,
) -> dict[str, str]:  # fmt: skip
    """Puts on record how far a run came; answers the digests, that of its records among them."""
    found = {"records": context.ledger.artifacts.put(bytes(followed.raw)), **kept}
    seats = {str(gpu): [seat.serial, seat.pci] for gpu, seat in followed.seats.items()}
    told = {"id": identity, "artifacts": found, "complete": complete, "gpus": seats}
    told |= {"ended": followed.end is not None, "cells": list(followed.cells)}
    context.ledger.observed(context.rack.name, node.name, order.filed, told)
    return found


def _fetch(context: Context, node: Unit, identity: str, artifact: Artifact) -> str:
    """The artifact's digest in our store, or why it is not there: raw output informs, measurements judge."""
    if not 0 <= artifact.bytes <= MAX_ARTIFACT_BYTES:
        return f"not fetched: {artifact.bytes} bytes"
    data, carrier = bytearray(), context.hands.carrier(node)
    try:
        while len(data) < artifact.bytes:
            most = min(CHUNK_BYTES, artifact.bytes - len(data))
            more = carrier.read(node, identity, artifact.name, len(data), most)
            if not more:
                break
            data += more
    except (FileNotFoundError, UnreachableError) as problem:
        return f"not fetched: {problem}"
    if hashlib.sha256(data).hexdigest() != artifact.sha256:
        return f"not kept: its sha256 is not {artifact.sha256[:12]}"
    return context.ledger.artifacts.put(bytes(data))


def measured_again(context: Context, node: Unit, order: Order, identity: str, run: Run) -> tuple[Measurement, ...]:
    """What a suite of one workload measured, as far as it may be believed. UndecidedError where it did not end."""
    found = brought(context, node, order, identity)
    where = context.hands.carrier(node).where(node, identity)
    if found.doubt:
        raise UndecidedError(f"{order.suite} on {node.name}: {found.doubt}", f"look at {where}")
    if found.followed.end is None or found.followed.missing:
        raise UndecidedError(f"{order.suite} on {node.name} did not end", f"look at {where}")
    told = measurements_of(node, run.id, found.kept["records"], found.followed.last)
    return tuple(believed([*told, *measured(context, node, run.id, ways(context, node, found.kept))]))
