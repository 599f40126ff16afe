"""The few things SQLite and PostgreSQL differ in, behind one Protocol. Statements are the same for both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from toolkit.errors import RackproofError

BUSY_TIMEOUT_S = 30


class Cursor(Protocol):
    """What of a DB-API cursor is used."""

    rowcount: int

    def fetchone(self) -> Any:
        """The next row or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows left."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[object]], /) -> object:
        """Runs one statement once for each row of parameters."""
        ...


class Connection(Protocol):
    """What of a connection is used. It is in autocommit: transactions are begun and ended by statement."""

    def execute(self, sql: str, parameters: Sequence[object] = ..., /) -> Cursor:
        """Runs one statement."""
        ...

    def cursor(self) -> Cursor:
        """A new cursor."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


class Dialect(Protocol):
    """One database."""

    name: str  # of the migrations that are this dialect's own
    where: str  # for messages; never holds a password
    errors: tuple[type[Exception], ...]  # what the driver raises

    def connect(self) -> Connection:
        """A new connection. Raises LedgerError or UsageError."""
        ...

    def begin(self, connection: Connection) -> None:
        """Begins a transaction that is the only writing one; waits at most BUSY_TIMEOUT_S for that."""
        ...

    def alive(self, connection: Connection) -> bool:
        """True if an idle connection still answers."""
        ...

    def translate(self, sql: str) -> str:
        """The statement with this dialect's placeholders. Statements are written with `?`."""
        ...

    def script(self, connection: Connection, sql: str) -> None:
        """Runs a migration's statements inside the open transaction."""
        ...

    def explain(self, exc: Exception) -> RackproofError:
        """Our error for the driver's."""
        ...

    @property
    def has_tables(self) -> str:
        """A query that answers one row if the ledger's first table is there."""
        ...
