"""Statements on node states: where each node rests, and the story of its moves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from toolkit.ledger.errors import StaleMoveError
from toolkit.ledger.events import Stamp, append, conditions
from toolkit.ledger.records import Change, EventKind, NewEvent, NodeRow, time_text
from toolkit.ledger.store import Session
from toolkit.rack.lifecycle import Move, Moved, NodeState, after


def states(session: Session, rack: str) -> dict[str, NodeRow]:
    """Every node of the rack that the ledger has a state of. A node it has none of is PLANNED."""
    rows = session.all("SELECT node, state, since, event FROM node WHERE rack = ? ORDER BY node", rack)
    return {node: NodeRow(NodeState(state), datetime.fromisoformat(since), event) for node, state, since, event in rows}


def racks(session: Session) -> tuple[str, ...]:
    """Racks that have a node or a run on record, sorted."""
    return tuple(sorted(rack for (rack,) in session.all("SELECT rack FROM node UNION SELECT rack FROM run")))


def history(session: Session, rack: str, node: str) -> tuple[Moved, ...]:
    """Every move the node made, oldest first."""
    where, parameters = conditions(rack=rack, node=node, kind=EventKind.NODE_MOVED)
    rows = session.all(f"SELECT at, what, body FROM event WHERE id > 0{where} ORDER BY id", *parameters)  # noqa: S608
    return tuple(_moved(at, what) for at, what, _ in rows)


def enter(session: Session, stamp: Stamp, rack: str, nodes: Mapping[str, NodeState], reason: str) -> None:
    """Gives nodes their first state. Raises StaleMoveError if one has a state already."""
    known = states(session, rack)
    for node, state in nodes.items():
        if node in known:
            raise StaleMoveError(
                f"{node} of {rack} is known already: {known[node].state} since {known[node].since.isoformat()}",
                "a node enters the ledger once; run the same command again to go on from where it is",
            )
        body = {"state": state.value, "reason": reason}
        (event,) = append(session, stamp, [NewEvent(EventKind.NODE_ENTERED, rack, node, body, state.value)])
        _insert(session, rack, node, NodeRow(state, stamp.at, event.id))


def move(session: Session, stamp: Stamp, rack: str, node: str, change: Change, *, reason: str, run: str) -> NodeRow:
    """Moves a node if it is still in `change.before`.

    Raises StaleMoveError if it is not, and IllegalMoveError if the table has no such move.
    """
    row = session.one("SELECT state FROM node WHERE rack = ? AND node = ?", rack, node)
    current = NodeState(row[0]) if row else NodeState.PLANNED
    if current is not change.before:
        raise StaleMoveError(
            f"{node} of {rack} is {current}, not {change.before}: the move '{change.move}' was not made",
            "somebody moved it meanwhile; run the same command again to go on from where it is",
        )
    target = after(node, current, change.move, history(session, rack, node))
    body = {
        "before": current.value,
        "move": change.move.value,
        "after": target.value,
        "reason": reason,
        "run": run,
    }
    what = f"{current} {change.move} {target}"
    (event,) = append(session, stamp, [NewEvent(EventKind.NODE_MOVED, rack, node, body, what)])
    new = NodeRow(target, stamp.at, event.id)
    if row is None:
        _insert(session, rack, node, new)
    else:
        session.run(
            "UPDATE node SET state = ?, since = ?, event = ? WHERE rack = ? AND node = ?",
            target.value,
            time_text(stamp.at),
            event.id,
            rack,
            node,
        )
    return new


def _insert(session: Session, rack: str, node: str, row: NodeRow) -> None:
    session.run(
        "INSERT INTO node (rack, node, state, since, event) VALUES (?, ?, ?, ?, ?)",
        rack,
        node,
        row.state.value,
        time_text(row.since),
        row.event,
    )


def _moved(at: str, what: str) -> Moved:
    before, move_, target = what.split(" ")
    return Moved(at, NodeState(before), Move(move_), NodeState(target))
