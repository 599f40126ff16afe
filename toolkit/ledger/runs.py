"""Statements on runs and what they measured."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime

from toolkit.errors import RackproofError
from toolkit.judge.evidence import Measurement, Subject, Value
from toolkit.ledger.errors import StaleMoveError
from toolkit.ledger.events import Stamp, append, conditions
from toolkit.ledger.records import EventKind, NewEvent, Run, plain_text, time_text
from toolkit.ledger.store import Row, Session
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Outcome, Stage

_RUN = "id, rack, node, stage, attempt, started, event, finished, outcome, code, part, message, next"
_MEASUREMENT = "run, scope, node, gpu, link, hca, metric, unit, value, at, origin"


def start(session: Session, stamp: Stamp, rack: str, node: str, stage: Stage) -> Run:
    """Opens the next attempt of a stage on a node (or on the whole rack, where `node` is empty)."""
    (before,) = session.one(
        "SELECT coalesce(max(attempt), 0) FROM run WHERE rack = ? AND node = ? AND stage = ?", rack, node, stage.value
    ) or (0,)
    attempt = before + 1
    name = f"{rack}/{node or '-'}/{stage}/{attempt}"
    body = {"run": name, "stage": stage.value, "attempt": attempt}
    (event,) = append(session, stamp, [NewEvent(EventKind.RUN_STARTED, rack, node, body, stage.value)])
    session.run(
        "INSERT INTO run (id, rack, node, stage, attempt, started, event) VALUES (?, ?, ?, ?, ?, ?, ?)",
        name,
        rack,
        node,
        stage.value,
        attempt,
        time_text(stamp.at),
        event.id,
    )
    return Run(name, rack, node, stage, attempt, stamp.at, event.id)


def finish(session: Session, stamp: Stamp, ended: Run) -> None:
    """Closes an open run with the outcome that `ended` carries. Raises StaleMoveError if it is not open."""
    texts = [plain_text(text) for text in (ended.code, ended.part, ended.message, ended.next)]
    outcome = None if ended.outcome is None else ended.outcome.value
    changed = session.run(
        "UPDATE run SET finished = ?, outcome = ?, code = ?, part = ?, message = ?, next = ?"
        " WHERE id = ? AND finished IS NULL",
        time_text(stamp.at),
        outcome,
        *texts,
        ended.id,
    )
    if changed != 1:
        raise StaleMoveError(
            f"run {ended.id} is not open: its end is recorded already, or the ledger never had it",
            "run the same command again: it reads what was recorded first",
        )
    code, part, message, next_ = texts
    body = {
        "run": ended.id,
        "stage": ended.stage.value,
        "outcome": outcome,
        "code": code,
        "part": part,
        "message": message,
        "next": next_,
    }
    append(session, stamp, [NewEvent(EventKind.RUN_FINISHED, ended.rack, ended.node, body, ended.stage.value)])


def select(
    session: Session, rack: str, node: str | None, stage: Stage | None, *, newest_only: bool = False
) -> tuple[Run, ...]:
    """Runs of a rack in the order they were started; or only the newest of them."""
    where, parameters = conditions(rack=rack, node=node, stage=stage)
    order = "DESC LIMIT 1" if newest_only else "ASC"
    rows = session.all(f"SELECT {_RUN} FROM run WHERE event > 0{where} ORDER BY event {order}", *parameters)  # noqa: S608
    return tuple(_run(row) for row in rows)


def record(session: Session, stamp: Stamp, run: Run, measurements: Sequence[Measurement]) -> None:
    """Records what a run measured, bound to one event."""
    for measurement in measurements:
        if measurement.run != run.id:
            raise RackproofError(f"a measurement of run {measurement.run} is recorded for run {run.id}")
    metrics = sorted({m.metric for m in measurements})
    body = {"run": run.id, "measurements": len(measurements), "metrics": metrics}
    (event,) = append(session, stamp, [NewEvent(EventKind.MEASURED, run.rack, run.node, body, run.stage.value)])
    for number, measurement in enumerate(measurements):
        session.run(
            f"INSERT INTO measurement (event, seq, rack, {_MEASUREMENT})"  # noqa: S608 - constant names
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            event.id,
            number,
            run.rack,
            *_columns(measurement),
        )


def measured(
    session: Session, rack: str, node: str | None, run: str | None, metric: str | None
) -> tuple[Measurement, ...]:
    """Measurements in the order they were recorded."""
    where, parameters = conditions(rack=rack, node=node, run=run, metric=metric)
    rows = session.all(
        f"SELECT {_MEASUREMENT} FROM measurement WHERE event > 0{where} ORDER BY event, seq",  # noqa: S608
        *parameters,
    )
    return tuple(_measurement(row) for row in rows)


def _columns(m: Measurement) -> tuple[object, ...]:
    if isinstance(m.value, float) and not math.isfinite(m.value):
        raise RackproofError(f"{m.metric} of {m.subject} is {m.value}: a number that is none is not evidence")
    s = m.subject
    texts = [plain_text(text) for text in (m.metric, m.unit)]
    value = json.dumps(m.value)
    return (m.run, s.scope.value, s.node, s.gpu, s.link, s.hca, *texts, value, time_text(m.at), m.origin)


def _measurement(row: Row) -> Measurement:
    run, scope, node, gpu, link, hca, metric, unit, value, at, origin = row
    parsed: Value = json.loads(value)
    subject = Subject(Scope(scope), node, gpu, link, hca)
    return Measurement(metric, unit, parsed, subject, datetime.fromisoformat(at), run, origin)


def _run(row: Row) -> Run:
    id_, rack, node, stage, attempt, started, event, finished, outcome, code, part, message, next_ = row
    return Run(
        id_,
        rack,
        node,
        Stage(stage),
        attempt,
        datetime.fromisoformat(started),
        event,
        None if finished is None else datetime.fromisoformat(finished),
        None if outcome is None else Outcome(outcome),
        code,
        part,
        message,
        next_,
    )
