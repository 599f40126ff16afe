"""Leases: one driver of a rack at a time, and a fencing token that outs the one who was too slow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from toolkit.errors import BusyError
from toolkit.ledger.errors import LeaseLostError
from toolkit.ledger.events import Stamp, append
from toolkit.ledger.records import EventKind, Lease, NewEvent, plain_text, time_text
from toolkit.ledger.store import Session

Gone = Callable[[str], bool]


def acquire(session: Session, stamp: Stamp, name: str, *, holder: str, ttl: timedelta, gone: Gone) -> Lease:
    """Takes a lease that is free, expired, released, or whose holder is certainly gone; else BusyError."""
    row = session.one("SELECT holder, token, expires, released FROM lease WHERE name = ?", name)
    last = 0
    if row is not None:
        owner, last, expires, released = row
        if not released and datetime.fromisoformat(expires) > stamp.at and not gone(owner):
            raise BusyError(
                f"{name} is driven by {owner} until {expires}",
                "wait for it to end; a lease whose holder is gone ends at that time by itself",
            )
    lease = Lease(name, plain_text(holder), last + 1, stamp.at + ttl)
    if row is None:
        session.run(
            "INSERT INTO lease (name, holder, token, expires, released) VALUES (?, ?, ?, ?, 0)",
            name,
            lease.holder,
            lease.token,
            time_text(lease.expires),
        )
    else:
        session.run(
            "UPDATE lease SET holder = ?, token = ?, expires = ?, released = 0 WHERE name = ?",
            lease.holder,
            lease.token,
            time_text(lease.expires),
            name,
        )
    _tell(session, stamp, EventKind.LEASE_TAKEN, lease)
    return lease


def held(session: Session) -> tuple[Lease, ...]:
    """Leases that were not given back, by name."""
    rows = session.all("SELECT name, holder, token, expires FROM lease WHERE released = 0 ORDER BY name")
    return tuple(Lease(name, owner, token, datetime.fromisoformat(expires)) for name, owner, token, expires in rows)


def renew(session: Session, stamp: Stamp, lease: Lease, ttl: timedelta) -> Lease:
    """The same lease with a later end. Raises LeaseLostError."""
    check(session, lease)
    renewed = replace(lease, expires=stamp.at + ttl)
    session.run("UPDATE lease SET expires = ? WHERE name = ?", time_text(renewed.expires), lease.name)
    return renewed


def release(session: Session, stamp: Stamp, lease: Lease) -> None:
    """Gives the lease back. Raises LeaseLostError."""
    check(session, lease)
    session.run("UPDATE lease SET released = 1 WHERE name = ?", lease.name)
    _tell(session, stamp, EventKind.LEASE_RELEASED, lease)


def check(session: Session, lease: Lease) -> None:
    """Raises LeaseLostError if the lease was given back or has a newer holder.

    One that only expired still counts: nobody else has begun to act.
    """
    row = session.one("SELECT holder, token, released FROM lease WHERE name = ?", lease.name)
    if row is not None and row[1] == lease.token and not row[2]:
        return
    taken = f"{row[0]} holds it with token {row[1]}" if row and row[1] != lease.token else "it was given back"
    raise LeaseLostError(
        f"the lease on {lease.name} (token {lease.token}) is lost: {taken}; nothing was recorded",
        "let the other run end, then run the same command again",
    )


def _tell(session: Session, stamp: Stamp, kind: EventKind, lease: Lease) -> None:
    body = {"holder": lease.holder, "token": lease.token, "expires": time_text(lease.expires)}
    append(session, stamp, [NewEvent(kind, lease.name, "", body, lease.name)])
