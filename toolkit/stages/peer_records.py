"""Comparisons with siblings as the ledger keeps them: an event for each node and burn-in, which certify judges by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from toolkit.judge.compared import Compared, Standing
from toolkit.judge.evidence import Subject
from toolkit.ledger import EventKind, Ledger, Run
from toolkit.rack.gate import Scope
from toolkit.rack.model import Unit
from toolkit.stages.context import Context

FILED = "peers"


def keep_comparisons(context: Context, run: Run, compared: Iterable[Compared]) -> None:
    """Puts on record how the parts of a run's node stood."""
    body = {"run": run.id, "compared": [_body(c) for c in compared]}
    context.ledger.observed(run.rack, run.node, f"{FILED} {run.id}", body)


def comparisons(context: Context, node: Unit, run: Run) -> tuple[Compared, ...]:
    """How the node's parts stood among their siblings after that burn-in; nothing where nobody compared them."""
    return comparisons_on_record(context.ledger, context.rack.name, node.name, run.id)


def comparisons_on_record(ledger: Ledger, rack: str, node: str, run: str) -> tuple[Compared, ...]:
    """The same by names alone, for readers of the ledger that reach no node."""
    event = ledger.find(rack, node, EventKind.OBSERVED, f"{FILED} {run}")
    return tuple(map(_read, event.body["details"]["compared"])) if event else ()


def subject_body(subject: Subject) -> dict[str, object]:
    """A subject for JSON."""
    return {"scope": subject.scope.value, "node": subject.node, "gpu": subject.gpu}


def subject_of(body: Mapping[str, Any]) -> Subject:
    """The subject that `subject_body` wrote."""
    return Subject(Scope(body["scope"]), body["node"], body["gpu"])


def _body(c: Compared) -> dict[str, object]:
    told = {"metric": c.metric, "limit": c.limit, "of": c.of, "origin": c.origin, "shift": c.shift, "why": c.why}
    return told | {"subject": subject_body(c.subject), "standing": c.standing.value, "drift": c.drift}


def _read(body: Mapping[str, Any]) -> Compared:
    return Compared(
        metric=body["metric"],
        subject=subject_of(body["subject"]),
        limit=body["limit"],
        of=body["of"],
        origin=body["origin"],
        standing=Standing(body["standing"]),
        shift=body["shift"],
        why=body["why"],
        drift=body["drift"],
    )
