"""Events of the journal in a line an operator reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from toolkit.ledger import Event, EventKind
from toolkit.rack.nodeset import fold
from toolkit.report.text import printable

_WORDS = 240


@dataclass(frozen=True, slots=True)
class Happened:
    """A line: when, of which node (empty: the rack), what. `tone`: good, bad, doubt or empty."""

    at: datetime
    node: str
    words: str
    tone: str
    event: int


def happened(event: Event) -> Happened:
    """The event as a line."""
    return Happened(event.at, printable(event.node, 80), words_of(event), _tone(event), event.id)


def words_of(event: Event) -> str:
    """What happened, in one line within bounds. It may hold what a node said: it is escaped where it is shown."""
    return printable(_words(event), _WORDS)


def _words(event: Event) -> str:  # noqa: C901, PLR0912 - one line a kind, as the journal has kinds
    body = event.body
    match event.kind:
        case EventKind.PLAN_STORED:
            return f"a plan is carried out: {event.what[:12]}"
        case EventKind.RUN_STARTED:
            return f"{event.what} begins{_again(body)}"
        case EventKind.RUN_FINISHED:
            return f"{event.what} {body.get('outcome', '')} {body.get('code', '')} {body.get('part', '')}".strip()
        case EventKind.NODE_ENTERED:
            return f"enters at {event.what}: {body.get('reason', '')}"
        case EventKind.NODE_MOVED:
            return f"{body.get('before', '')} to {body.get('after', '')}: {body.get('reason', '')}"
        case EventKind.INTENT:
            return f"about to: {event.what}"
        case EventKind.OBSERVED:
            return f"seen: {event.what}" + (f" ({body['problem']})" if body.get("problem") else "")
        case EventKind.MEASURED:
            return f"{body.get('measurements', 0)} measurements of {event.what}"
        case EventKind.JUDGED:
            return f"judged: {event.what}"
        case EventKind.CERTIFICATE_ISSUED:
            return f"certificate {event.what[:12]} for {_nodes(body)}"
        case EventKind.CERTIFICATE_REVOKED:
            return f"certificate {event.what[:12]} revoked for {_nodes(body)}: {body.get('reason', '')}"
        case EventKind.ADMISSION:
            return f"pool: {event.what}"
        case EventKind.LEASE_TAKEN:
            return f"driven by {_holder(body)}"
        case EventKind.LEASE_RELEASED:
            return f"no longer driven by {_holder(body)}"
        case _:
            return f"{event.kind}: {event.what}"


def _nodes(body: Any) -> str:
    return fold([str(node) for node in body.get("nodes") or ()])


def _again(body: Any) -> str:
    attempt = body.get("attempt")
    return f", attempt {attempt}" if isinstance(attempt, int) and attempt > 1 else ""


def _holder(body: Any) -> str:
    return holder_words(str(body.get("holder", "")))


def holder_words(holder: str) -> str:
    """`user@host pid N` of a lease's holder: the rest tells processes apart, and nobody reads it."""
    return printable(holder.partition(" (")[0], 80)


def _tone(event: Event) -> str:
    outcome = event.body.get("outcome")
    if event.kind == EventKind.RUN_FINISHED and isinstance(outcome, str):
        return {"PASSED": "good", "FAILED": "bad"}.get(outcome, "doubt")
    if event.kind == EventKind.NODE_MOVED:
        return "bad" if event.body.get("move") == "quarantine" else "good" if event.body.get("move") == "admit" else ""
    return "bad" if event.kind == EventKind.CERTIFICATE_REVOKED else ""
