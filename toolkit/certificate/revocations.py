"""The signed list of revoked certificates, for those who verify elsewhere. Pure but for the key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from toolkit.certificate.envelope import opened, sealed
from toolkit.certificate.refusal import CertificateRefusedError
from toolkit.certificate.sign import SigningKey
from toolkit.certificate.trust import Revocation, Trust
from toolkit.errors import UndecidedError
from toolkit.judge.verdict import CLOCK_SKEW

REVOCATIONS_TYPE = "application/vnd.rackproof.revocations+json"
REVOCATIONS_VERSION = 1
MAX_REVOCATIONS = 100_000


def sign_revocations(revocations: Iterable[Revocation], now: datetime, holds: timedelta, key: SigningKey) -> bytes:
    """The signed list, to be fetched again before `now + holds`."""
    body: dict[str, object] = {
        "version": REVOCATIONS_VERSION,
        "issuedAt": _zulu(now),
        "validUntil": _zulu(now + holds),
        "revocations": [
            {"certificate": r.certificate, "nodes": list(r.nodes), "reason": r.reason, "at": _zulu(r.at)}
            for r in sorted(revocations, key=lambda r: (r.at, r.certificate, r.nodes))
        ],
    }
    return sealed(body, REVOCATIONS_TYPE, key)


def read_revocations(envelope: bytes, trust: Trust, now: datetime) -> Trust:
    """The trust with this list. UndecidedError unless a key that is in use signed exactly these bytes.

    One that was retired tells of no later revocations: whoever stole it would list none.
    """
    keys = tuple(known.key for known in trust.keys if known.until is None or known.until > now)
    try:
        body, _ = opened(envelope, REVOCATIONS_TYPE, keys)
        listed = _listed(body)
    except CertificateRefusedError as refused:
        raise UndecidedError(f"the list of revocations is of no use: {refused.message}", "fetch it again") from refused
    except (KeyError, TypeError, ValueError) as wrong:
        raise UndecidedError(
            f"the list of revocations is signed, but not as it should be: {wrong}"[:300], "fetch it again"
        ) from wrong
    issued, until, revocations = listed
    if issued > now + CLOCK_SKEW:
        raise UndecidedError(f"the list of revocations is of {issued.isoformat()}, which is not yet", "check the clock")
    return replace(trust, revocations=revocations, listed_until=until)


def _listed(body: Mapping[str, Any]) -> tuple[datetime, datetime, tuple[Revocation, ...]]:
    """Raises KeyError, TypeError or ValueError for a body that is no list of ours."""
    if body["version"] != REVOCATIONS_VERSION or len(body["revocations"]) > MAX_REVOCATIONS:
        raise ValueError("another version, or too long")
    issued, until = (time_of(body[name]) for name in ("issuedAt", "validUntil"))
    if issued is None or until is None:
        raise ValueError("its times are none")
    found = []
    for entry in body["revocations"]:
        at = time_of(entry["at"])
        if at is None:
            raise ValueError("a revocation has no time")
        nodes = tuple(str(node) for node in entry["nodes"])
        found.append(Revocation(str(entry["certificate"]), nodes, str(entry["reason"]), at))
    return issued, until, tuple(found)


def time_of(text: object) -> datetime | None:
    """A time with a zone as RFC 3339 has it; None for anything else."""
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None


def _zulu(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
