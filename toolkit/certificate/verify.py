"""Verifies a certificate offline: bytes, trusted public keys and the time in, what it proves out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from toolkit.certificate.envelope import MAX_ENVELOPE_BYTES, unsealed
from toolkit.certificate.reading import Verified, read_statement
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.sign import PAYLOAD_TYPE
from toolkit.certificate.timestamp import Stamp
from toolkit.certificate.trust import Trust
from toolkit.errors import UsageError
from toolkit.judge.verdict import CLOCK_SKEW

if TYPE_CHECKING:
    from securesystemslib.signer import Key


def read_envelope(file: Path) -> bytes:
    """The file's bytes, never more than one over the size that is accepted. Raises UsageError."""
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as exc:
        raise UsageError(f"the certificate {file} cannot be read: {exc.strerror}", "check its path") from exc


def verify(envelope: bytes, trusted: Iterable[Key] | Trust, now: datetime, stamp: Stamp | None = None) -> Verified:
    """What the certificate proves, if one of the trusted keys signed exactly these bytes and it is in force.

    Raises CertificateRefusedError; its `refusal` tells what is wrong. UndecidedError where the trust's list of
    revocations is too old to say.
    """
    trust = trusted if isinstance(trusted, Trust) else Trust.of(trusted)
    found = unsealed(envelope, PAYLOAD_TYPE, tuple(known.key for known in trust.keys))
    verified = read_statement(found.body, found.digest, found.keyid)
    if verified.issued_at > now + CLOCK_SKEW:
        _refuse(Refusal.NOT_YET_VALID, f"it is valid from {verified.issued_at.isoformat()}; now is {now.isoformat()}")
    if verified.expires_at <= now:
        _refuse(Refusal.EXPIRED, f"it expired at {verified.expires_at.isoformat()}; now is {now.isoformat()}")
    stamped_at = None if stamp is None else _stamped(stamp, verified)
    for name in sorted(found.digests):
        trust.refusal_of(found.keyid, name, verified.issued_at, now, stamped_at)
    gone = tuple(dict.fromkeys(entry for name in sorted(found.digests) for entry in trust.revoked_nodes(name)))
    if gone and {node for node, _ in gone} >= set(verified.nodes):
        _refuse(Refusal.REVOKED, f"revoked for every node it names: {gone[0][1]}")
    return replace(verified, revoked=gone, stamped_at=stamped_at)


def _stamped(stamp: Stamp, certificate: Verified) -> datetime:
    at = stamp.at(certificate.digest)
    if at + CLOCK_SKEW < certificate.issued_at:
        _refuse(
            Refusal.STAMP_WRONG,
            f"it was there at {at.isoformat()} and says that it was issued at {certificate.issued_at.isoformat()}",
        )
    return at


def _refuse(refusal: Refusal, detail: str) -> NoReturn:
    raise CertificateRefusedError(refusal, detail)
