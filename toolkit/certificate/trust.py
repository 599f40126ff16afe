"""Whom a reader of certificates trusts: keys with the time they may sign in, and what was revoked. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.errors import UndecidedError

if TYPE_CHECKING:
    from securesystemslib.signer import Key


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key. `until`: what it signed later is refused; None while it is in use.

    stamped   what it signed counts only with a timestamp: of a key that was stolen, whose thief dates as he likes
    """

    key: Key
    name: str
    until: datetime | None = None
    stamped: bool = False


@dataclass(frozen=True, slots=True)
class Revocation:
    """A certificate, by its sha256, that no longer holds for some nodes; `nodes` empty: for all it names."""

    certificate: str
    nodes: tuple[str, ...]
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Trust:
    """What `verify` is given. listed_until: until when the list of revocations holds; None: there is no list."""

    keys: tuple[TrustedKey, ...]
    revocations: tuple[Revocation, ...] = ()
    listed_until: datetime | None = None

    @classmethod
    def of(cls, keys: Iterable[Key]) -> Trust:
        """These keys, with no bound on their time and no list of revocations."""
        return cls(tuple(TrustedKey(key, key.keyid[:12]) for key in keys))

    def refusal_of(
        self, keyid: str, digest: str, issued_at: datetime, now: datetime, stamped_at: datetime | None = None
    ) -> None:
        """Raises for a certificate that its own bytes do not show to be bad. `stamped_at`: by its timestamp, if any.

        CertificateRefusedError UNTRUSTED for one signed by a key after its time, REVOKED for one revoked as a whole;
        UndecidedError where the list of revocations is too old to say.
        """
        signer = next(known for known in self.keys if known.key.keyid == keyid)
        if signer.stamped and stamped_at is None:
            raise CertificateRefusedError(
                Refusal.UNTRUSTED, f"key {signer.name} signed it, which counts with a timestamp only: --timestamp FILE"
            )
        signed_at = stamped_at or issued_at
        if signer.until is not None and signed_at > signer.until:
            by = "signed it, by its timestamp" if stamped_at else "signed it"
            raise CertificateRefusedError(
                Refusal.UNTRUSTED,
                f"key {signer.name} {by} at {signed_at.isoformat()}, and was trusted until {signer.until.isoformat()}",
            )
        if self.listed_until is not None and self.listed_until <= now:
            raise UndecidedError(
                f"the revocations listed hold until {self.listed_until.isoformat()}: what was revoked since is unknown",
                "fetch a newer one: rackproof keys revocations --out FILE, where certificates are issued",
            )
        whole = [r for r in self.revocations if r.certificate == digest and not r.nodes]
        if whole:
            raise CertificateRefusedError(Refusal.REVOKED, f"revoked at {whole[0].at.isoformat()}: {whole[0].reason}")

    def revoked_nodes(self, digest: str) -> tuple[tuple[str, str], ...]:
        """(node, reason) of the nodes that the certificate no longer holds for."""
        return tuple((node, r.reason) for r in self.revocations if r.certificate == digest for node in r.nodes)
