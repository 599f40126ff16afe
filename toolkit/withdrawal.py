"""The use cases "revoke" and "drain": take nodes out of the pool while they stand in it, with what they ran.

Taint and cordon come first and for all at once; running jobs are moved after that, within the pool's capacity floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from toolkit.errors import UndecidedError, UsageError
from toolkit.ledger import EventKind, Ledger, NewEvent
from toolkit.pool.clearing import Cleared, capacity_of, clear
from toolkit.pool.floor import may_evict
from toolkit.pool.lapsing import lapse
from toolkit.pool.model import Drained, DrainEnd, Pool
from toolkit.pool.policy import Regulation

_MAX_EVENTS = 100_000
_BARE = "no certificate on record names it: nothing was revoked. To shut it all the same: rackproof quarantine"


@dataclass(frozen=True, slots=True)
class Target:
    """A node, in the rack that the ledger keeps it under."""

    rack: str
    node: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What became of one node.

    shut     whether it takes no more jobs; `trouble`: why that is not known
    drained  what became of the jobs that ran there; None where they were left: `trouble` says why
    """

    rack: str
    node: str
    certificate: str = ""
    shut: bool = False
    drained: Drained | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """Why, and how far.

    deadline_s  of each drain
    below_floor an operator typed that running jobs may be evicted below the capacity floor
    on_shut     called when all are shut, before anything is drained
    """

    reason: str
    regulation: Regulation
    deadline_s: float
    below_floor: bool = False
    on_shut: Callable[[Sequence[Withdrawn]], None] = lambda rows: None


def exit_code(rows: Iterable[Withdrawn]) -> int:
    """0 all are shut and empty; 3 for anything that may come right when the command is given again."""
    done = all(row.shut and row.drained is not None and row.drained.end is DrainEnd.EMPTY for row in rows)
    return 0 if done else UndecidedError.exit_code


def revoke(ledger: Ledger, pool: Pool, targets: Sequence[Target], order: Order) -> tuple[Withdrawn, ...]:
    """Revokes each node's newest certificate, shuts all nodes at once, then drains them.

    On record before anything is done: from then on nothing admits these nodes by it, and a doorkeeper shuts them too,
    whatever becomes of this process. Raises UsageError if no node has a certificate.
    """
    named = _certificates(ledger, targets)
    if not named:
        raise UsageError(
            f"no certificate on record names {', '.join(t.node for t in targets[:8])}", "rackproof status shows who has"
        )
    ledger.append_all(list(_revocations(named, order.reason)))
    reason = f"certificate revoked: {order.reason}"
    rows = _shut(ledger, pool, [Withdrawn(t.rack, t.node, digest) for t, digest in named.items()], reason)
    order.on_shut(rows)
    bare = [Withdrawn(t.rack, t.node, trouble=_BARE) for t in dict.fromkeys(targets) if t not in named]
    return (*_drained(pool, rows, order, reason), *bare)


def drain(ledger: Ledger, pool: Pool, targets: Sequence[Target], order: Order) -> tuple[Withdrawn, ...]:
    """Takes nodes out that nothing is wrong with: not at all where the capacity floor does not allow it for each.

    Their certificates stay as they are, but what is done to a drained machine nobody knows: it lapses, and is tested
    and certified anew before it comes back. Raises UsageError below the floor.
    """
    rows = [Withdrawn(t.rack, t.node) for t in targets]
    if not order.below_floor:
        answer = may_evict(capacity_of(pool, ()), len(rows), order.regulation.floor)
        if answer.may < len(rows):
            raise UsageError(
                f"{len(rows)} nodes are to be drained, {answer.may} may be: {answer.reason}",
                "admit others first, or take jobs below the floor: --force with the name typed again",
            )
    reason = f"drained: {order.reason}"
    shut = _shut(ledger, pool, rows, reason)
    order.on_shut(shut)
    return _drained(pool, shut, replace(order, below_floor=True), reason)


def _certificates(ledger: Ledger, targets: Sequence[Target]) -> dict[Target, str]:
    """The newest certificate that names each node; nodes without one are left out."""
    found: dict[Target, str] = {}
    for rack in sorted({t.rack for t in targets}):
        newest = {
            str(node): event.what
            for event in ledger.events(rack, kind=EventKind.CERTIFICATE_ISSUED, limit=_MAX_EVENTS)
            for node in event.body.get("nodes") or ()
        }
        found |= {t: newest[t.node] for t in targets if t.rack == rack and t.node in newest}
    return found


def _revocations(named: Mapping[Target, str], reason: str) -> Iterable[NewEvent]:
    """One event for each certificate, with the nodes it is revoked for."""
    for rack, digest in sorted({(t.rack, digest) for t, digest in named.items()}):
        nodes = sorted(t.node for t, of in named.items() if of == digest and t.rack == rack)
        body = {"certificate": digest, "nodes": nodes, "reason": reason}
        yield NewEvent(EventKind.CERTIFICATE_REVOKED, rack, body=body, what=digest)


def _shut(ledger: Ledger, pool: Pool, rows: Sequence[Withdrawn], reason: str) -> tuple[Withdrawn, ...]:
    """All at once; a node that could not be shut keeps its place on record, so that it is seen."""
    failed = pool.evict_all({row.node: reason for row in rows})
    for rack in sorted({row.rack for row in rows}):
        lapse(ledger, rack, [row.node for row in rows if row.rack == rack and row.node not in failed], reason)
    return tuple(
        replace(row, trouble=f"NOT shut: {failed[row.node].message}") if row.node in failed else replace(row, shut=True)
        for row in rows
    )


def _drained(pool: Pool, rows: Sequence[Withdrawn], order: Order, reason: str) -> tuple[Withdrawn, ...]:
    """As many as the floor allows. Nodes that are not shut stay as they are."""
    floor = 0.0 if order.below_floor else order.regulation.floor
    shut = [row.node for row in rows if row.shut]
    try:
        cleared = clear(pool, shut, reason, floor, order.deadline_s)
    except UndecidedError as silent:
        cleared = dict.fromkeys(shut, Cleared(trouble=f"shut; what runs there was left: {silent.message}"))
    return tuple(_with(row, cleared.get(row.node)) for row in rows)


def _with(row: Withdrawn, cleared: Cleared | None) -> Withdrawn:
    if cleared is None:
        return row
    more = ". To evict them all the same: --force with the names typed again" if cleared.by_floor else ""
    return replace(row, drained=cleared.drained, trouble=f"{cleared.trouble}{more}")
