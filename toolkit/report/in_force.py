"""Which certificate vouches for each node of a rack now, by the ledger and a reader's trust; where none does, why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from toolkit.certificate.reading import Verified
from toolkit.certificate.refusal import CertificateRefusedError
from toolkit.certificate.rotation import TRUST, installed_trust
from toolkit.certificate.sign import PUBLIC
from toolkit.certificate.trust import Trust
from toolkit.certificate.verify import verify
from toolkit.ledger import ArtifactError, Event, EventKind, Ledger
from toolkit.pool.admission import revocations
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.model import Rack
from toolkit.report.standing import Standing, standings

MAX_EVENTS = 100_000
_CERTIFIED = frozenset({NodeState.CERTIFIED, NodeState.ADMITTED})


@dataclass(frozen=True, slots=True)
class InForce:
    """Every planned node is in one of the two.

    vouched  node -> the certificate that vouches for it
    doubts   node -> why none does
    """

    vouched: Mapping[str, Verified]
    doubts: Mapping[str, str]

    @property
    def certificates(self) -> tuple[Verified, ...]:
        """Each once, oldest first."""
        found = {c.digest: c for c in self.vouched.values()}
        return tuple(sorted(found.values(), key=lambda c: (c.issued_at, c.digest)))


def in_force(ledger: Ledger, rack: Rack, trust: Trust | None, now: datetime) -> InForce:
    """The newest certificate that names each node, if it holds now.

    trust  None: this installation has no key yet, so that nothing can be verified
    Raises UndecidedError where the trust's list of revocations is too old to say.
    """
    revoked = revocations(e.body for e in _events(ledger, rack, EventKind.CERTIFICATE_REVOKED))
    newest: dict[str, str] = {}
    for event in _events(ledger, rack, EventKind.CERTIFICATE_ISSUED):
        newest |= {str(node): event.what for node in event.body.get("nodes") or ()}
    desk = _Desk(ledger, rack, trust, now)
    vouched: dict[str, Verified] = {}
    doubts: dict[str, str] = {}
    for standing in standings(ledger, rack):
        digest = newest.get(standing.node, "")
        found = _by_record(standing, digest, revoked.get((digest, standing.node))) or desk.certificate(digest)
        if isinstance(found, Verified):
            found = desk.doubt(found, standing.node) or found
        if isinstance(found, Verified):
            vouched[standing.node] = found
        else:
            doubts[standing.node] = found
    return InForce(vouched, doubts)


def own_trust(keys: Path, now: datetime) -> Trust | None:
    """Whom this installation believes; None where it never signed anything. `keys`: the folder of its keys."""
    there = any((keys / name).exists() for name in (TRUST, PUBLIC))
    return installed_trust(keys, now) if there else None


def _events(ledger: Ledger, rack: Rack, kind: EventKind) -> tuple[Event, ...]:
    return ledger.events(rack.name, kind=kind, limit=MAX_EVENTS)


def _by_record(standing: Standing, digest: str, revoked: str | None) -> str:
    """What the ledger alone has against it; empty where it has nothing."""
    where = " ".join(filter(None, (standing.state.value, standing.code, standing.part)))
    if standing.state not in _CERTIFIED:
        return f"no certificate in force: {where}"
    if not digest:
        return f"no certificate on record names it: {where}"
    return "" if revoked is None else f"certificate {digest[:12]} is revoked: {revoked}"


@dataclass(slots=True)
class _Desk:
    """Verifies each certificate once. `read`: by digest, the certificate, or why it is none."""

    ledger: Ledger
    rack: Rack
    trust: Trust | None
    now: datetime
    read: dict[str, Verified | str] = field(default_factory=dict)

    def certificate(self, digest: str) -> Verified | str:
        """The certificate, or why it proves nothing."""
        if digest not in self.read:
            self.read[digest] = self._verified(digest)
        return self.read[digest]

    def _verified(self, digest: str) -> Verified | str:
        if self.trust is None:
            return f"certificate {digest[:12]} cannot be verified: this installation has no key"
        try:
            return verify(self.ledger.artifacts.get(digest), self.trust, self.now)
        except (CertificateRefusedError, ArtifactError) as refused:
            return f"certificate {digest[:12]}: {refused.message}"

    def doubt(self, certificate: Verified, node: str) -> str:
        """Why a certificate that verified does not hold for this node of this rack; empty where it does."""
        name = f"certificate {certificate.digest[:12]}"
        if certificate.rack != self.rack.name or node not in certificate.nodes:
            return f"{name} is of {certificate.rack} and does not name {node}"
        if certificate.fingerprint.topology != self.rack.digest:
            return f"{name} is of the rack as it was designed before its file was changed"
        revoked = dict(certificate.revoked).get(node)
        return "" if revoked is None else f"{name} is revoked: {revoked}"
