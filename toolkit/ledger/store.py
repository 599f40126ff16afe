"""Connections and transactions: one writer at a time, readers beside it, any number of threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from toolkit.errors import RackproofError
from toolkit.ledger.dialect import Connection, Dialect

Row = tuple[Any, ...]


class Session:
    """Statements on one connection, inside one transaction or for one read."""

    def __init__(self, dialect: Dialect, connection: Connection) -> None:
        self._dialect = dialect
        self._connection = connection

    def run(self, sql: str, *parameters: object) -> int:
        """Runs a statement; the number of rows it changed."""
        return self._connection.execute(self._dialect.translate(sql), parameters).rowcount

    def many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Runs a statement once for each row of parameters: PostgreSQL is then asked once, not once a row."""
        self._connection.cursor().executemany(self._dialect.translate(sql), rows)

    def one(self, sql: str, *parameters: object) -> Row | None:
        """The first row, if any."""
        row = self._connection.execute(self._dialect.translate(sql), parameters).fetchone()
        return None if row is None else tuple(row)

    def all(self, sql: str, *parameters: object) -> list[Row]:
        """Every row."""
        return self._connection.execute(self._dialect.translate(sql), parameters).fetchall()

    def script(self, sql: str) -> None:
        """A migration."""
        self._dialect.script(self._connection, sql)


class Store:
    """A pool of connections to one database. Safe for threads; a forked child opens its own."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        # Threads of one process queue here instead of polling the database's own lock.
        self._writing = threading.Lock()
        self._pid = os.getpid()
        self._closed = False

    def close(self) -> None:
        """Closes the idle connections; one in use is closed when it comes back."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for connection in idle:
            connection.close()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: all of it is recorded, or nothing."""
        with self._writing, self._connection() as connection:
            self.dialect.begin(connection)
            yield Session(self.dialect, connection)
            connection.execute("COMMIT")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """For single statements: each sees one consistent state and waits for no writer."""
        with self._connection() as connection:
            yield Session(self.dialect, connection)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        connection = self._take()
        try:
            yield connection
        except BaseException as exc:
            # Closing rolls back; and after an error the connection's state is anybody's guess.
            connection.close()
            if isinstance(exc, self.dialect.errors):
                raise self.dialect.explain(exc) from exc
            raise
        self._give_back(connection)

    def _take(self) -> Connection:
        if os.getpid() != self._pid:
            raise RackproofError("a ledger opened before a fork is used after it", "open the ledger in the child")
        while True:
            with self._lock:
                if self._closed:
                    raise RackproofError("the ledger is closed")
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self.dialect.connect()
            if self.dialect.alive(connection):
                return connection
            connection.close()

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()
