"""Which of a ledger's measurements count now: the newest of each subject, and nothing from before a repair."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import EventKind, Ledger
from toolkit.rack.lifecycle import Move

MAX_EVENTS = 100_000


def newest(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Of each subject and metric what was measured last."""
    found: dict[tuple[str, Subject], Measurement] = {}
    for m in measurements:
        known = found.get((m.metric, m.subject))
        if known is None or m.at >= known.at:
            found[m.metric, m.subject] = m
    return list(found.values())


def repaired(ledger: Ledger, rack: str, node: str) -> datetime:
    """When the node was repaired last: what was measured before is of another machine."""
    moves = ledger.events(rack, node, kind=EventKind.NODE_MOVED, limit=MAX_EVENTS)
    repairs = [event.at for event in moves if event.body["move"] == Move.REPAIR]
    return repairs[-1] if repairs else datetime.min.replace(tzinfo=UTC)
