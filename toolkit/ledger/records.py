"""What the ledger keeps and gives back: value objects, and how they are written as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from toolkit.errors import RackproofError
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage

# Larger things are artifacts; an event names them by sha256.
MAX_BODY_BYTES = 1 << 20


class EventKind(StrEnum):
    """What happened."""

    PLAN_STORED = "plan_stored"
    RUN_STARTED = "run_started"
    RUN_FINISHED = "run_finished"
    NODE_ENTERED = "node_entered"
    NODE_MOVED = "node_moved"
    INTENT = "intent"  # about to act on something outside
    OBSERVED = "observed"  # what was seen after, or instead of, acting
    MEASURED = "measured"
    JUDGED = "judged"  # the findings of a verdict
    ARTIFACT_STORED = "artifact_stored"
    CERTIFICATE_ISSUED = "certificate_issued"
    CERTIFICATE_REVOKED = "certificate_revoked"  # for the nodes it names; written before they are shut out
    ADMISSION = "admission"
    LEASE_TAKEN = "lease_taken"
    LEASE_RELEASED = "lease_released"
    NOTE = "note"


# These keep a query table in step: they are written by the method that does both, never by `append`.
KEPT_KINDS = frozenset(
    {
        EventKind.PLAN_STORED,
        EventKind.RUN_STARTED,
        EventKind.RUN_FINISHED,
        EventKind.NODE_ENTERED,
        EventKind.NODE_MOVED,
        EventKind.MEASURED,
        EventKind.LEASE_TAKEN,
        EventKind.LEASE_RELEASED,
    }
)

# JSON: whoever reads a key knows what the kind of event keeps under it.
Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to record. `node` is empty for the whole rack; `what` is a short key to find it by."""

    kind: EventKind
    rack: str
    node: str = ""
    body: Body = field(default_factory=dict)
    what: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A recorded event. Ids count from 1 without gaps, in commit order. `token` is the writer's lease, if any."""

    id: int
    at: datetime
    actor: str
    rack: str
    node: str
    kind: EventKind
    what: str
    token: int | None
    body: Body


@dataclass(frozen=True, slots=True)
class NodeRow:
    """Where a node rests since when, and the event that put it there."""

    state: NodeState
    since: datetime
    event: int


@dataclass(frozen=True, slots=True)
class Change:
    """A move to make with a run's end: `before` must still be the node's state."""

    before: NodeState
    move: Move


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a stage on a node. Without `outcome` it is open, or its process died.

    `event` is the id of the event that opened it: later than a node's `NodeRow.event` means after that move.
    """

    id: str
    rack: str
    node: str
    stage: Stage
    attempt: int
    started: datetime
    event: int
    finished: datetime | None = None
    outcome: Outcome | None = None
    code: str = ""
    part: str = ""
    message: str = ""
    next: str = ""


@dataclass(frozen=True, slots=True)
class Extremes:
    """The lowest and the highest number of a metric that a run measured, over all subjects, and how many they are."""

    metric: str
    unit: str
    lowest: float
    highest: float
    count: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive something until `expires`. `token` grows with every new holder."""

    name: str
    holder: str
    token: int
    expires: datetime


def time_text(at: datetime) -> str:
    """UTC with microseconds, all of one width, so that text order is time order. A naive time is a defect."""
    if at.tzinfo is None:
        raise RackproofError(f"a time without a zone cannot be recorded: {at.isoformat()}")
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def body_text(body: Body) -> str:
    """Canonical JSON. Raises RackproofError for what JSON cannot say and for more than MAX_BODY_BYTES."""
    try:
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise RackproofError(f"an event's body is not JSON: {exc}") from exc
    if len(text) > MAX_BODY_BYTES:
        raise RackproofError(
            f"an event's body has {len(text)} bytes, more than {MAX_BODY_BYTES}",
            "store it as an artifact and record its sha256",
        )
    return text


def plain_text(text: str) -> str:
    """Text both databases can hold: what came from a node may carry NUL or half a surrogate pair."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
