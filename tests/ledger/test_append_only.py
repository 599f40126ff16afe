"""What is recorded stays, whoever holds the database open."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest

from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import EventKind, Ledger, NewEvent
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Outcome, Stage

STATEMENTS = (
    "UPDATE event SET body = '{}' WHERE id = 1",
    "DELETE FROM event WHERE id = 1",
    "DELETE FROM event",
    "INSERT INTO event SELECT id, at, 'liar', rack, node, kind, what, token, body FROM event WHERE id = 1",
    "INSERT INTO event SELECT 99, at, actor, rack, node, kind, what, token, body FROM event WHERE id = 1",
    "UPDATE measurement SET value = '0'",
    "DELETE FROM measurement",
    "UPDATE run SET outcome = 'PASSED'",
    "DELETE FROM run",
)


@pytest.fixture
def filled(ledger: Ledger, clock) -> Ledger:
    run = ledger.start_run("demo", "node1", Stage.BURNIN)
    subject = Subject(Scope.GPU, "node1", gpu=0)
    ledger.record_measurements(run, [Measurement("ecc", "errors", 3, subject, clock(), run.id, "")])
    ledger.finish_run(run, Outcome.FAILED)
    return ledger


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_recorded_row_cannot_be_changed(filled: Ledger, sql, statement: str) -> None:
    """Triggers in the database refuse it, not only our code."""
    before = (filled.events(), filled.measurements("demo"), filled.runs("demo"))
    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException), match=r"append-only|finished"):
        sql(statement)
    assert (filled.events(), filled.measurements("demo"), filled.runs("demo")) == before


@pytest.mark.parametrize("table", ["event", "measurement", "run"])
def test_truncating_is_refused(filled: Ledger, sql, url: str, table: str) -> None:
    """PostgreSQL's TRUNCATE fires no row triggers; SQLite's REPLACE fires no delete triggers."""
    if url.startswith("sqlite"):
        statement = f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}"  # noqa: S608 - three names of ours
    else:
        statement = f"TRUNCATE {table} CASCADE"
    before = filled.events()
    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException)):
        sql(statement)
    assert filled.events() == before


def test_the_next_event_still_fits(filled: Ledger) -> None:
    """The triggers let appending through."""
    assert filled.append(NewEvent(EventKind.NOTE, "demo")).id == 4
