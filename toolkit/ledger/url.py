"""From a ledger's URL to its database."""

from __future__ import annotations

from toolkit.errors import UsageError
from toolkit.ledger.dialect import Dialect


def dialect_of(url: str, *, read_only: bool = False) -> Dialect:
    """The dialect for a ledger URL: `sqlite:///ABSOLUTE/PATH` or `postgresql://...`. Raises UsageError.

    read_only  its connections can change nothing, whatever statement they are given
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        from toolkit.ledger.sqlite import Sqlite

        return Sqlite(url, read_only=read_only)
    if scheme in ("postgresql", "postgres"):
        from toolkit.ledger.postgresql import PostgreSql

        return PostgreSql(url, read_only=read_only)
    raise UsageError(
        "the ledger URL has no scheme that is known",  # it may hold a password: never shown as it is
        "set RACKPROOF_LEDGER to sqlite:///ABSOLUTE/PATH or postgresql://USER@HOST/DATABASE",
    )
