"""Forward only, recorded, and refused where they are not the ones that made the ledger."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.errors import UsageError
from toolkit.ledger import EventKind, Ledger, NewEvent
from toolkit.ledger.migrations import Migration, migrate, shipped
from toolkit.ledger.store import Store
from toolkit.ledger.url import dialect_of


def test_a_second_opening_changes_nothing(opened, sql) -> None:
    """The migrations are recorded once, with their checksums."""
    opened()
    opened()
    rows = sql("SELECT number, checksum FROM schema_migration ORDER BY number")
    dialects = [[(m.number, m.checksum) for m in shipped(name)] for name in ("sqlite", "postgresql")]
    assert rows in dialects


def test_both_dialects_have_the_same_numbers() -> None:
    """Counted from 1 without gaps, so that a missing file is seen."""
    numbers = [[m.number for m in shipped(name)] for name in ("sqlite", "postgresql")]
    assert numbers[0] == numbers[1] == list(range(1, len(numbers[0]) + 1))


def test_a_newer_migration_is_applied_to_an_older_ledger(opened, url: str, clock, sql) -> None:
    """What was recorded before stays."""
    opened().append(NewEvent(EventKind.NOTE, "demo"))
    dialect = dialect_of(url)
    store = Store(dialect)
    known = shipped(dialect.name)
    newer = Migration(len(known) + 1, "extra", "CREATE TABLE extra (a TEXT);\nINSERT INTO extra VALUES ('x;y');\n")
    migrate(store, (*known, newer), clock())
    store.close()
    assert sql("SELECT a FROM extra") == [("x;y",)]
    assert sql("SELECT count(*) FROM event") == [(1,)]


def test_a_ledger_of_a_newer_version_is_refused(opened, url: str, clock, sql) -> None:
    """This version does not know what the newer tables mean."""
    opened()
    sql("INSERT INTO schema_migration VALUES (99, 'from_the_future', 'x', 'x')")
    with pytest.raises(UsageError, match=r"99 'from_the_future'.*\n.*upgrade"):
        opened()


def test_a_changed_migration_is_refused(opened, url: str, clock) -> None:
    """A text that is not the recorded one made other tables."""
    opened()
    dialect = dialect_of(url)
    store = Store(dialect)
    first, *rest = shipped(dialect.name)
    with pytest.raises(UsageError, match="another text of migration 1 'tables'"):
        migrate(store, (replace(first, sql=first.sql + "-- edited\n"), *rest), clock())
    store.close()


def test_a_migration_that_fails_leaves_nothing(url: str, clock, sql) -> None:
    """Tables are made in the same transaction in both databases."""
    dialect = dialect_of(url)
    store = Store(dialect)
    broken = Migration(1, "broken", "CREATE TABLE half (a TEXT);\nCREATE TABLE half (a TEXT);\n")
    with pytest.raises(Exception, match="half"):
        migrate(store, (broken,), clock())
    store.close()
    with pytest.raises(Exception, match="half"):
        sql("SELECT * FROM half")


def test_processes_that_open_a_new_ledger_at_once_agree(url: str, tmp_path: Path, sql) -> None:
    """One makes the tables, the others wait for it."""
    script = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from toolkit.ledger import EventKind, Ledger, NewEvent\n"
        "with Ledger.open(sys.argv[1], Path(sys.argv[2]), 'x', lambda: datetime.now(UTC)) as ledger:\n"
        "    ledger.append(NewEvent(EventKind.NOTE, 'demo'))\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, url, str(tmp_path / "a")]) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    assert sql("SELECT count(*) FROM event") == [(4,)]


def test_the_ledger_opens_without_the_other_database(tmp_path: Path) -> None:
    """psycopg is an extra: SQLite does not import it, and start-up stays light."""
    script = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from toolkit.ledger import Ledger\n"
        "Ledger.open(sys.argv[1], Path(sys.argv[2]), 'x', lambda: datetime.now(UTC)).close()\n"
        "sys.exit('psycopg' in sys.modules)\n"
    )
    url = f"sqlite:///{tmp_path}/new/folder/ledger.db"
    subprocess.run([sys.executable, "-c", script, url, str(tmp_path / "a")], check=True)
    assert (tmp_path / "new/folder").stat().st_mode & 0o777 == 0o700


def test_opening_is_the_same_object_as_a_context(tmp_path: Path, clock) -> None:
    """Leaving the block closes it; a closed ledger says so."""
    with Ledger.open(f"sqlite:///{tmp_path}/l.db", tmp_path, "x", clock) as ledger:
        ledger.append(NewEvent(EventKind.NOTE, "demo"))
    with pytest.raises(Exception, match="closed"):
        ledger.events()
