"""Append-only evidence and state. The only package that knows SQL."""

from toolkit.ledger.artifacts import Artifacts
from toolkit.ledger.errors import ArtifactError, LeaseLostError, LedgerError, LedgerFullError, StaleMoveError
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.records import Change, Event, EventKind, Extremes, Lease, NewEvent, NodeRow, Run

__all__ = [
    "ArtifactError",
    "Artifacts",
    "Change",
    "Event",
    "EventKind",
    "Extremes",
    "Lease",
    "LeaseLostError",
    "Ledger",
    "LedgerError",
    "LedgerFullError",
    "NewEvent",
    "NodeRow",
    "Run",
    "StaleMoveError",
]
