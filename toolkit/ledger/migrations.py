"""Numbered, forward-only migrations whose checksums are recorded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

from toolkit.errors import UsageError
from toolkit.ledger.dialect import Dialect
from toolkit.ledger.records import time_text
from toolkit.ledger.store import Session, Store

_RECORD = (
    "CREATE TABLE schema_migration"
    " (number BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, at TEXT NOT NULL)"
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `0001_tables.sql` for both dialects or `0002_append_only.sqlite.sql` for one."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """sha256 of the file's text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def shipped(dialect: str) -> tuple[Migration, ...]:
    """The migrations of this version for a dialect, in order."""
    found = []
    for file in resources.files("toolkit.ledger").joinpath("migrations").iterdir():
        stem, *rest = file.name.split(".")
        if rest not in (["sql"], [dialect, "sql"]):
            continue
        number, _, name = stem.partition("_")
        found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda m: m.number))


def migrate(store: Store, migrations: tuple[Migration, ...], now: datetime) -> None:
    """Brings the database to the newest of `migrations`; writes only if it is not there yet.

    Raises UsageError if a recorded migration differs from the shipped one or is not shipped at all.
    """
    with store.read() as session:
        recorded = _recorded(session, store.dialect)
    if _pending(recorded, migrations, store.dialect.where) or not recorded:
        with store.write() as session:
            _apply(session, store.dialect, migrations, now)


def require_newest(store: Store, migrations: tuple[Migration, ...]) -> None:
    """UsageError unless the database is at the newest of `migrations`: for those who may not bring it there."""
    with store.read() as session:
        recorded = _recorded(session, store.dialect)
    if not recorded or _pending(recorded, migrations, store.dialect.where):
        raise UsageError(
            f"the ledger {store.dialect.where} is of an older rackproof, and this only reads it",
            "rackproof status brings it up to date",
        )


def _apply(session: Session, dialect: Dialect, migrations: tuple[Migration, ...], now: datetime) -> None:
    # Read again under the write lock: another process may have migrated meanwhile.
    if session.one(dialect.has_tables) is None:
        session.run(_RECORD)
    for migration in _pending(_recorded(session, dialect), migrations, dialect.where):
        session.script(migration.sql)
        session.run(
            "INSERT INTO schema_migration (number, name, checksum, at) VALUES (?, ?, ?, ?)",
            migration.number,
            migration.name,
            migration.checksum,
            time_text(now),
        )


def _recorded(session: Session, dialect: Dialect) -> dict[int, tuple[str, str]]:
    if session.one(dialect.has_tables) is None:
        return {}
    rows = session.all("SELECT number, name, checksum FROM schema_migration ORDER BY number")
    return {number: (name, checksum) for number, name, checksum in rows}


def _pending(
    recorded: dict[int, tuple[str, str]], migrations: tuple[Migration, ...], where: str
) -> tuple[Migration, ...]:
    known = {migration.number: migration for migration in migrations}
    for number, (name, checksum) in recorded.items():
        if number not in known:
            raise UsageError(
                f"the ledger {where} has migration {number} '{name}', which this version does not know",
                "a newer rackproof wrote it: upgrade this one",
            )
        if known[number].checksum != checksum:
            raise UsageError(
                f"the ledger {where} was made with another text of migration {number} '{name}'"
                f" (recorded {checksum[:12]}, shipped {known[number].checksum[:12]})",
                "migrations are never edited: install the rackproof that made this ledger, or a newer release",
            )
    return tuple(m for m in migrations if m.number not in recorded)
