"""PostgreSQL through psycopg 3. Passwords of the URL never reach a message."""

from __future__ import annotations

from typing import cast

from toolkit.errors import BusyError, RackproofError, UsageError
from toolkit.ledger.dialect import BUSY_TIMEOUT_S, Connection
from toolkit.ledger.errors import LedgerError, LedgerFullError

_CONNECT_TIMEOUT_S = 10
# One writer at a time, as in SQLite: ids then count without gaps in commit order, so that a reader who
# asks for everything after the last id it saw never misses an event that was committed late.
_WRITER_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.rackproof.ledger', 0))"


class PostgreSql:
    """The ledger in the first schema of the URL's search path."""

    name = "postgresql"
    has_tables = (
        "SELECT 1 FROM information_schema.tables"
        " WHERE table_schema = current_schema() AND table_name = 'schema_migration'"
    )

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self._read_only = read_only
        try:
            import psycopg
            from psycopg import conninfo
        except ImportError:
            raise UsageError(
                "the ledger is on PostgreSQL and its driver is not installed", "pip install 'rackproof[postgres]'"
            ) from None
        self._driver = psycopg
        self.errors: tuple[type[Exception], ...] = (psycopg.Error,)
        try:
            parts = conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            # libpq quotes the part it stumbled over, which may be the password: neither shown nor chained.
            raise UsageError(
                "the ledger URL is not one PostgreSQL understands",
                "write postgresql://USER@HOST:PORT/DATABASE, percent-encode special characters,"
                " and keep the password in ~/.pgpass",
            ) from None
        self._url = url
        self._secret = str(parts.pop("password", "") or "")
        shown = {key: parts[key] for key in ("user", "host", "port", "dbname") if parts.get(key)}
        self.where = "postgresql " + " ".join(f"{key}={value}" for key, value in shown.items())

    def connect(self) -> Connection:
        """A connection whose commits are on disk before they are answered."""
        try:
            connection = self._driver.connect(
                self._url,
                autocommit=True,
                connect_timeout=_CONNECT_TIMEOUT_S,
                application_name="rackproof",
            )
        except self._driver.Error as exc:
            raise self.explain(exc) from None
        try:
            connection.execute(f"SET lock_timeout = '{BUSY_TIMEOUT_S}s'")
            connection.execute("SET synchronous_commit = on")
            connection.execute("SET default_transaction_isolation = 'read committed'")
            if self._read_only:
                connection.execute("SET default_transaction_read_only = on")
        except self._driver.Error as exc:
            connection.close()
            raise self.explain(exc) from exc
        return cast(Connection, connection)

    def begin(self, connection: Connection) -> None:
        """Statements after the lock see everything committed before it was granted."""
        connection.execute("BEGIN")
        connection.execute(_WRITER_LOCK)

    def alive(self, connection: Connection) -> bool:
        """One round trip: the server may have been restarted since the connection was last used."""
        try:
            connection.execute("SELECT 1")
        except self.errors:
            return False
        return True

    def translate(self, sql: str) -> str:
        """Our statements hold neither `%` nor a quoted question mark."""
        return sql.replace("?", "%s")

    def script(self, connection: Connection, sql: str) -> None:
        """Without parameters the server takes many statements at once."""
        connection.execute(sql)

    def explain(self, exc: Exception) -> RackproofError:
        """By SQLSTATE; without one the server was not reached or went away."""
        state = getattr(exc, "sqlstate", None) or ""
        said = self._without_secret(str(exc))
        if state == "53100":
            return LedgerFullError(self.where, said)
        if state in ("55P03", "40P01"):
            return BusyError(
                f"another process has kept the ledger {self.where} locked for {BUSY_TIMEOUT_S} s",
                "see who holds it (SELECT * FROM pg_stat_activity), then run the same command again",
            )
        if state in ("42501", "25006"):
            return LedgerError(
                f"the ledger {self.where} may not be written by this user: {said}",
                "grant the user its own schema, and connect to the primary server",
            )
        if not state or state[:2] in ("08", "53", "57", "58"):
            return LedgerError(
                f"the ledger {self.where} does not answer: {said}",
                "check address, database, user and password, then run the same command again:"
                " it reads what was recorded first",
            )
        return RackproofError(f"the ledger {self.where} refused a statement: {said}")

    def _without_secret(self, text: str) -> str:
        return " ".join((text.replace(self._secret, "***") if self._secret else text).split())
