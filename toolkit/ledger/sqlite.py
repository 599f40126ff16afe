"""SQLite: one file in WAL mode, each commit on disk before it is answered."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import cast

from toolkit.errors import BusyError, RackproofError, UsageError
from toolkit.ledger.dialect import BUSY_TIMEOUT_S, Connection
from toolkit.ledger.errors import LedgerError, LedgerFullError

_AGAIN_S = 0.02
_KEEP = "keep the file as it is, restore a copy, or name another ledger with RACKPROOF_LEDGER"


class Sqlite:
    """The ledger in one file. `sqlite:///path` and `sqlite:////path` both mean `/path`."""

    name = "sqlite"
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    has_tables = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_migration'"

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self._read_only = read_only
        path = url.removeprefix("sqlite:").lstrip("/")
        if not path:
            raise UsageError("the ledger URL names no file", "set RACKPROOF_LEDGER to sqlite:///ABSOLUTE/PATH")
        self._path = Path("/") / path
        self.where = str(self._path)

    def connect(self) -> Connection:
        """Opens the file, creating it and its folder for the owner alone; to read, neither is made."""
        if self._read_only:
            return self._connect_to_read()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise LedgerError(
                f"the folder of the ledger {self.where} cannot be made: {exc.strerror}",
                "give another place with RACKPROOF_HOME or RACKPROOF_LEDGER",
            ) from exc
        try:
            connection = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as exc:
            raise self.explain(exc) from exc
        try:
            self._configure(connection)
        except sqlite3.Error as exc:
            connection.close()
            raise self.explain(exc) from exc
        except LedgerError:
            connection.close()
            raise
        return cast(Connection, connection)

    def _connect_to_read(self) -> Connection:
        if not self._path.exists():
            raise LedgerError(f"there is no ledger {self.where} yet", "rackproof bringup RACK makes it")
        try:
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode=ro", timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False,
                uri=True,
            )  # fmt: skip
            connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as exc:
            raise self.explain(exc) from exc
        return cast(Connection, connection)

    def _configure(self, connection: sqlite3.Connection) -> None:
        mode = _write_ahead(connection)
        if mode != "wal":
            raise LedgerError(
                f"the ledger {self.where} cannot use a write-ahead log (its mode is '{mode}')",
                "keep it on a local disk, not on a network file system",
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    def begin(self, connection: Connection) -> None:
        """IMMEDIATE takes the write lock at once, so that what is read inside cannot change before the commit."""
        connection.execute("BEGIN IMMEDIATE")

    def alive(self, connection: Connection) -> bool:
        """There is no server that could have gone."""
        return True

    def translate(self, sql: str) -> str:
        """SQLite's own placeholders are ours."""
        return sql

    def script(self, connection: Connection, sql: str) -> None:
        """One statement after the other: `executescript` would commit the open transaction first."""
        statement = ""
        for line in sql.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                connection.execute(statement)
                statement = ""

    def explain(self, exc: Exception) -> RackproofError:
        """By SQLite's primary result code."""
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return LedgerFullError(self.where, str(exc))
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return BusyError(
                f"another process has kept the ledger {self.where} locked for {BUSY_TIMEOUT_S} s",
                "see who has the file open (fuser -v FILE), then run the same command again",
            )
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
            return LedgerError(
                f"the ledger {self.where} cannot be opened for {'reading' if self._read_only else 'writing'}: {exc}",
                "check the owner and the permissions of the file and of its folder",
            )
        if code == sqlite3.SQLITE_NOTADB:
            return LedgerError(f"{self.where} is not a ledger: it is no SQLite database", _KEEP)
        if code == sqlite3.SQLITE_CORRUPT:
            return LedgerError(f"the ledger {self.where} is damaged: {exc}", _KEEP)
        return RackproofError(f"the ledger {self.where} refused a statement: {exc}")


def _write_ahead(connection: sqlite3.Connection) -> str:
    """Switches to the write-ahead log; the mode that the file has then.

    While another process does the same, SQLite answers "locked" at once instead of waiting: waiting for an exclusive
    lock with a shared one in hand could wait for ever (sqlite.org/c3ref/busy_handler.html). So we let go and ask again.
    """
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_AGAIN_S)
        else:
            return str(mode)
