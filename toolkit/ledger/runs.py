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
from toolkit.ledger.records import EventKind, Extremes, NewEvent, Run, plain_text, time_text
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


def newest(session: Session, rack: str, outcome: Outcome | None) -> tuple[Run, ...]:
    """The newest run of every node and stage, or the newest that ended so, in the order they were started."""
    where, parameters = conditions(rack=rack, outcome=outcome.value if outcome else None)
    rows = session.all(
        f"SELECT {_RUN} FROM run JOIN (SELECT node AS of_node, stage AS of_stage, max(attempt) AS of_attempt FROM run"  # noqa: S608
        f" WHERE event > 0{where} GROUP BY node, stage) AS newest"
        " ON node = of_node AND stage = of_stage AND attempt = of_attempt WHERE rack = ? ORDER BY event",
        *parameters,
        rack,
    )
    return tuple(_run(row) for row in rows)


def newest_passes(session: Session, racks: Sequence[str], stage: Stage, limit: int) -> tuple[Run, ...]:
    """The newest passes of a stage on these racks, newest first, at most `limit`."""
    if not racks:
        return ()
    named = ", ".join("?" * len(racks))
    rows = session.all(
        f"SELECT {_RUN} FROM run WHERE stage = ? AND outcome = ? AND rack IN ({named}) ORDER BY event DESC LIMIT ?",  # noqa: S608
        stage.value,
        Outcome.PASSED.value,
        *racks,
        limit,
    )
    return tuple(_run(row) for row in rows)


def totals(session: Session, rack: str) -> dict[tuple[Stage, Outcome], int]:
    """How many runs of each stage ended each way; what never happened is left out."""
    rows = session.all(
        "SELECT stage, outcome, count(*) FROM run WHERE rack = ? AND outcome IS NOT NULL GROUP BY stage, outcome", rack
    )
    return {(Stage(stage), Outcome(outcome)): count for stage, outcome, count in rows}


def extremes(session: Session, run: str, metrics: Sequence[str]) -> tuple[Extremes, ...]:
    """The lowest and the highest number of each of these metrics that a run measured; words are passed over."""
    if not metrics:
        return ()
    named = ", ".join("?" * len(metrics))
    # A value is JSON: what begins with neither digit nor sign is a word, and no cast may make a number of it.
    rows = session.all(
        "SELECT metric, unit, min(CAST(value AS DOUBLE PRECISION)), max(CAST(value AS DOUBLE PRECISION)), count(*)"  # noqa: S608
        f" FROM measurement WHERE run = ? AND metric IN ({named})"
        " AND substr(value, 1, 1) IN ('-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9') GROUP BY metric, unit",
        run,
        *metrics,
    )
    return tuple(Extremes(*row) for row in sorted(rows))


def record(session: Session, stamp: Stamp, run: Run, measurements: Sequence[Measurement]) -> None:
    """Records what a run measured, bound to one event."""
    for measurement in measurements:
        if measurement.run != run.id:
            raise RackproofError(f"a measurement of run {measurement.run} is recorded for run {run.id}")
    metrics = sorted({m.metric for m in measurements})
    body = {"run": run.id, "measurements": len(measurements), "metrics": metrics}
    (event,) = append(session, stamp, [NewEvent(EventKind.MEASURED, run.rack, run.node, body, run.stage.value)])
    session.many(
        f"INSERT INTO measurement (event, seq, rack, {_MEASUREMENT})"  # noqa: S608 - constant names
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(event.id, number, run.rack, *_columns(m)) for number, m in enumerate(measurements)],
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


def measured_by(session: Session, run: str, metrics: Sequence[str]) -> tuple[Measurement, ...]:
    """What a run measured of these metrics, in the order it was recorded."""
    if not metrics:
        return ()
    named = ", ".join("?" * len(metrics))
    rows = session.all(
        f"SELECT {_MEASUREMENT} FROM measurement WHERE run = ? AND metric IN ({named}) ORDER BY event, seq",  # noqa: S608
        run,
        *metrics,
    )
    return tuple(_measurement(row) for row in rows)


def newest_measured(session: Session, rack: str, node: str, metrics: Sequence[str]) -> tuple[Measurement, ...]:
    """Of each of these metrics and each part of the node the measurement that was recorded last."""
    if not metrics:
        return ()
    named = ", ".join("?" * len(metrics))
    rows = session.all(
        f"SELECT {_MEASUREMENT} FROM (SELECT {_MEASUREMENT}, row_number() OVER"  # noqa: S608
        " (PARTITION BY metric, scope, gpu, link, hca ORDER BY event DESC, seq DESC) AS place"
        f" FROM measurement WHERE rack = ? AND node = ? AND metric IN ({named})) AS ranked"
        " WHERE place = 1 ORDER BY metric, scope, gpu, link, hca",
        rack,
        node,
        *metrics,
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
