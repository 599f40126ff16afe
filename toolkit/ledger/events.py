"""Statements on the journal: the append-only `event` table."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from toolkit.errors import RackproofError
from toolkit.ledger.records import Body, Event, EventKind, NewEvent, body_text, plain_text, time_text
from toolkit.ledger.store import Row, Session

_COLUMNS = "id, at, actor, rack, node, kind, what, token, body"


@dataclass(frozen=True, slots=True)
class Stamp:
    """When and by whom something is recorded, and under which lease's token."""

    at: datetime
    actor: str
    token: int | None


def append(session: Session, stamp: Stamp, new: Sequence[NewEvent]) -> tuple[Event, ...]:
    """Records events in order, inside the caller's transaction."""
    (newest,) = session.one("SELECT coalesce(max(id), 0) FROM event") or (0,)
    return tuple(_insert(session, stamp, newest + i, event) for i, event in enumerate(new, start=1))


def _insert(session: Session, stamp: Stamp, number: int, new: NewEvent) -> Event:
    body = body_text(new.body)
    row = (
        number,
        time_text(stamp.at),
        plain_text(stamp.actor),
        plain_text(new.rack),
        plain_text(new.node),
        new.kind.value,
        plain_text(new.what),
        stamp.token,
        body,
    )
    session.run(f"INSERT INTO event ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)  # noqa: S608 - constant
    return _event(row)


def select(
    session: Session,
    *,
    rack: str | None = None,
    node: str | None = None,
    kind: EventKind | None = None,
    what: str | None = None,
    after: int = 0,
    limit: int = 1000,
) -> tuple[Event, ...]:
    """Events after an id, oldest first, at most `limit`."""
    where, parameters = conditions(rack=rack, node=node, kind=kind, what=what)
    rows = session.all(
        f"SELECT {_COLUMNS} FROM event WHERE id > ?{where} ORDER BY id LIMIT ?",  # noqa: S608 - constant names
        after,
        *parameters,
        limit,
    )
    return tuple(_event(row) for row in rows)


def last(session: Session) -> int:
    """The id of the newest event; 0 where there is none."""
    (newest_id,) = session.one("SELECT coalesce(max(id), 0) FROM event") or (0,)
    return int(newest_id)


def story(session: Session, rack: str, node: str, limit: int) -> tuple[Event, ...]:
    """The newest events of a node, oldest of them first."""
    rows = session.all(
        f"SELECT {_COLUMNS} FROM event WHERE rack = ? AND node = ? ORDER BY id DESC LIMIT ?",  # noqa: S608 - constant
        rack,
        node,
        limit,
    )
    return tuple(_event(row) for row in reversed(rows))


def recent(
    session: Session, kinds: Collection[EventKind], rack: str | None, node: str | None, limit: int
) -> tuple[Event, ...]:
    """The newest events of these kinds, oldest of them first.

    Ids are sorted alone, from the index: to sort rows would read the bodies of a rack's whole past.
    """
    if not kinds:
        return ()
    where, parameters = conditions(rack=rack, node=node)
    named = ", ".join("?" * len(kinds))
    rows = session.all(
        f"SELECT {_COLUMNS} FROM event WHERE id IN"  # noqa: S608 - constant names
        f" (SELECT id FROM event WHERE id > 0{where} AND kind IN ({named}) ORDER BY id DESC LIMIT ?) ORDER BY id",
        *parameters,
        *(kind.value for kind in sorted(kinds)),
        limit,
    )
    return tuple(_event(row) for row in rows)


def newest(session: Session, rack: str, node: str, kind: EventKind, what: str) -> Event | None:
    """The newest event of that kind and key."""
    row = session.one(
        f"SELECT {_COLUMNS} FROM event"  # noqa: S608 - constant names
        " WHERE rack = ? AND node = ? AND kind = ? AND what = ? ORDER BY id DESC LIMIT 1",
        rack,
        node,
        kind.value,
        what,
    )
    return None if row is None else _event(row)


def conditions(**columns: str | None) -> tuple[str, tuple[str, ...]]:
    """` AND column = ?` for every column with a value. Column names are ours, values are parameters."""
    given = {name: value for name, value in columns.items() if value is not None}
    return "".join(f" AND {name} = ?" for name in given), tuple(str(value) for value in given.values())


def _event(row: Row) -> Event:
    number, at, actor, rack, node, kind, what, token, body = row
    try:
        known = EventKind(kind)
    except ValueError:
        raise RackproofError(
            f"event {number} of the ledger is of kind '{kind}', which this version does not know",
            "a newer rackproof wrote it: upgrade this one",
        ) from None
    parsed: Body = json.loads(body)
    return Event(number, datetime.fromisoformat(at), actor, rack, node, known, what, token, parsed)
