"""From a ledger's URL to its database."""

from __future__ import annotations

from toolkit.errors import UsageError
from toolkit.ledger.dialect import Dialect


def dialect_of(url: str) -> Dialect:
    """The dialect for a ledger URL: `sqlite:///ABSOLUTE/PATH` or `postgresql://...`. Raises UsageError."""
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        from toolkit.ledger.sqlite import Sqlite

        return Sqlite(url)
    if scheme in ("postgresql", "postgres"):
        from toolkit.ledger.postgresql import PostgreSql

        return PostgreSql(url)
    raise UsageError(
        "the ledger URL has no scheme that is known",  # it may hold a password: never shown as it is
        "set RACKPROOF_LEDGER to sqlite:///ABSOLUTE/PATH or postgresql://USER@HOST/DATABASE",
    )
